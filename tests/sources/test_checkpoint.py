"""Checkpoints as they are found: whole, sharded, tied, on the hub's cache, damaged, unfit."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge.sources import check_compatible, open_source
from tests.checkpoints import (
    WORDS,
    load_tensors,
    replace_tensors,
    save_tiny_llama,
    word_tokenizer,
)
from tests.sources.conftest import change_config, refused


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "sharded", seed=0, shards=4)


def test_a_structure_says_how_a_model_is_built(saved: Path) -> None:
    source = open_source(str(saved), where="test")
    structure = source.structure
    assert source.reference == str(saved)
    assert (source.folder, source.revision) == (saved.resolve(), None)
    assert source.config["hidden_size"] == 32
    assert structure.architecture == "LlamaForCausalLM"
    assert (structure.depth, structure.layer_prefix) == (4, "model.layers.")
    assert (structure.dtype, structure.tied) == ("float32", False)
    assert structure.shapes["model.embed_tokens.weight"] == (len(WORDS), 32)
    assert sorted(structure.outer) == [
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.norm.weight",
    ]
    assert structure.layer_of("model.layers.3.mlp.up_proj.weight") == 3
    assert structure.layer_of("model.norm.weight") is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shards", [1, 4])
def test_tensors_are_those_of_the_files(tmp_path: Path, dtype: torch.dtype, shards: int) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=3, dtype=dtype, shards=shards)
    source = open_source(str(folder), where="test")
    stored = load_tensors(folder)
    assert set(source.structure.shapes) == set(stored)
    assert source.structure.dtype == str(dtype).removeprefix("torch.")
    for name, tensor in stored.items():
        found = source.tensor(name)
        assert (found.dtype, tuple(found.shape)) == (dtype, source.structure.shapes[name])
        assert torch.equal(found, tensor)


def test_tensors_are_views_of_the_file_and_not_copies(saved: Path) -> None:
    source = open_source(str(saved), where="test")
    first = source.tensor("lm_head.weight")
    assert source.tensor("lm_head.weight").data_ptr() == first.data_ptr()
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert str(saved / "model.safetensors") in mapped.read_text(encoding="utf-8")


def test_frequencies_that_old_checkpoints_store_are_left_out(saved: Path) -> None:
    """Models fine-tuned with a newer transformers do not have them."""
    old = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(4)}
    before = open_source(str(saved), where="test").structure
    replace_tensors(saved, old)
    assert open_source(str(saved), where="test").structure == before


def test_a_tied_model_has_no_head_of_its_own(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "tied", seed=0, tied=True)
    structure = open_source(str(folder), where="test").structure
    assert structure.tied
    assert "lm_head.weight" not in structure.shapes


def test_tying_is_read_from_the_tensors_where_the_config_does_not_say(tmp_path: Path) -> None:
    for tied in (True, False):
        folder = save_tiny_llama(tmp_path / str(tied), seed=0, tied=tied)
        change_config(folder, tie_word_embeddings=None)
        assert open_source(str(folder), where="test").structure.tied is tied


def test_tensors_of_several_dtypes_keep_theirs(saved: Path) -> None:
    norm = torch.ones(32, dtype=torch.float64)
    positions = torch.arange(256).reshape(1, 256)
    kept = {"model.norm.weight": norm.bfloat16(), "model.position_ids": positions}
    replace_tensors(saved, kept)
    source = open_source(str(saved), where="test")
    assert source.structure.dtype == "float32"
    assert source.structure.dtypes["model.norm.weight"] == "bfloat16"
    assert source.structure.dtypes["model.position_ids"] == "int64"
    assert source.structure.dtypes["lm_head.weight"] == "float32"
    assert torch.equal(source.tensor("model.position_ids"), positions)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system cannot be asked to")
def test_reading_ahead_asks_for_the_bytes_of_the_tensor(
    sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bytes, int]] = []

    def advise(descriptor: int, start: int, size_bytes: int, advice: int) -> None:
        asked.append((os.pread(descriptor, size_bytes, start), advice))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    source = open_source(str(sharded), where="test")
    for name in source.structure.shapes:
        source.prefetch(name)
        content, advice = asked.pop()
        assert content == source.tensor(name).numpy().tobytes()
        assert advice == os.POSIX_FADV_WILLNEED


def test_hashes_cover_every_file_that_makes_the_model(sharded: Path) -> None:
    (sharded / "README.md").write_text("not part of the model", encoding="utf-8")
    (sharded / "trainer_state.json").write_text("{}", encoding="utf-8")
    (sharded / "optimizer.safetensors").write_bytes(b"not part of it either")
    digests = open_source(str(sharded), where="test").sha256()
    shards = {path.name for path in sharded.glob("model-*.safetensors")}
    assert len(shards) > 1
    assert set(digests) == shards | {
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    files = open_source(str(sharded), where="test").files
    assert files == {name: sharded / name for name in digests}
    for name, digest in digests.items():
        assert digest == hashlib.sha256((sharded / name).read_bytes()).hexdigest()


def test_a_flipped_bit_changes_a_hash_and_nothing_else(saved: Path) -> None:
    source = open_source(str(saved), where="test")
    before = source.sha256()
    with (saved / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        last = stream.read(1)[0]
        stream.seek(-1, 2)
        stream.write(bytes([last ^ 1]))
    after = source.sha256()
    assert {name for name in before if before[name] != after[name]} == {"model.safetensors"}


def test_a_missing_folder_is_refused() -> None:
    assert "no such folder; check the path" in refused("./no/such/folder")
    assert "no such folder" in refused("nowhere")


def test_a_file_is_refused_for_its_folder(saved: Path) -> None:
    assert "is a file; give the folder that holds it" in refused(saved / "model.safetensors")


def test_a_folder_without_a_config_is_refused(saved: Path) -> None:
    (saved / "config.json").unlink()
    assert "has no config.json" in refused(saved)
    (saved / "config.json").write_text("{", encoding="utf-8")
    assert "config.json cannot be read" in refused(saved)


def test_a_folder_of_folders_is_refused_with_one_of_them(saved: Path) -> None:
    assert "give a folder inside it that holds a model, as saved does" in refused(saved.parent)


def damage_empty(file: Path) -> None:
    file.write_bytes(b"")


def damage_short_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def damage_short_data(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def damage_more_data(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def damage_length(file: Path) -> None:
    file.write_bytes(struct.pack("<Q", 2**62) + file.read_bytes()[8:])


def damage_json(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:8] + b"[" + content[9:])


def damage_nothing_inside(file: Path) -> None:
    file.write_bytes(struct.pack("<Q", 2) + b"{}")


@pytest.mark.parametrize(
    "damage",
    [
        damage_empty,
        damage_short_header,
        damage_short_data,
        damage_more_data,
        damage_length,
        damage_json,
        damage_nothing_inside,
    ],
)
def test_a_damaged_file_is_named(sharded: Path, damage: Callable[[Path], None]) -> None:
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    damage(shard)
    message = refused(sharded)
    assert f"{shard.name} is empty, cut short or damaged; get it again" in message


def test_a_missing_shard_is_named(sharded: Path) -> None:
    shard = sorted(sharded.glob("model-*.safetensors"))[2]
    shard.unlink()
    assert f"{shard.name} is missing, which model.safetensors.index.json names" in refused(sharded)


def test_an_index_without_a_map_is_refused(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text("{}", encoding="utf-8")
    assert "model.safetensors.index.json has no weight_map" in refused(sharded)


def test_pickled_weights_are_refused_with_a_command_that_converts_them(
    saved: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(saved)
    pickled = tmp_path / "pickled"
    model.config.save_pretrained(pickled)
    word_tokenizer().save_pretrained(pickled)
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    message = refused(pickled)
    assert "has .bin weights" in message
    run_command(message.partition("convert them: ")[2])
    converted = open_source(f"{pickled}-safetensors", where="test")
    assert check_compatible([open_source(str(saved), where="test"), converted])
    assert torch.equal(converted.tensor("lm_head.weight"), model.lm_head.weight.detach())
    assert (converted.folder / "tokenizer.json").exists()


def run_command(command: str) -> None:
    """Run a command of a message as a user would, with this interpreter."""
    assert command.startswith("python ")
    here = f'"{sys.executable}" ' + command.removeprefix("python ")
    subprocess.run(here, shell=True, check=True, capture_output=True)


def test_other_pickles_and_empty_folders_are_refused(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    assert "has no weights" in refused(saved)
    (saved / "consolidated.00.pth").write_bytes(b"anything")
    assert "has only consolidated.00.pth, which can run code when read" in refused(saved)


def test_quantised_models_are_refused(saved: Path) -> None:
    change_config(saved, quantization_config={"bits": 4})
    assert "is quantised" in refused(saved)


def test_a_model_stored_in_a_dtype_of_no_merge_is_refused(saved: Path) -> None:
    replace_tensors(saved, {"model.codes": torch.zeros(400, 400, dtype=torch.int32)})
    assert "is stored as int32; give a model in float32, bfloat16, float16" in refused(saved)


def test_a_config_of_another_model_is_refused(saved: Path) -> None:
    change_config(saved, num_hidden_layers=7)
    assert "no 7 numbered layers among its tensors" in refused(saved)


COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_PROGRAM = """
from evomerge.errors import SourceError
from evomerge.sources import open_source
for reference in ("org/name", "org/name@main", f"org/name@{commit}"):
    source = open_source(reference, where="models.base")
    assert source.revision == commit, source.revision
    assert source.reference == reference
    assert source.structure.depth == 4
    assert set(source.sha256()) >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert float(source.tensor("model.norm.weight").float().sum()) > 0
for reference in ("org/other", "org/name@v2"):
    try:
        open_source(reference, where="models.base")
    except SourceError as error:
        expected = f"models.base: {reference}: no such folder, and the hub"
        assert str(error).startswith(expected), error
        assert "\\n" not in str(error)
    else:
        raise AssertionError(reference)
print("opened")
"""


def test_hub_ids_open_from_the_cache_without_a_network(saved: Path, tmp_path: Path) -> None:
    """In a process of its own: the hub's client reads its environment when it is imported."""
    repository = tmp_path / "hub" / "models--org--name"
    shutil.copytree(saved, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT, encoding="utf-8")

    result = subprocess.run(
        [sys.executable, "-c", f"commit = {COMMIT!r}\n{HUB_PROGRAM}"],
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == "opened", result.stderr


def test_a_folder_wins_over_a_hub_id(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(saved, tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    source = open_source("org/name", where="test")
    assert (source.folder, source.revision) == ((tmp_path / "org" / "name").resolve(), None)
