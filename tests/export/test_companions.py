"""What lies beside the weights of a merge: all that transformers and others need to load it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge.errors import SourceError
from evomerge.export import merge_recipe
from evomerge.export.manifest import changed_files
from evomerge.export.shards import Weights
from evomerge.recipe import read_recipe
from evomerge.sources import companions
from tests.checkpoints import WORDS, save_fine_tuned, save_tiny_llama
from tests.vocabulary.models import save_adapter, word_tokenizer
from tests.vocabulary.models import save_model as save_with_tokenizer

BESIDE = {
    "1_Pooling/config.json": '{"pooling_mode_mean_tokens": true}',
    "2_Dense/config.json": "{}",
    "LICENSE": "terms",
    "modules.json": json.dumps(
        [{"path": path, "type": "sentence_transformers.models.X"} for path in ("", "2_Dense")]
    ),
    "preprocessor_config.json": '{"image_processor_type": "CLIPImageProcessor"}',
    "processor_config.json": "{}",
    "sentence_bert_config.json": "{}",
}
CODE = {
    "configuration_mine.py": """
from transformers import LlamaConfig


class MineConfig(LlamaConfig):
    model_type = "mine"
""",
    "modeling_mine.py": """
from transformers import LlamaForCausalLM

from .configuration_mine import MineConfig


class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig
""",
    "layers/blocks.py": "BLOCKS = 1\n",
}
AUTO_MAP = {
    "AutoConfig": "configuration_mine.MineConfig",
    "AutoModelForCausalLM": "modeling_mine.MineForCausalLM",
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def change_config(folder: Path, name: str = "config.json", **changes: Any) -> None:
    said = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**said, **changes}))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    base = save_tiny_llama(tmp_path / "base", seed=0, layers=1)
    return base, save_fine_tuned(tmp_path / "expert", of=base, seed=1)


def merge(out: Path, *models: Path | str, **changes: Any) -> Weights:
    document = {
        "merge_method": "linear",
        "models": [{"model": str(each), "parameters": {"weight": 0.5}} for each in models],
        **changes,
    }
    return merge_recipe(read_recipe(json.dumps(document), where="test"), out)


def test_processors_pooling_and_terms_come_along_and_are_listed(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    write(pair[0], BESIDE)
    save_file({"linear.weight": torch.ones(2)}, pair[0] / "2_Dense" / "model.safetensors")
    write(pair[1], {"preprocessor_config.json": "{}", "only_there.json": "{}", "merges.txt": ""})
    weights = merge(tmp_path / "out", *pair)
    for name, text in BESIDE.items():
        assert (tmp_path / "out" / name).read_text() == text
    assert not (tmp_path / "out" / "only_there.json").exists()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert set(BESIDE) <= set(manifest["files"])
    assert set(BESIDE) <= set(manifest["sources"][0]["files"])
    assert changed_files(tmp_path / "out") == ()
    dense, other = weights.notes
    assert load_file(tmp_path / "out" / "2_Dense" / "model.safetensors")["linear.weight"].all()
    assert dense.startswith("2_Dense/model.safetensors is copied from")
    assert other.startswith(f"left out: only_there.json of {pair[1]};")


def test_what_is_left_out_and_might_be_missed_is_said(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pair[0], {"corpus.txt": "x" * 50_000})
    monkeypatch.setattr(companions, "LARGEST_BYTES", 40_000)
    (note,) = merge(tmp_path / "out", *pair).notes
    assert note.startswith("left out: corpus.txt")
    assert not (tmp_path / "out" / "corpus.txt").exists()


def test_a_tokenizer_of_the_union_keeps_the_processor_of_the_lead(tmp_path: Path) -> None:
    base = save_with_tokenizer(tmp_path / "base", word_tokenizer(WORDS[:9], eos="</s>"), seed=0)
    more = word_tokenizer([*WORDS[:9], "<more>"], eos="</s>")
    expert = save_with_tokenizer(tmp_path / "expert", more, seed=1)
    write(base, BESIDE)
    merge(tmp_path / "out", base, expert, tokenizer={"source": "union"})
    assert set(BESIDE) <= {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")
    }


def test_an_adapter_that_leads_brings_what_lies_beside_its_base(tmp_path: Path) -> None:
    base = save_with_tokenizer(tmp_path / "base", word_tokenizer(WORDS[:9], eos="</s>"), seed=0)
    write(base, BESIDE)
    adapter = save_adapter(tmp_path / "adapter", base)
    merge(tmp_path / "out", f"{base}+{adapter}", base)
    assert (tmp_path / "out" / "processor_config.json").exists()
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_a_model_with_code_of_its_own_loads_where_the_code_is_trusted(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    for folder in pair:
        change_config(
            folder, model_type="mine", architectures=["MineForCausalLM"], auto_map=AUTO_MAP
        )
    write(pair[0], CODE)
    merge(tmp_path / "out", *pair)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert type(loaded).__name__ == "MineForCausalLM"
    assert (tmp_path / "out" / "layers" / "blocks.py").exists()
    assert "trust_remote_code=True" in (tmp_path / "out" / "README.md").read_text()


def test_a_model_without_the_code_that_it_needs_is_refused(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    change_config(pair[0], model_type="mine", auto_map=AUTO_MAP)
    with pytest.raises(SourceError, match=r"configuration_mine\.py is missing"):
        merge(tmp_path / "out", *pair)
    assert not (tmp_path / "out").exists()


def test_code_that_transformers_can_do_without_stays_behind(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    change_config(pair[0], auto_map=AUTO_MAP)
    write(pair[0], CODE)
    merge(tmp_path / "out", *pair)
    assert not list((tmp_path / "out").rglob("*.py"))
    assert "auto_map" not in json.loads((tmp_path / "out" / "config.json").read_text())


@pytest.mark.parametrize("config", ["tokenizer_config.json", "preprocessor_config.json"])
def test_the_code_of_a_tokenizer_or_processor_comes_along(
    pair: tuple[Path, Path], tmp_path: Path, config: str
) -> None:
    write(pair[0], {"preprocessor_config.json": "{}", "reading_mine.py": "MINE = 1\n"})
    change_config(pair[0], config, auto_map={"AutoTokenizer": ["reading_mine.Mine", None]})
    merge(tmp_path / "out", *pair)
    assert (tmp_path / "out" / "reading_mine.py").read_text() == "MINE = 1\n"


def test_the_code_of_a_tokenizer_of_another_model_comes_along(tmp_path: Path) -> None:
    base, expert = (
        save_with_tokenizer(tmp_path / name, word_tokenizer(WORDS[:9], eos="</s>"), seed=seed)
        for seed, name in enumerate(("base", "expert"))
    )
    write(expert, {"reading_mine.py": "MINE = 1\n"})
    change_config(
        expert, "tokenizer_config.json", auto_map={"AutoTokenizer": ["reading_mine.Mine", None]}
    )
    merge(tmp_path / "out", base, expert, tokenizer={"source": str(expert)})
    assert (tmp_path / "out" / "reading_mine.py").read_text() == "MINE = 1\n"
    assert "reading_mine" in (tmp_path / "out" / "tokenizer_config.json").read_text()
