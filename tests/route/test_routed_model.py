"""Layers put together anew: what a hop owns, what it shares, and which layers cannot move."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.errors import SourceError
from evomerge.evaluate.engines.transformers.routed_layers import check_moved, check_settings
from evomerge.route import Hop
from evomerge.route.routed_model import RoutedModel
from evomerge.sources import open_source
from tests.architectures import save_architecture
from tests.checkpoints import save_tiny_llama
from tests.evaluate.test_live_model import words
from tests.route.routes import Models, logits_of, models

TOKENS = [words(12, seed=1), words(12, seed=2)]


@pytest.fixture
def model(tmp_path: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(save_tiny_llama(tmp_path, seed=0)).eval()


def routed(model: PreTrainedModel) -> RoutedModel:
    made = RoutedModel(
        model, stack="model.layers", settings=lambda hops: {"num_hidden_layers": len(hops)}
    )
    made.add("a", model.model.layers)
    return made


def test_hooks_and_numbers_of_the_layers_themselves_stay(model: PreTrainedModel) -> None:
    own = list(model.model.layers)
    before = logits_of(model, TOKENS)
    live = routed(model)
    live.follow([Hop("a", 1, 2.0), Hop("a", 1, -1.5), Hop("a", 0), Hop("a", 3, 0.5)])
    assert not torch.equal(logits_of(model, TOKENS), before)
    assert [layer.self_attn.layer_idx for layer in own] == [0, 1, 2, 3]
    assert not any(layer._forward_pre_hooks for layer in own)
    live.follow([Hop("a", number) for number in range(4)])
    assert not any(layer._forward_pre_hooks for layer in model.model.layers)
    assert torch.equal(logits_of(model, TOKENS), before)


def test_a_scale_multiplies_what_enters_the_layer(model: PreTrainedModel) -> None:
    live = routed(model)
    own = list(model.model.layers)
    entered: list[torch.Tensor] = []
    live.follow([Hop("a", 0), Hop("a", 2)])
    handle = model.model.layers[1].register_forward_pre_hook(
        lambda _, given: entered.append(given[0])
    )
    logits_of(model, TOKENS)
    handle.remove()
    scaled: list[torch.Tensor] = []
    live.follow([Hop("a", 0), Hop("a", 2, -0.7)])
    model.model.layers[1].register_forward_pre_hook(lambda _, given: scaled.append(given[0]))
    logits_of(model, TOKENS)
    assert torch.equal(scaled[0], entered[0] * -0.7)
    assert not own[2]._forward_pre_hooks


def test_a_pass_may_begin_at_any_hop(model: PreTrainedModel) -> None:
    live = routed(model)
    live.follow([Hop("a", 0), Hop("a", 2, 1.5), Hop("a", 2, -0.5), Hop("a", 3)])
    whole = logits_of(model, TOKENS)
    states: dict[int, torch.Tensor] = {}
    with live.passing(0, None, {hop: lambda s, hop=hop: states.update({hop: s}) for hop in (1, 2)}):
        assert torch.equal(logits_of(model, TOKENS), whole)
    for start in (1, 2):
        told: list[torch.Tensor] = []
        with live.passing(start, states[start], {3: told.append}):
            assert model.config.num_hidden_layers == 4 - start
            assert torch.equal(logits_of(model, TOKENS), whole)
        assert len(told) == 1
        assert model.config.num_hidden_layers == len(model.model.layers) == 4
        assert torch.equal(logits_of(model, TOKENS), whole)


def test_a_layer_that_writes_to_what_it_reads_changes_no_kept_states(
    model: PreTrainedModel,
) -> None:
    live = routed(model)
    live.follow([Hop("a", 0), Hop("a", 1)])
    states = torch.ones(2, 12, 32)
    with live.passing(1, states, {}):
        model.model.layers[0].register_forward_pre_hook(lambda _, given: (given[0].zero_(),))
        logits_of(model, TOKENS)
    assert torch.equal(states, torch.ones(2, 12, 32))


def test_a_pass_that_fails_leaves_the_route_whole(model: PreTrainedModel) -> None:
    live = routed(model)
    live.follow([Hop("a", 0), Hop("a", 1)])
    with pytest.raises(RuntimeError), live.passing(1, torch.zeros(1, 1, 32), {}):
        raise RuntimeError
    assert len(model.model.layers) == 2
    assert not model.model.layers[1]._forward_pre_hooks


FIXED = {
    "gpt2": (
        {"scale_attn_by_inverse_layer_idx": True},
        r"config\.json says scale_attn_by_inverse_layer_idx: True .* routes cannot move its layers",
    ),
    "llama": ({"num_kv_shared_layers": 1}, r"config\.json says num_kv_shared_layers: 1 .*"),
}


@pytest.mark.parametrize("kind", FIXED)
def test_settings_that_tie_layers_to_their_places_are_refused_by_name(
    kind: str, tmp_path: Path
) -> None:
    settings, message = FIXED[kind]
    given = models(kind, tmp_path, base=settings)
    with pytest.raises(SourceError, match=message):
        given.engine()


def test_what_follows_from_a_layer_s_number_is_found(tmp_path: Path) -> None:
    """DiffLlama's layers know how deep they are by a factor of their attention."""
    config = transformers.DiffLlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    transformers.DiffLlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    source = open_source(str(tmp_path / "base"), where="test")
    with pytest.raises(SourceError, match=r"self_attn\.lambda_init of a layer depends on its"):
        Models("diffllama", tmp_path, {"base": source}).engine()


def test_layers_that_move_freely_pass(tmp_path: Path) -> None:
    folder = save_architecture(tmp_path, "gemma3")
    model = AutoModelForCausalLM.from_pretrained(folder)
    check_settings(model, named="it")
    check_moved(model, model, stack="model.layers", origins=[0, 1, 2], named="it")
    model.model.layers[2].mlp.gate_proj.weight = torch.nn.Parameter(torch.zeros(25, 16))
    with pytest.raises(SourceError, match=r"^it: mlp\.gate_proj\.weight of a layer depends"):
        check_moved(model, model, stack="model.layers", origins=[0, 1, 0], named="it")
