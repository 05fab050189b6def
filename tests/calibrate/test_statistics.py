"""Reading stored statistics: what is found, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from evomerge.errors import RecipeError
from evomerge.merge.statistics import Header, Statistics, model_name, read_header, weights_sha256
from evomerge.sources import Source, open_source
from tests.checkpoints import replace_tensors, save_tiny_llama

QUERIES, KEYS = "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight"
OUTPUT = "model.layers.0.self_attn.o_proj.weight"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "model", seed=0, layers=1)


def opened(folder: Path) -> Source:
    return open_source(str(folder), where="test")


def header_of(source: Source, kind: str) -> Header:
    return Header(
        kind="fisher" if kind == "fisher" else "inputs",
        model=model_name(source),
        weights_sha256=weights_sha256(source),
        text_sha256="t" * 64,
        settings="1 x 2 tokens",
        shared={KEYS: QUERIES} if kind == "inputs" else {},
        transposed=frozenset({OUTPUT}) if kind == "inputs" else frozenset(),
    )


def write(folder: Path, source: Source, kind: str, **tensors: torch.Tensor) -> Path:
    folder.mkdir(exist_ok=True)
    header = header_of(source, kind)
    path = folder / header.file_name
    save_file(tensors, path, metadata=header.to_metadata())
    return path


@pytest.fixture
def statistics(model: Path, tmp_path: Path) -> Statistics:
    folder, source = tmp_path / "statistics", opened(model)
    fisher = {QUERIES: torch.arange(4.0), f"{QUERIES}#mean": torch.tensor(1.5)}
    write(folder, source, "fisher", **fisher, **{"#norm": torch.tensor(9.0)})
    write(folder, source, "inputs", **{QUERIES: torch.eye(2), OUTPUT: torch.eye(3)})
    return Statistics.open(folder, {str(model): source})


def test_each_kind_is_found_by_the_tensors_name(statistics: Statistics, model: Path) -> None:
    def get(kind: str, name: str) -> torch.Tensor:
        found = statistics.get(str(model), kind, name)
        assert found is not None
        return found

    assert get("fisher", QUERIES).tolist() == [0, 1, 2, 3]
    assert get("fisher_mean", QUERIES) == 1.5
    assert get("fisher_norm", KEYS) == 9, "of the whole model, for any tensor"
    assert torch.equal(get("inputs", QUERIES), torch.eye(2))
    assert torch.equal(get("inputs", KEYS), torch.eye(2)), "stored under the layer it shares with"
    assert [int(get("input_axis", name)) for name in (QUERIES, KEYS, OUTPUT)] == [1, 1, 0]


def test_a_tensor_without_a_statistic_has_none(statistics: Statistics, model: Path) -> None:
    for kind in ("fisher", "fisher_mean", "inputs", "input_axis"):
        assert statistics.get(str(model), kind, "model.norm.weight") is None


def test_a_model_is_known_by_its_weights_wherever_it_lies(
    statistics: Statistics, model: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(model, moved)
    (moved / "generation_config.json").write_text("{}")
    found = Statistics.open(tmp_path / "statistics", {"copy": opened(moved)})
    assert found.get("copy", "fisher", QUERIES) is not None


def refused(folder: Path, source: Source, kind: str) -> str:
    with pytest.raises(RecipeError) as caught:
        Statistics.open(folder, {source.reference: source}).get(source.reference, kind, QUERIES)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"evomerge.statistics: {folder}: ")
    return message


def test_weights_that_changed_are_refused_with_the_command_to_run(
    statistics: Statistics, model: Path, tmp_path: Path
) -> None:
    replace_tensors(model, {"model.norm.weight": torch.full((32,), 2.0)})
    folder = tmp_path / "statistics"
    assert refused(folder, opened(model), "fisher_mean") == (
        f"evomerge.statistics: {folder}: fisher: the weights of {model} changed after its "
        f"calibration; run: evomerge calibrate {model} --text FILE --out {folder} --fisher"
    )


def test_a_model_that_was_not_calibrated_is_refused_with_the_command_to_run(
    statistics: Statistics, tmp_path: Path
) -> None:
    other = save_tiny_llama(tmp_path / "other model", seed=1, layers=1)
    folder = tmp_path / "statistics"
    assert refused(folder, opened(other), "inputs") == (
        f"evomerge.statistics: {folder}: inputs: no statistics of {other}; run: evomerge calibrate "
        f"'{other}' --text FILE --out {folder} --inputs"
    )


def test_a_folder_without_statistics_is_refused(model: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "missing", model):  # a model's own weights are none
        assert "holds no statistics; run: evomerge calibrate" in refused(
            folder, opened(model), "fisher"
        )


def test_other_and_damaged_files_are_passed_over(statistics: Statistics, tmp_path: Path) -> None:
    damaged = tmp_path / "statistics" / "damaged.safetensors"
    damaged.write_bytes(b"\x00" * 5)
    assert read_header(damaged) is None
    whole = header_of(opened(tmp_path / "model"), "inputs").to_metadata()
    for changes in ({"shared": "[" * 100_000}, {"transposed": "7"}, {"model": None}):
        metadata = {name: text for name, text in {**whole, **changes}.items() if text is not None}
        save_file({QUERIES: torch.eye(2)}, damaged, metadata=metadata)
        assert read_header(damaged) is None
    source = opened(tmp_path / "model")
    again = Statistics.open(tmp_path / "statistics", {"m": source})
    assert again.get("m", "fisher", QUERIES) is not None


def test_a_header_reads_back_as_it_was(model: Path, tmp_path: Path) -> None:
    header = header_of(opened(model), "inputs")
    path = write(tmp_path / "s", opened(model), "inputs", **{QUERIES: torch.eye(2)})
    assert read_header(path) == header
    assert path.name == f"model-{header.weights_sha256[:12]}.inputs.safetensors"
