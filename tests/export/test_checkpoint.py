"""The checkpoint on disk: transformers, mergekit and the engine all see the same model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.errors import SourceError
from evomerge.export.checkpoint import write_checkpoint
from evomerge.export.shards import shard_names
from evomerge.merge.engine import MergeEngine
from tests.checkpoints import load_tensors
from tests.export.conftest import Family, contents, make_family

# Of the largest value of a tensor: both sides round each product and sum to float32, in different
# orders.
TOLERANCE = 1e-6
SMALL_SHARD_BYTES = 30_000


def test_the_files_hold_the_engine_s_tensors_to_the_bit(family: Family, tmp_path: Path) -> None:
    recipe = family.recipe()
    family.export(tmp_path / "out")
    merged = dict(MergeEngine(family.open(recipe)).execute(recipe))
    stored = load_tensors(tmp_path / "out")
    assert sorted(stored) == sorted(merged)
    assert all(torch.equal(stored[name], tensor) for name, tensor in merged.items())


@pytest.mark.parametrize("shard_bytes", [10**9, SMALL_SHARD_BYTES, 1])
def test_plain_transformers_loads_every_tensor(
    family: Family, tmp_path: Path, shard_bytes: int
) -> None:
    out = tmp_path / "out"
    family.export(out, shard_bytes=shard_bytes)
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    stored = load_tensors(out)
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in stored.items())
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer("two plus two").input_ids == [
        tokenizer.convert_tokens_to_ids(word) for word in ("two", "plus", "two")
    ]


def test_shards_and_index_are_as_transformers_writes_them(family: Family, tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    weights = family.export(out, shard_bytes=SMALL_SHARD_BYTES)
    model = AutoModelForCausalLM.from_pretrained(out)
    model.save_pretrained(again, max_shard_size=SMALL_SHARD_BYTES)
    ours, theirs = (
        json.loads((folder / "model.safetensors.index.json").read_text()) for folder in (out, again)
    )
    assert ours["metadata"] == theirs["metadata"]
    assert sorted(ours["weight_map"]) == sorted(theirs["weight_map"])
    count = len(weights.files)
    assert count > 2
    assert weights.files == tuple(
        f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)
    )
    for name in weights.files:
        with safe_open(out / name, framework="pt") as shard:
            assert shard.metadata() == {"format": "pt"}
            held = shard.keys()
            assert {ours["weight_map"][tensor] for tensor in held} == {name}
        # 4 kB on top of the tensors is more than the header of so few.
        assert (out / name).stat().st_size <= SMALL_SHARD_BYTES + 4096


def test_a_shard_is_closed_before_it_would_pass_the_limit() -> None:
    sizes = {"a": 4, "b": 6, "c": 1, "d": 25, "e": 9}
    names = shard_names(sizes, 10)
    assert [names[name][6:11] for name in sizes] == ["00001", "00001", "00002", "00003", "00004"]
    assert set(shard_names(sizes, 45).values()) == {"model.safetensors"}


@pytest.mark.parametrize("shard_bytes", [10**9, SMALL_SHARD_BYTES])
def test_bytes_do_not_depend_on_the_number_of_threads(
    family: Family, tmp_path: Path, shard_bytes: int
) -> None:
    folders = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        folders.append(tmp_path / str(threads))
        family.export(folders[-1], shard_bytes=shard_bytes)
    assert contents(folders[0]) == contents(folders[1])


def test_mergekit_executes_the_recipe_to_equal_tensors(family: Family, tmp_path: Path) -> None:
    family.export(tmp_path / "out")
    text = (tmp_path / "out" / "recipe.yaml").read_text(encoding="utf-8")
    run_merge(
        MergeConfiguration.model_validate(yaml.safe_load(text)),
        str(tmp_path / "published"),
        MergeOptions(quiet=True),
    )
    ours, theirs = load_tensors(tmp_path / "out"), load_tensors(tmp_path / "published")
    assert sorted(ours) == sorted(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert float((ours[name] - tensor).abs().max() / tensor.abs().max()) <= TOLERANCE


def test_the_config_says_the_new_dtype(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    path = family.base / "config.json"
    config = json.loads(path.read_text())
    old = {**config, "torch_dtype": "float32", "_name_or_path": str(family.base)}
    path.write_text(json.dumps({**old, "auto_map": {"AutoModel": "modeling_odd.Odd"}}))
    family.export(tmp_path / "out", out_dtype="bfloat16")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == {**config, "dtype": "bfloat16", "torch_dtype": "bfloat16"}
    assert {tensor.dtype for tensor in load_tensors(tmp_path / "out").values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_every_tokenizer_file_is_copied_and_code_is_not(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    extra = {
        "chat_template.jinja": "{{ messages }}",
        "additional_chat_templates/tools.jinja": "{{ tools }}",
        "added_tokens.json": "{}",
        "special_tokens_map.json": "{}",
        "vocab.json": "{}",
        "merges.txt": "#version: 0.2",
        "spiece.model": "pieces",
        "modeling_odd.py": "raise SystemExit",
        "pytorch_model.bin": "pickle",
        "optimizer.pt": "pickle",
    }
    for name, text in extra.items():
        (family.base / name).parent.mkdir(exist_ok=True)
        (family.base / name).write_text(text)
    family.export(tmp_path / "out")
    left_behind = {"modeling_odd.py", "pytorch_model.bin", "optimizer.pt"}
    written = contents(tmp_path / "out")
    for name, text in extra.items():
        assert (name in written) == (name not in left_behind)
        if name in written:
            assert written[name].decode() == text
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert written[name] == (family.base / name).read_bytes()


def test_code_is_copied_for_a_job_that_trusts_it(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    (family.base / "modeling_odd.py").write_text("ODD = True\n")
    path = family.base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoModel": "x.X"}}))
    recipe = family.recipe()
    sources = family.open(recipe)
    out = tmp_path / "out"
    out.mkdir()
    write_checkpoint(recipe, sources, sources[str(family.base)], out, trust_remote_code=True)
    assert (out / "modeling_odd.py").read_text() == "ODD = True\n"
    assert json.loads((out / "config.json").read_text())["auto_map"] == {"AutoModel": "x.X"}


def test_a_source_whose_index_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    family = make_family(tmp_path / "models")
    shutil.move(family.base / "model.safetensors", tmp_path / "models" / "elsewhere.safetensors")
    tensors = load_tensors(tmp_path / "models")
    weight_map = dict.fromkeys(tensors, "../elsewhere.safetensors")
    (family.base / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    before = contents(tmp_path)
    with pytest.raises(SourceError, match="outside its folder"):
        family.export(tmp_path / "out")
    assert contents(tmp_path) == before
