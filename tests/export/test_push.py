"""The upload of an export to the hub, against a stand-in of it on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants
from typer.testing import CliRunner

import evomerge
from evomerge.cli import app
from evomerge.search import run
from tests.export.hub import TOKEN, Hub, serving
from tests.search.jobs import LightPool, job_document, write_models


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search."""
    folder = tmp_path_factory.mktemp("searched")
    write_models(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "open_job_pool", lambda *given, **named: LightPool())
        evomerge.search(job_document(folder), folder / "run")
    return folder / "run"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    with serving(hub) as url:
        # Both are read from the environment when the library is imported.
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def export(searched: Path, out: Path, *options: str) -> Any:
    result = CliRunner().invoke(app, ["export", str(searched), "--out", str(out), *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    assert TOKEN not in result.output
    return result


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_the_whole_folder_is_uploaded_and_private(searched: Path, hub: Hub, tmp_path: Path) -> None:
    result = export(searched, tmp_path / "merged", "--push", "someone/sums")
    assert result.exit_code == 0, result.output
    assert hub.private == {"someone/sums": True}
    assert hub.files["someone/sums"] == files_of(tmp_path / "merged")
    assert f"uploaded: {hub.url}/someone/sums" in result.stdout


def test_public_and_python(searched: Path, hub: Hub, tmp_path: Path) -> None:
    report = evomerge.export(searched, tmp_path / "merged", push="someone/sums", public=True)
    assert report.url == f"{hub.url}/someone/sums"
    assert hub.private == {"someone/sums": False}


def test_the_card_has_the_test_scores_with_intervals_as_the_hub_reads_them(
    searched: Path, hub: Hub, tmp_path: Path
) -> None:
    report = evomerge.open_run(searched).export(tmp_path / "merged", push="someone/sums")
    assert report.url is not None
    results = ModelCard(hub.files["someone/sums"]["README.md"].decode()).data.eval_results
    assert results is not None
    summary = evomerge.open_run(searched).winner.scores
    wanted = {
        (task, metric.partition(",")[0]): interval
        for task, metrics in summary.tasks.items()
        for metric, interval in metrics.items()
    }
    found = {(result.dataset_type, result.metric_type): result for result in results}
    assert set(found) == set(wanted)
    for name, interval in wanted.items():
        assert found[name].metric_value == pytest.approx(interval.value, abs=1e-6)
        assert f"95% interval [{interval.low:.3f}, {interval.high:.3f}]" in str(
            found[name].metric_name
        )


def test_a_candidate_by_its_search_items_has_no_results_for_the_hub(
    searched: Path, tmp_path: Path
) -> None:
    evomerge.export(searched, tmp_path / "merged", trial="g0002-i001")
    assert "model-index" not in (tmp_path / "merged" / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--push", "sums"], "--push sums: not a name on the hub; write ORG/NAME"),
        (["--push", "a/b/c"], "--push a/b/c: not a name on the hub"),
        (["--push", "some one/sums"], "--push some one/sums: not a name on the hub"),
        (["--push", "a/b..c"], "--push a/b..c: not a name on the hub"),
        (["--public"], "--public: nothing is uploaded; give --push ORG/NAME too"),
    ],
)
def test_what_is_no_name_is_refused_before_the_export(
    searched: Path, hub: Hub, tmp_path: Path, options: list[str], says: str
) -> None:
    result = export(searched, tmp_path / "merged", *options)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"evomerge: {says}")
    assert not (tmp_path / "merged").exists()
    assert hub.asked == []


def test_without_a_token_nothing_is_written(
    searched: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    result = export(searched, tmp_path / "merged", "--push", "someone/sums")
    assert (result.exit_code, result.stderr) == (
        2,
        "evomerge: --push someone/sums: there is no token of the hub; set HF_TOKEN, or run "
        "`hf auth login`\n",
    )
    assert not (tmp_path / "merged").exists()
    assert hub.asked == []


def test_a_token_that_the_hub_refuses_is_refused_before_the_export(
    searched: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_anotheranother")
    result = export(searched, tmp_path / "merged", "--push", "someone/sums")
    assert result.exit_code == 2
    assert "the hub refuses it or does not answer" in result.stderr
    assert "hf_another" not in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "merged").exists()


def test_a_hub_that_does_not_answer_is_said_before_the_export(
    searched: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    result = export(searched, tmp_path / "merged", "--push", "someone/sums")
    assert result.exit_code == 2
    assert "OfflineModeIsEnabled" in result.stderr
    assert not (tmp_path / "merged").exists()


def test_a_public_repository_is_not_written_to_without_saying_so(
    searched: Path, hub: Hub, tmp_path: Path
) -> None:
    hub.private["someone/sums"], hub.files["someone/sums"] = False, {}
    result = export(searched, tmp_path / "merged", "--push", "someone/sums")
    assert result.exit_code == 2
    assert "is there already, and public; add --public, or give another name" in result.stderr
    assert hub.files == {"someone/sums": {}}


@pytest.mark.parametrize("step", ["/api/repos/create", "/preupload/main", "/commit/main"])
def test_a_failed_upload_leaves_the_export_whole_and_says_how_to_try_again(
    searched: Path, hub: Hub, tmp_path: Path, step: str
) -> None:
    hub.refuses = step
    result = export(searched, tmp_path / "merged", "--push", "someone/sums")
    assert result.exit_code == 2
    line = result.stderr.splitlines()[-1]
    assert line.startswith(
        f"evomerge: {tmp_path}/merged: the export is whole, but was not uploaded"
    )
    assert line.endswith(f"try again with: hf upload someone/sums {tmp_path}/merged . --private")
    plain = tmp_path / "plain"
    assert export(searched, plain).exit_code == 0
    assert files_of(tmp_path / "merged") == files_of(plain)
