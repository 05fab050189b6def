"""A plan for devices that are not here: from headers alone, with what does not fit named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import evomerge
from evomerge.check import CheckReport
from evomerge.check.fit import findings_of, place
from evomerge.check.footprint import footprint_of
from evomerge.check.plan import Plan, _makespan
from evomerge.check.workload import _distinct, work_of
from evomerge.cli import app
from evomerge.errors import InputError
from evomerge.job import DEVICES, ComputeSpec, read_devices, read_prices
from evomerge.search import PhaseForecast
from evomerge.workers import prepare
from tests.check.headers import LLAMA_70B, save_headers
from tests.search.jobs import ROUTES, job_document, make_job, write_models


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of 70B: 423 GB of holes."""
    folder = tmp_path_factory.mktemp("large")
    for name in ("base", "first", "second"):
        save_headers(folder / name, LLAMA_70B)
    return folder


@pytest.fixture(scope="module")
def h100(small: Path) -> Plan:
    return plan(small, "H100")


def plan(folder: Path, devices: str, **changes: Any) -> Plan:
    document = job_document(folder, **{"compute": {"device": "cuda"}, **changes})
    found = evomerge.check(document, devices=devices, timing=False).plan
    assert found is not None
    return found


def test_headers_of_70b_are_enough(large: Path) -> None:
    found = plan(large, "8xH200,2xH100,1xB200")
    h200, h100, b200 = found.devices
    assert found.footprint.parameters == 70_553_706_496
    assert found.footprint.live_bytes == 2 * 70_553_706_496
    assert found.footprint.written_bytes == 2 * 70_553_706_496
    assert found.disk.files_bytes == pytest.approx(6 * 70_553_706_496, rel=1e-5)
    assert (h200.fits, h100.fits, b200.fits) == (False, False, True)
    assert h200.candidate_s is None and b200.candidate_s is not None
    assert found.hours is not None and found.hours[0] < found.hours[1]
    small, smaller = found.findings
    assert "H200: a worker needs at least 159 GB and has 141 GB" in small
    assert "H100: a worker needs at least 159 GB and has 80 GB" in smaller
    assert small.endswith("take a device with more memory, such as B200")
    # What is not on the device comes through the link, for every merge.
    assert b200.moved.resident + b200.moved.streamed == 6 * 70_553_706_496
    assert b200.moved.resident == int(0.4 * (180e9 - 1e9 - 2 * 70_553_706_496))


def test_half_the_bytes_are_proposed_where_they_fit(h100: Plan) -> None:
    live = 120 * 10**9
    footprint = replace(h100.footprint, dtype="float32", live_bytes=live, merge_bytes=10**9)
    compute = ComputeSpec()
    placed = place(read_devices("H100"), footprint, compute, here_bytes=1)
    [finding] = findings_of(placed, footprint, compute, models=3)
    assert "set compute.dtype to bfloat16 (then 62 GB) or take a device with more" in finding
    routes = replace(footprint, routes=True, dtype="bfloat16")
    [finding] = findings_of(placed, routes, compute, models=3)
    assert "name fewer models" not in finding, "two of three models are too large as well"
    routes = replace(routes, live_bytes=90 * 10**9)
    placed = place(read_devices("H100"), routes, compute, here_bytes=1)
    [finding] = findings_of(placed, routes, compute, models=3)
    assert "name fewer models (2 models with the base) (then 62 GB)" in finding


def test_routes_hold_all_models_and_move_nothing(small: Path, h100: Plan) -> None:
    routes = plan(small, "H100", search_space=ROUTES)
    assert routes.footprint.live_bytes == 3 * h100.footprint.live_bytes
    assert routes.devices[0].moved.written == routes.footprint.sources_bytes == 0
    assert routes.footprint.prefix_bytes == 10**9


def test_more_and_faster_devices_take_less_time(small: Path, h100: Plan) -> None:
    one, six, slow = h100, plan(small, "6xH100"), plan(small, "L4")
    assert one.hours is not None and six.hours is not None and slow.hours is not None
    assert six.hours[1] < one.hours[1]
    assert one.hours[0] <= slow.hours[0]
    assert one.cost is not None and six.cost is not None
    assert one.cost == pytest.approx([hours * DEVICES["H100"].price for hours in one.hours])
    assert six.cost == pytest.approx([6 * hours * DEVICES["H100"].price for hours in six.hours])
    assert any("2 of 6 workers have nothing to do" in finding for finding in six.findings)


def test_a_mix_has_the_time_of_the_faster_worker_at_most() -> None:
    phase = PhaseForecast(phase="search", stage="", models=(8, 8), items={}, parts=1, at_once=4)
    assert _makespan(phase, 8, [1.0]) == 8.0
    assert _makespan(phase, 8, [1.0, 1.0]) == 4.0
    assert _makespan(phase, 8, [1.0, 3.0]) == 6.0, "the slow one holds up each generation"
    assert _makespan(phase, 8, [1.0] * 9) == 2.0, "more workers than candidates"


def test_workers_share_devices_and_their_memory(small: Path) -> None:
    preparation = prepare(make_job(small))
    footprint = footprint_of(preparation)
    groups = read_devices("2xH100,1xA100")

    def placed(**compute: Any) -> list[tuple[int, int]]:
        found = place(groups, footprint, ComputeSpec(**compute), here_bytes=1)
        return [(on.workers, on.memory_bytes) for on in found]

    whole = 80 * 10**9
    assert placed() == [(2, whole), (1, whole)]
    assert placed(gpus_per_worker=0.5) == [(4, whole // 2), (2, whole // 2)]
    assert placed(workers=2) == [(2, whole), (0, whole)]
    assert placed(gpus_per_worker=2) == [(1, whole), (0, whole)]


def test_this_machine_is_measured_and_a_gpu_is_taken_from_its_data_sheet(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evomerge.api.checks.TIMING_S", 0.1)
    report = evomerge.check(job_document(small), devices="1xCPU,1xA100-40GB")
    assert report.timing is None and report.plan is not None
    here, gpu = report.plan.devices
    assert here.candidate_s is not None and gpu.candidate_s is not None
    assert 0 < here.candidate_s[0] < here.candidate_s[1]
    assert gpu.memory_bytes == 40 * 10**9
    sources = {found.source.split(":")[0] for found in report.plan.assumptions}
    assert {"NVIDIA data sheet", "assumed; give yours", "measured on this machine"} <= sources
    with pytest.raises(InputError, match="CPU is this machine, whose speed is measured"):
        evomerge.check(job_document(small), devices="CPU", timing=False)


def test_the_work_counts_shared_beginnings_once(small: Path) -> None:
    texts = [np.array(text, dtype=np.int64) for text in ([1, 2, 3], [1, 2, 4, 5], [9], [1, 2, 3])]
    assert _distinct(texts) == 3 + 2 + 1
    suite = prepare(make_job(small)).suite
    ids = suite.items("sums_said", "search")[:5]
    work = work_of(suite, {"sums_said": ids}, {"sums_said": 2})
    assert (work.items, work.answers, work.answer_tokens, work.longest_answer) == (5, 5, 10, 2)
    assert 0 < work.read_tokens <= sum(len(r.tokens) for r in suite.requests({"sums_said": ids}))


@pytest.mark.parametrize(
    ("devices", "prices", "words"),
    [
        ("8xH10", {}, "devices: H10 is not in the table of devices; did you mean H100?"),
        ("8 H100", {}, "devices: 8 H100: not understood; write a number and a name"),
        ("0xH100", {}, "0 is outside 1 to"),
        ("H100,", {}, "devices: nothing: not understood"),
        ("H100", {"L4": 1.0}, "prices: L4 is not among the devices; name one of H100"),
        ("H100", {"H100": -1.0}, "H100=-1: no price"),
    ],
)
def test_devices_that_are_not_understood_are_refused(
    devices: str, prices: Mapping[str, float], words: str
) -> None:
    with pytest.raises(InputError) as refused:
        read_devices(devices, prices)
    assert words in str(refused.value)


def test_prices_are_those_that_are_given() -> None:
    h100, a100 = read_devices("2xh100,a100,1xH100", {"A100": 1.25})
    assert (h100.name, h100.count, h100.price_source) == ("H100", 3, "assumed; give yours")
    assert (a100.name, a100.price, a100.price_source) == ("A100-80GB", 1.25, "given")
    assert read_prices(["H100=2.5"]) == {"H100": 2.5}
    with pytest.raises(InputError, match="joins no cluster"):
        evomerge.check(job_document(Path()), devices="H100", ray_address="auto")
    with pytest.raises(InputError, match="there are no devices to pay for"):
        evomerge.check(job_document(Path()), prices={"H100": 2.5})
    with pytest.raises(InputError, match="price: H100: not understood"):
        read_prices(["H100"])


def test_the_command_prints_the_plan_with_its_assumptions(small: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(job_document(small, compute={"device": "cuda", "workers": 2})))
    command = ["check", str(job), "--devices", "2xL4", "--price", "L4=0.4", "--no-timing"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    lines = said.stdout.splitlines()
    assert lines[0].endswith("no model was loaded, and no weight checked.")
    assert "  L4: $0.4 an hour (given)" in lines
    assert any(line.startswith("  the whole search: ") and " to " in line for line in lines)
    document = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    report = evomerge.check(job, devices="2xL4", prices={"L4": 0.4}, timing=False)
    assert isinstance(report, CheckReport)
    assert document["plan"] == json.loads(json.dumps(report.to_json()["plan"]))
    assert document["plan"]["devices"][0]["workers"] == 2
