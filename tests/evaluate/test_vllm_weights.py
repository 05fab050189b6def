"""What vLLM is given of a checkpoint's stream; vLLM itself is not needed to test it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from evomerge.errors import SourceError
from evomerge.evaluate.engines.vllm.weights import CheckedStream, blank_layers, refuse_several_runs
from evomerge.evaluate.engines.weight_loader import WeightLoader
from evomerge.sources import open_source
from tests.architectures import save_architecture
from tests.checkpoints import load_tensors, save_tiny_llama

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
GAIN = "model.layers.1.input_layernorm.weight"


def loader_into(folder: Path) -> WeightLoader:
    with torch.device("meta"):
        return WeightLoader(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)))


def test_a_stream_that_fits_passes_as_it_is(base: Path) -> None:
    tensors = load_tensors(base)
    stream = CheckedStream(tensors.items(), loader_into(base), heads={})
    passed = dict(stream)
    stream.check()
    assert passed.keys() == tensors.keys()
    assert all(passed[name] is tensor for name, tensor in tensors.items())


def test_tensors_that_transformers_rearranges_are_given_as_they_are(tmp_path: Path) -> None:
    folder = save_architecture(tmp_path, "olmo_hybrid")
    tensors = load_tensors(folder)
    loader = loader_into(folder)
    assert any(loader.rearranged(name) for name in tensors)
    stream = CheckedStream(tensors.items(), loader, heads={})
    assert dict(stream).keys() == tensors.keys()
    stream.check()
    part = next(name for name in tensors if loader.rearranged(name))
    short = CheckedStream(((k, v) for k, v in tensors.items() if k != part), loader, heads={})
    dict(short)
    with pytest.raises(SourceError, match=r"which does not fit the live model"):
        short.check()


@pytest.mark.parametrize("stored", [EMBEDDINGS, HEAD])
def test_a_tied_head_is_given_beside_the_embeddings_by_whichever_name_it_is_stored(
    stored: str, tmp_path: Path
) -> None:
    folder = save_tiny_llama(tmp_path / "tied", seed=0, tied=True)
    tensors = load_tensors(folder)
    shared = tensors.pop(EMBEDDINGS)
    stream = CheckedStream(
        {**tensors, stored: shared}.items(), loader_into(folder), heads={EMBEDDINGS: HEAD}
    )
    passed = dict(stream)
    stream.check()
    assert passed[EMBEDDINGS] is passed[HEAD] is shared


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (GAIN, None, "no tensor was given"),
        (GAIN, torch.ones(7), r"shape \[7\] does not fit"),
        ("model.layers.9.up.weight", torch.ones(4), "the live model has no such tensor"),
    ],
)
def test_a_stream_that_does_not_fit_ends_and_is_refused_by_name(
    name: str, tensor: torch.Tensor | None, message: str, base: Path
) -> None:
    tensors: dict[str, torch.Tensor | None] = {**load_tensors(base), name: tensor}
    stream = CheckedStream(
        [(name, given) for name, given in tensors.items() if given is not None],
        loader_into(base),
        heads={},
    )
    passed = dict(stream)
    with pytest.raises(SourceError, match=f"{name}: {message}"):
        stream.check()
    assert name not in passed


def test_what_breaks_a_merge_is_raised_once_the_stream_has_ended(base: Path) -> None:
    def breaking() -> Iterator[tuple[str, torch.Tensor]]:
        yield EMBEDDINGS, load_tensors(base)[EMBEDDINGS]
        raise ZeroDivisionError

    stream = CheckedStream(breaking(), loader_into(base), heads={})
    assert list(dict(stream)) == [EMBEDDINGS]
    with pytest.raises(ZeroDivisionError):
        stream.check()


def test_blank_layers_leave_a_model_what_it_is_to_the_last_bit(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "shallow", seed=0, layers=2)
    source = open_source(str(folder), where="test")
    blanks = dict(blank_layers(source.structure, depth=2, live_depth=5, dtype="float32"))
    assert all(not tensor.any() for tensor in blanks.values())
    config = AutoConfig.from_pretrained(folder)
    config.update({"num_hidden_layers": 5})
    deep = AutoModelForCausalLM.from_config(config)
    deep.load_state_dict({**load_tensors(folder), **blanks}, strict=True)
    shallow = AutoModelForCausalLM.from_pretrained(folder)
    tokens = torch.arange(4, 24)[None]
    with torch.no_grad():
        assert torch.equal(deep(tokens).logits, shallow(tokens).logits)


def test_models_of_more_than_text_are_refused(tmp_path: Path) -> None:
    source = open_source(str(save_architecture(tmp_path / "llava", "llava")), where="test")
    assert json.loads((tmp_path / "llava" / "config.json").read_text())["vision_config"]
    with pytest.raises(
        SourceError, match="more than a text model, and vllm scores only text models"
    ):
        refuse_several_runs(source.structure, where="llava")
