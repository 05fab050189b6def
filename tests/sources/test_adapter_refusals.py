"""Adapters that cannot be merged, each refused in one line by name."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from peft import IA3Config, get_peft_model
from safetensors.torch import load_file, save_file

from evomerge.sources import Adapter, open_source
from tests.sources.adapters import LLAMA, Trained, adapt, train, weights_of
from tests.sources.conftest import change_json, refused

pytestmark = pytest.mark.filterwarnings("ignore:.*save_embedding_layers.*", "ignore::UserWarning")


def _change(folder: Path, **changes: object) -> None:
    change_json(folder / "adapter_config.json", **changes)


def _rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(weights_of(folder))
    change(tensors)
    save_file(tensors, weights_of(folder))


Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"

REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "another kind": (
        lambda f: _change(f, peft_type="IA3"),
        "is a PEFT adapter of type IA3; only LORA is supported",
    ),
    "no rank": (lambda f: _change(f, r=None), "r, lora_alpha or a pattern of adapter_config.json"),
    "an endless rank": (lambda f: _change(f, r=math.inf), "r, lora_alpha or a pattern"),
    "a rank of zero": (lambda f: _change(f, rank_pattern={"q_proj": 0}), "r, lora_alpha or a"),
    "an alpha that is no number": (lambda f: _change(f, lora_alpha=math.nan), "r, lora_alpha or"),
    "an alpha beyond float32": (lambda f: _change(f, lora_alpha=1e300), "r, lora_alpha or a"),
    "a base that is no name": (
        lambda f: _change(f, base_model_name_or_path=["base"]),
        "names no base_model_name_or_path",
    ),
    "a broken pattern": (lambda f: _change(f, rank_pattern={"(": 2}), "r, lora_alpha or a pattern"),
    "another rank": (
        lambda f: _change(f, r=5),
        "model.layers.0.mlp.down_proj has rank 8, and adapter_config.json has 5",
    ),
    "parameters that are no modules": (
        lambda f: _change(f, target_parameters=["experts.w"]),
        "target_parameters in adapter_config.json is not supported",
    ),
    "a base changed at the start": (
        lambda f: _change(f, init_lora_weights="pissa_niter_4"),
        "init_lora_weights: pissa_niter_4 changed the base's own weights; save the adapter again",
    ),
    "no base": (
        lambda f: _change(f, base_model_name_or_path=None),
        "names no base_model_name_or_path; write MODEL+ADAPTER",
    ),
    "a base elsewhere": (
        lambda f: _change(f, base_model_name_or_path="../base"),
        "is an adapter whose base cannot be opened: base_model_name_or_path: ../base: no such "
        "folder",
    ),
    "no weights": (lambda f: weights_of(f).unlink(), "has no adapter_model.safetensors"),
    "damaged weights": (
        lambda f: weights_of(f).write_bytes(weights_of(f).read_bytes()[:-1]),
        "adapter_model.safetensors is empty, cut short or damaged",
    ),
    "a matrix without its other": (
        lambda f: _rewrite(f, lambda t: t.pop(f"{Q_PROJ}.lora_A.weight")),
        "model.layers.0.self_attn.q_proj.weight: one of its two matrices is missing",
    ),
    "a part never heard of": (
        lambda f: _rewrite(f, lambda t: t.update({f"{Q_PROJ}.lora_C.weight": torch.ones(2, 2)})),
        f"{Q_PROJ}.lora_C.weight is not a known part of a LoRA adapter",
    ),
    "not PEFT's": (
        lambda f: _rewrite(f, lambda t: t.update({"lora_unet_x.alpha": torch.ones(1)})),
        "lora_unet_x.alpha is not a known part of a LoRA adapter",
    ),
    "a convolution": (
        lambda f: _rewrite(
            f, lambda t: t.update({f"{Q_PROJ}.lora_A.weight": torch.ones(8, 16, 1, 1)})
        ),
        "q_proj.weight: LoRA of convolutions is not supported",
    ),
    "a module of another model": (
        lambda f: _rewrite(
            f, lambda t: t.update({"base_model.model.score.weight": torch.ones(2, 16)})
        ),
        "it changes score.weight, which the base does not have",
    ),
    "a whole module of another shape": (
        lambda f: _rewrite(
            f, lambda t: t.update({"base_model.model.model.norm.weight": torch.ones(17)})
        ),
        "it holds model.norm.weight of shape [17], and the base's is [16]",
    ),
    "a base of another width": (
        lambda f: _rewrite(f, lambda t: t.update({f"{Q_PROJ}.lora_A.weight": torch.ones(8, 18)})),
        "it changes model.layers.0.self_attn.q_proj.weight of shape [16, 18], and the base's is "
        "[16, 16]",
    ),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("plain"), LLAMA)


@pytest.mark.parametrize("case", REFUSED)
def test_an_adapter_that_cannot_be_merged_is_refused_by_name(
    plain: Trained, tmp_path: Path, case: str
) -> None:
    damage, message = REFUSED[case]
    folder = tmp_path / "adapter"
    shutil.copytree(plain.adapter, folder)
    damage(folder)
    assert message in refused(folder)


def test_magnitudes_of_embeddings_are_refused(plain: Trained, tmp_path: Path) -> None:
    settings = {"target_modules": ["embed_tokens"], "use_dora": True}
    adapted = adapt(plain.base, tmp_path / "adapter", settings)
    assert "DoRA of embeddings is not supported" in refused(adapted.adapter)


def test_other_kinds_of_adapters_are_refused_as_peft_saves_them(
    plain: Trained, tmp_path: Path
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(plain.base)
    config = IA3Config(target_modules=["k_proj"], feedforward_modules=[])
    get_peft_model(model, config).save_pretrained(tmp_path / "ia3")
    assert "is a PEFT adapter of type IA3" in refused(tmp_path / "ia3")


def test_an_adapter_over_an_adapter_is_refused(plain: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(plain.adapter, folder)
    _change(folder, base_model_name_or_path=str(plain.adapter))
    assert f"is an adapter over the adapter {plain.adapter}" in refused(folder)
    assert "is an adapter over the adapter" in refused(plain.adapter, base=plain.open())


def test_a_pickled_adapter_is_refused_with_a_command_that_converts_it(
    plain: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(plain.adapter, folder)
    torch.save(load_file(weights_of(folder)), folder / "adapter_model.bin")
    weights_of(folder).unlink()
    message = refused(folder)
    assert "has adapter_model.bin, which can run code when read" in message
    command = message.partition("convert it: ")[2]
    assert command.startswith("python ")
    here = f'"{sys.executable}" ' + command.removeprefix("python ")
    subprocess.run(here, shell=True, check=True, capture_output=True)
    converted = open_source(str(folder), where="test")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(converted.tensor(name), plain.open().tensor(name))


def test_a_checkpoint_beside_an_adapters_configuration_is_a_checkpoint(
    plain: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "both"
    shutil.copytree(plain.base, folder)
    shutil.copy(plain.adapter / "adapter_config.json", folder)
    assert not isinstance(open_source(str(folder), where="test"), Adapter)


def test_a_revision_of_the_base_is_asked_for(plain: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(plain.adapter, folder)
    _change(folder, base_model_name_or_path="nowhere at all", revision="v2")
    assert "base_model_name_or_path: nowhere at all@v2: no such folder" in refused(folder)
