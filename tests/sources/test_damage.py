"""Files that lie about themselves, are none, or hold what no weight can be: refused in one line."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge.errors import SourceError
from evomerge.sources import open_source
from tests.checkpoints import load_tensors, replace_tensors, save_tiny_llama
from tests.sources.conftest import change_config, refused

UP = "model.layers.1.mlp.up_proj.weight"
NORM = "model.norm.weight"


def rewrite_header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of the file of weights; the data stay."""
    file = folder / "model.safetensors"
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def moved(by: int) -> Callable[[dict[str, Any]], object]:
    def change(header: dict[str, Any]) -> None:
        header[NORM]["data_offsets"] = [at + by for at in header[NORM]["data_offsets"]]

    return change


def said(field: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda header: header[UP].update({field: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (moved(-4), "overlap"),
        (lambda header: header.update(__metadata__={"epoch": 5}), "__metadata__"),
        (lambda header: header.update(__metadata__=["pt"]), "__metadata__"),
        (moved(+4), f"{NORM}"),
        (said("data_offsets", [-8, 8]), f"data_offsets of {UP} is [-8, 8], which is impossible"),
        (said("data_offsets", [8, 0]), f"data_offsets of {UP} is [8, 0], which is impossible"),
        (said("data_offsets", "all"), f"data_offsets of {UP} is all, which is impossible"),
        (said("data_offsets", [0, 2**70]), f"data_offsets of {UP} is"),
        (said("shape", "abc"), f"shape of {UP} is abc, which is impossible"),
        (said("shape", [-64, 32]), f"shape of {UP} is [-64, 32], which is impossible"),
        (said("shape", [True, 32]), f"shape of {UP} is [True, 32], which is impossible"),
        (said("shape", [2**62, 2**62]), f"shape of {UP} is"),
        (said("shape", [64, 33]), f"data_offsets of {UP} is"),
        (said("dtype", 7), f"dtype of {UP} is 7, which is impossible"),
        (said("dtype", "F4"), f"{UP}, stored as F4"),
        (said("dtype", "X9"), f"{UP} is stored as X9"),
        (lambda header: header.update({UP: 3}), f"the entry of {UP} is 3, which is impossible"),
    ],
)
def test_a_header_that_cannot_be_is_refused_by_tensor_and_field(
    saved: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rewrite_header(saved, change)
    said = refused(saved)
    assert message in said
    assert len(said) < 600


def test_a_tensor_that_a_header_names_twice_is_refused(saved: Path) -> None:
    file = saved / "model.safetensors"
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    text = content[8 : 8 + length].rstrip()
    twice = text[:-1] + b', "model.norm.weight": {"dtype": "F32"}}'
    file.write_bytes(struct.pack("<Q", len(twice)) + twice + content[8 + length :])
    assert "its header names model.norm.weight twice" in refused(saved)


def test_a_header_nested_without_end_is_refused(saved: Path) -> None:
    text = b"[" * 200_000
    (saved / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    assert "model.safetensors is empty, cut short or damaged" in refused(saved)


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


def test_values_nested_deeper_than_python_can_follow_are_refused(saved: Path) -> None:
    file = saved / "model.safetensors"
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    text = content[8 : 8 + length].decode().replace('"shape":[', f'"shape":[{deep(3000)},', 1)
    file.write_bytes(struct.pack("<Q", len(text)) + text.encode() + content[8 + length :])
    said = refused(saved)  # the reader of JSON, or what looks at its values, says so
    assert "is deeply nested, which is impossible" in said or "damaged" in said
    file.write_bytes(content)
    config = (saved / "config.json").read_text(encoding="utf-8").rstrip().removesuffix("}")
    (saved / "config.json").write_text(f'{config}, "x": {deep(100)}}}', encoding="utf-8")
    assert "config.json is nested more than 64 levels deep" in refused(saved)
    (saved / "config.json").write_text(f'{config}, "x": {deep(5000)}}}', encoding="utf-8")
    said = refused(saved)
    assert "config.json cannot be read" in said or "nested more than 64 levels" in said


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": 5},
        {"architectures": "LlamaForCausalLM"},
        {"architectures": [3]},
        {"model_type": 5},
        {"num_hidden_layers": "four"},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 1e9},
        {"num_hidden_layers": True},
        {"hidden_size": 0},
        {"vocab_size": "many"},
        {"num_attention_heads": 4.5},
        {"num_nextn_predict_layers": "one"},
        {"tie_word_embeddings": "no"},
        {"text_config": {"hidden_size": "wide"}},
    ],
)
def test_settings_of_another_kind_are_refused_by_name(
    saved: Path, changes: Mapping[str, Any]
) -> None:
    change_config(saved, **changes)
    [(key, value)] = changes.items()
    while isinstance(value, dict):
        [(key, value)] = value.items()
    assert f"{key} in config.json is " in refused(saved)


def test_a_depth_of_millions_is_refused_before_a_model_is_built(saved: Path) -> None:
    change_config(saved, num_hidden_layers=10**9)
    assert "no 1000000000 numbered layers" in refused(saved)


def test_a_config_without_architectures_is_told_by_its_type(saved: Path) -> None:
    change_config(saved, architectures=[])
    assert open_source(str(saved), where="test").structure.architecture == "llama"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "a.model"])
@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a socket or device"])
def test_what_is_no_file_is_refused_and_not_waited_for(saved: Path, name: str, kind: str) -> None:
    path = saved / name
    path.unlink(missing_ok=True)
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    if kind == "a socket or device" and not name.endswith(".safetensors"):
        assert f"{name} is a link to /dev/zero, outside the model's folder" in refused(saved)
    else:
        assert f"{name} is {kind} and not a file" in refused(saved)


def test_a_socket_and_a_link_to_nothing_are_refused(saved: Path) -> None:
    (saved / "tokenizer.json").unlink()
    (saved / "tokenizer.json").symlink_to(saved / "nowhere")
    assert "tokenizer.json cannot be followed to a file" in refused(saved)
    (saved / "tokenizer.json").unlink()
    here = Path.cwd()
    os.chdir(saved)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("tokenizer.json")
    finally:
        os.chdir(here)
    assert "tokenizer.json is a socket or device and not a file" in refused(saved)


def test_links_of_the_hubs_cache_are_files(saved: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--org--name"
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    shutil.copytree(saved, cache / "blobs")
    for file in saved.iterdir():
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", file.name))
    assert open_source(str(snapshot), where="test").structure.depth == 4


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "sharded", seed=0, shards=4)


INDEX = "model.safetensors.index.json"


def shards_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def test_shards_without_their_index_are_said_to_lack_it(sharded: Path) -> None:
    count = len(shards_of(sharded))
    (sharded / INDEX).unlink()
    assert f"has {count} shards, but {INDEX} is missing" in refused(sharded)
    gone = shards_of(sharded)[1]
    gone.unlink()
    expected = f"has {count - 1} of {count} shards, {gone.name} and {INDEX} are missing"
    assert expected in refused(sharded)


def test_shards_of_two_models_without_an_index_are_told_apart(sharded: Path) -> None:
    count = len(shards_of(sharded))
    (sharded / INDEX).unlink()
    shutil.copy(shards_of(sharded)[0], sharded / "model-00001-of-00009.safetensors")
    assert f"has shards of {count} and of 9" in refused(sharded)


def test_weights_of_another_name_are_said_to_want_theirs(saved: Path) -> None:
    (saved / "model.safetensors").rename(saved / "weights.safetensors")
    assert "has weights.safetensors, and transformers reads model.safetensors" in refused(saved)


def change_index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def test_an_index_that_leaves_a_shard_out_is_refused(sharded: Path) -> None:
    second = shards_of(sharded)[1].name

    def leave_out(weight_map: dict[str, str]) -> None:
        for name in [name for name, shard in weight_map.items() if shard == second]:
            del weight_map[name]

    change_index(sharded, leave_out)
    assert f"{INDEX} names other shards and not {second}" in refused(sharded)


def test_an_index_that_names_a_tensor_elsewhere_is_refused(sharded: Path) -> None:
    last = shards_of(sharded)[-1].name
    change_index(sharded, lambda weight_map: weight_map.update({"model.more": last}))
    assert f"says that model.more is in {last}, which does not hold it" in refused(sharded)


def test_a_tensor_in_two_shards_is_refused(sharded: Path) -> None:
    first, second = shards_of(sharded)[:2]
    shutil.copy(first, second)
    assert f"is in {first.name} and in {second.name}" in refused(sharded)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_not_finite_are_named_where_they_are_hashed(
    tmp_path: Path, dtype: torch.dtype, value: float
) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0, dtype=dtype, shards=3)
    clean = open_source(str(folder), where="test").sha256()
    assert clean == open_source(str(folder), where="test").sha256()
    folder = save_tiny_llama(tmp_path / "n", seed=0, dtype=dtype)
    changed = load_tensors(folder)[UP]
    changed[-1, -1] = value
    replace_tensors(folder, {UP: changed})
    source = open_source(str(folder), where="test")
    kind = "NaN" if value != value else "infinity"
    expected = rf"{folder}: {UP} in model\.safetensors holds {kind}"
    for _ in range(2):  # what is known of a file is said again
        with pytest.raises(SourceError, match=expected):
            source.sha256()


def test_masks_that_transformers_computes_may_be_infinite(saved: Path) -> None:
    replace_tensors(saved, {"model.layers.0.self_attn.masked_bias": torch.tensor(float("-inf"))})
    assert open_source(str(saved), where="test").sha256()


SETTINGS_OF_OLD = [
    "quantize_config.json",
    "quant_config.json",
    "hf_quant_config.json",
    "quanto_qmap.json",
]


@pytest.mark.parametrize("name", SETTINGS_OF_OLD)
def test_a_file_beside_the_weights_shows_that_they_are_quantised(saved: Path, name: str) -> None:
    (saved / name).write_text('{"bits": 4}', encoding="utf-8")
    assert f"is quantised ({name})" in refused(saved)


PACKED: Mapping[str, Mapping[str, torch.Tensor | None]] = {
    "gptq": {
        UP: None,
        UP.replace("weight", "qweight"): torch.zeros(4, 64, dtype=torch.int32),
        UP.replace("weight", "qzeros"): torch.zeros(1, 8, dtype=torch.int32),
        UP.replace("weight", "scales"): torch.ones(1, 64, dtype=torch.float16),
    },
    "fp8": {UP: torch.zeros(64, 32, dtype=torch.float8_e4m3fn)},
    "signs": {UP: torch.zeros(64, 32, dtype=torch.bool)},
    "fp8 scales": {f"{UP}_scale_inv": torch.ones(1, 1)},
    "int8": {
        UP: torch.zeros(64, 32, dtype=torch.int8),
        UP.replace("weight", "SCB"): torch.ones(64),
    },
    "nf4": {UP: torch.zeros(1024, 1, dtype=torch.uint8), f"{UP}.absmax": torch.ones(32)},
    "compressed": {UP.replace("weight", "weight_packed"): torch.zeros(64, 4, dtype=torch.int32)},
    "mxfp4": {"model.layers.1.mlp.experts.up_blocks": torch.zeros(2, 8, 1, 16, dtype=torch.uint8)},
}


@pytest.mark.parametrize("kind", PACKED)
def test_a_minority_of_packed_weights_is_refused_by_name(saved: Path, kind: str) -> None:
    replace_tensors(saved, dict(PACKED[kind]))
    assert "is quantised (model.layers.1.mlp." in refused(saved)


def test_whole_numbers_that_are_no_weights_are_fine(saved: Path) -> None:
    counted = {
        "model.norm.num_batches_tracked": torch.tensor(3),
        "model.position_ids": torch.arange(16)[None],
        "model.layers.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8),
        "model.relative_position_index": torch.zeros(4, 4, dtype=torch.int64),
    }
    replace_tensors(saved, counted)
    assert open_source(str(saved), where="test").structure.dtypes["model.position_ids"] == "int64"
