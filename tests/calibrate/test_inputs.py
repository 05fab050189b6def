"""XᵀX of linear layers, against the inputs that each layer is seen to get."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from evomerge.calibrate.inputs import LinearLayers, add_inputs, find_linear_layers
from evomerge.errors import InputError
from tests.architectures import ARCHITECTURES, save_architecture
from tests.calibrate.conftest import live, token_ids
from tests.checkpoints import replace_tensors

RTOL, ATOL = 1e-4, 1e-5
"""Sums of 60 products in float32, in another order; values are of order 1."""

SEQUENCES = token_ids(5, 12)


def grams(folder: Path, *, batch: int = 2) -> tuple[LinearLayers, dict[str, torch.Tensor]]:
    model = live(folder)
    layers = find_linear_layers(model, SEQUENCES[0])
    into = {name: torch.zeros(size, size) for name, size in layers.sizes.items()}
    add_inputs(model, layers, SEQUENCES, into, lambda count: None, batch=batch)
    return layers, into


def reference(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """XᵀX / tokens of every module with a matrix for a weight, by the module's name."""
    kind = getattr(transformers, ARCHITECTURES[name][0])
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    found: dict[str, torch.Tensor] = {}

    def hook(key: str):  # type: ignore[no-untyped-def]
        def see(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            if given and given[0].is_floating_point():
                rows = given[0].detach().double().flatten(0, -2)
                found[key] = found.get(key, 0) + rows.T @ rows / SEQUENCES.size

        return see

    for key, module in model.named_modules():
        if getattr(module, "weight", None) is not None and module.weight.dim() == 2:
            module.register_forward_pre_hook(hook(key))
    with torch.no_grad():
        for sequence in torch.from_numpy(SEQUENCES):
            model(input_ids=sequence[None])
    return found


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "phi3", "mamba"])
def test_every_linear_layer_has_the_products_of_its_own_inputs(tmp_path: Path, name: str) -> None:
    folder = save_architecture(tmp_path / name, name)
    layers, found = grams(folder)
    wanted = reference(folder, name)
    if name in ("gpt2", "mamba"):
        del wanted["lm_head"]  # it is the embeddings
    if name == "gpt_neox":
        wanted["embed_out"] = wanted.pop("lm_head")  # the checkpoint's name of it
    for key, gram in wanted.items():
        own = found[layers.shared.get(f"{key}.weight", f"{key}.weight")]
        torch.testing.assert_close(own.double(), gram, rtol=RTOL, atol=ATOL)
    others = {*layers.sizes, *layers.shared} - {f"{key}.weight" for key in wanted}
    # Mamba multiplies by this weight itself: no input is ever given to the layer.
    assert all(name == "mamba" and "dt_proj" in other for other in others)
    assert not any(found[other].any() for other in others)


def test_layers_that_read_the_same_are_stored_once(tmp_path: Path) -> None:
    layers, _ = grams(save_architecture(tmp_path / "m", "llama"))
    attention, mlp = "model.layers.1.self_attn.", "model.layers.1.mlp."
    own = {key: value for key, value in layers.shared.items() if ".1." in key}
    assert own == {
        f"{attention}k_proj.weight": f"{attention}q_proj.weight",
        f"{attention}v_proj.weight": f"{attention}q_proj.weight",
        f"{mlp}up_proj.weight": f"{mlp}gate_proj.weight",
    }


def test_layers_that_store_their_inputs_first_are_known(tmp_path: Path) -> None:
    layers, _ = grams(save_architecture(tmp_path / "m", "gpt2"))
    assert layers.transposed == {*layers.sizes, *layers.shared}
    assert "transformer.h.0.attn.c_proj.weight" in layers.sizes, "a square one"
    layers, _ = grams(save_architecture(tmp_path / "n", "llama"))
    assert layers.transposed == set()


def test_tied_heads_and_fused_experts_have_none(tmp_path: Path) -> None:
    layers, _ = grams(save_architecture(tmp_path / "tied", "qwen2"))
    assert not {"lm_head.weight", "model.embed_tokens.weight"} & layers.sizes.keys()
    layers, _ = grams(save_architecture(tmp_path / "moe", "mixtral"))
    assert not [name for name in layers.sizes if "experts" in name]
    assert "model.layers.0.self_attn.o_proj.weight" in layers.sizes


def test_batches_change_nothing_but_rounding(tmp_path: Path) -> None:
    folder = save_architecture(tmp_path / "m", "llama")
    _, ones = grams(folder, batch=1)
    _, all_at_once = grams(folder, batch=8)
    for name, gram in ones.items():
        torch.testing.assert_close(all_at_once[name], gram, rtol=RTOL, atol=ATOL)


def test_inputs_that_are_not_finite_are_refused_in_a_line(tmp_path: Path) -> None:
    folder = save_architecture(tmp_path / "m", "llama")
    replace_tensors(folder, {"model.norm.weight": torch.full((16,), torch.nan)})
    with pytest.raises(InputError, match="its layers' inputs on the text are not finite"):
        grams(folder)
