"""Routes on live models: the numbers of the plain model, shared weights, honest caches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from evomerge.errors import RecipeError, SourceError
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.engines.transformers.routed import RoutedEngine
from evomerge.route import Hop
from evomerge.route.prefixes import order_by_prefix
from evomerge.sources import open_source
from tests.architectures import save_architecture
from tests.checkpoints import (
    load_tensors,
    replace_tensors,
    save_tiny_llama,
    word_tokenizer,
)
from tests.evaluate.test_engine import continuation, generated, prompt
from tests.evaluate.test_live_model import words
from tests.route.routes import (
    WINDOW,
    WINDOWS,
    Models,
    change_config,
    logits_of,
    models,
    recipe_of,
    route,
)

KINDS = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2", "gpt_neox")
OTHERS = ("phi3", "olmo2", "mixtral", "qwen3_moe", "mamba")

OWN = route(("base", 0), ("base", 1), ("base", 2))
UNSCALED = route(("base", 0), ("expert", 1), ("expert", 1), ("base", 0), ("base", 2))
SCALED = route(("base", 0), ("expert", 1, 1.3), ("expert", 1, -0.8), ("base", 0, -1.1), ("base", 2))
"""Layers of both models, one twice in a row, one again, one of the base's left out."""

ROUNDING = 5e-6
TOKENS = [words(4 * WINDOW, seed=1), words(4 * WINDOW, seed=2)]
ASKED = [continuation(words(5 + 3 * (i % 5), seed=i), 1 + i % 3) for i in range(12)]
PROMPTS = [words(4 + 3 * i, seed=i) for i in range(4)]


def following(given: Models, hops: Sequence[Hop], **options: object) -> RoutedEngine:
    engine = given.engine(**options)
    engine.follow(recipe_of(hops), given.sources)
    return engine


def layers_of(engine: RoutedEngine) -> list[torch.nn.Module]:
    return list(engine.model.get_submodule(engine._layers.list_name).children())


@pytest.mark.parametrize("hops", [UNSCALED, SCALED], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
def test_a_route_computes_what_the_model_that_it_is_does(
    kind: str, hops: Sequence[Hop], tmp_path: Path
) -> None:
    given = models(kind, tmp_path)
    found = logits_of(following(given, hops).model, TOKENS)
    expected = logits_of(given.plain(hops), TOKENS)
    # Logits are near 1; sums round differently where memory is aligned differently.
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)
    assert float((expected - logits_of(given.plain(OWN), TOKENS)).abs().max()) > 0.01


@pytest.mark.parametrize("kind", [*KINDS, "mamba"])
def test_answers_with_a_cache_are_those_without_and_those_of_transformers(
    kind: str, tmp_path: Path
) -> None:
    given = models(kind, tmp_path)
    engine, plain = following(given, SCALED), given.plain(SCALED)
    said = engine.generate([prompt(tokens, limit_tokens=9) for tokens in PROMPTS])
    for tokens, text in zip(PROMPTS, said, strict=True):
        uncached = list(tokens)
        for _ in range(9):
            uncached.append(int(logits_of(engine.model, [uncached])[0, -1].argmax()))
            if uncached[-1] == word_tokenizer().eos_token_id:
                break
        assert text == word_tokenizer().decode(uncached[len(tokens) :], skip_special_tokens=True)
        expected = generated(plain, tokens, max_new_tokens=9)
        assert text == word_tokenizer().decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize("kind", KINDS)
def test_cached_logits_are_the_uncached_past_the_window(kind: str, tmp_path: Path) -> None:
    given = models(kind, tmp_path)
    model = following(given, SCALED).model
    cache, ids = DynamicCache(config=model.config), torch.tensor(TOKENS)
    assert len(cache.layers) == len(SCALED)
    steps = [ids[:, : WINDOW + 2], *ids[:, WINDOW + 2 :].split(1, dim=1)]
    with torch.no_grad():
        logits = [model(step, past_key_values=cache, use_cache=True).logits for step in steps]
    # float32 sums over other numbers of keys.
    torch.testing.assert_close(
        torch.cat(logits, dim=1), logits_of(model, TOKENS), rtol=0, atol=1e-5
    )
    if kind in WINDOWS:
        assert any(layer.is_sliding for layer in cache.layers)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_model_s_own_route_is_that_model_to_the_last_bit(
    kind: str, tmp_path: Path
) -> None:
    given = models(kind, tmp_path)
    plain = TransformersEngine(
        tmp_path / "base", tokenizer=word_tokenizer(), dtype="float32", device="cpu"
    )
    plain.load(load_tensors(tmp_path / "base").items())
    if plain._wanted is not None:
        plain._wanted.keep_last_layer()  # as in a route, where it may come twice
    engine = following(given, SCALED)
    assert engine.loglikelihood(ASKED) != plain.loglikelihood(ASKED)
    engine.follow(recipe_of(OWN), given.sources)
    assert torch.equal(logits_of(engine.model, TOKENS), logits_of(plain.model, TOKENS))
    assert engine.loglikelihood(ASKED) == plain.loglikelihood(ASKED)
    asked = [prompt(tokens) for tokens in PROMPTS]
    assert engine.generate(asked) == plain.generate(asked)


@pytest.mark.parametrize("kind", KINDS)
def test_hops_share_their_weights_and_not_their_place_in_the_cache(
    kind: str, tmp_path: Path
) -> None:
    given = models(kind, tmp_path)
    engine = following(given, UNSCALED)
    before = layers_of(engine)
    engine.follow(recipe_of(SCALED), given.sources)
    after = layers_of(engine)
    pairs = [(before, 1, after, 2), (before, 0, after, 3), (before, 4, after, 4)]
    for ours, one, theirs, other in pairs:
        addresses, others = (
            {name: value.data_ptr() for name, value in layer.named_parameters()}
            for layer in (ours[one], theirs[other])
        )
        assert addresses == others
        assert ours[one] is not theirs[other]
    slots = [
        {part.layer_idx for part in layer.modules() if hasattr(part, "layer_idx")}
        for layer in after
    ]
    assert slots == [{0}, {1}, {2}, {3}, {4}]


def test_a_layer_brings_its_own_kind_along(tmp_path: Path) -> None:
    slides, sees_all = "sliding_attention", "full_attention"
    given = models("gemma2", tmp_path, expert={"layer_types": [sees_all, slides, slides]})
    hops = route(("base", 0), ("expert", 0), ("base", 1), ("expert", 1), ("base", 2))
    engine = following(given, hops)
    assert engine.model.config.layer_types == [slides, sees_all, sees_all, slides, slides]
    torch.testing.assert_close(
        logits_of(engine.model, TOKENS), logits_of(given.plain(hops), TOKENS), rtol=0, atol=ROUNDING
    )


def test_models_may_be_deeper_or_shallower_than_the_first(tmp_path: Path) -> None:
    given = models("gemma3", tmp_path / "three")
    deep = save_architecture(tmp_path / "deep", "gemma3", seed=7)
    tensors = load_tensors(deep)
    fourth = {
        name.replace("layers.2.", "layers.3."): tensor * 1.1
        for name, tensor in tensors.items()
        if "layers.2." in name
    }
    replace_tensors(deep, dict(fourth))
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    change_config(deep, {"num_hidden_layers": 4, "layer_types": kinds, "sliding_window": WINDOW})
    sources = {**given.sources, "expert": open_source(str(deep), where="test")}
    given = Models(given.kind, given.folder, sources)
    hops = route(("base", 0), ("expert", 3), ("expert", 1), ("base", 2))
    torch.testing.assert_close(
        logits_of(following(given, hops).model, TOKENS),
        logits_of(given.plain(hops), TOKENS),
        rtol=0,
        atol=ROUNDING,
    )


def test_embeddings_of_further_models_are_not_read(tmp_path: Path) -> None:
    """So their vocabularies may differ."""
    base = save_tiny_llama(tmp_path / "base", seed=0)
    same = save_tiny_llama(tmp_path / "same", seed=1)
    other = save_tiny_llama(tmp_path / "other", seed=2, vocabulary=70)
    inner = {name: value for name, value in load_tensors(same).items() if ".layers." in name}
    replace_tensors(other, dict(inner))
    hops = route(("base", 0), ("expert", 2, 1.2), ("expert", 1), ("base", 3))
    answers = []
    for expert in (same, other):
        sources = {
            name: open_source(str(folder), where="test")
            for name, folder in {"base": base, "expert": expert}.items()
        }
        engine = following(Models("llama", tmp_path, sources), hops)
        answers.append(engine.loglikelihood(ASKED))
    assert answers[0] == answers[1]


def test_other_weights_may_be_loaded_between_routes(tmp_path: Path) -> None:
    given = models("qwen3", tmp_path)
    engine = following(given, SCALED, prefix_bytes=10**6)
    engine.expect([recipe_of(SCALED)])
    first = engine.loglikelihood(ASKED)
    plain = TransformersEngine(tmp_path / "base", tokenizer=word_tokenizer(), dtype="float32")
    plain.load(load_tensors(tmp_path / "expert").items())
    before = engine.hops, engine.shared_hops
    engine.load(load_tensors(tmp_path / "expert").items())
    assert engine.loglikelihood(ASKED) == plain.loglikelihood(ASKED)
    assert (engine.hops, engine.shared_hops) == before  # that was no route
    engine.follow(recipe_of(SCALED), given.sources)
    assert engine.loglikelihood(ASKED) == first


def test_a_route_of_other_embeddings_is_refused(tmp_path: Path) -> None:
    given = models("llama", tmp_path)
    engine = following(given, OWN)
    with pytest.raises(RecipeError, match=r"^route\.0\.model: expert is not .*; begin the route"):
        engine.follow(recipe_of(route(("expert", 0), ("base", 2))), given.sources)
    with pytest.raises(RecipeError, match=r"^route\.1\.layers: \[3, 4\] is beyond the 3 layers"):
        engine.follow(recipe_of(route(("base", 0), ("expert", 3))), given.sources)


def test_layers_that_are_built_otherwise_are_refused(tmp_path: Path) -> None:
    given = models("qwen3", tmp_path / "plain", base={})
    kinds = WINDOWS["qwen3"]
    sliding = models("qwen3", tmp_path / "sliding", expert=kinds)
    wide = save_tiny_llama(tmp_path / "wide", seed=0)
    engine = given.engine()
    hops = route(("base", 0), ("expert", 1), ("base", 2))
    with pytest.raises(RecipeError, match=r"expert has layers of sliding_attention and .* none"):
        engine.follow(recipe_of(hops), {**given.sources, "expert": sliding.sources["expert"]})
    llama = open_source(str(wide), where="test")
    with pytest.raises(RecipeError, match=r"expert is a LlamaForCausalLM and .* a Qwen3"):
        engine.follow(recipe_of(hops), {**given.sources, "expert": llama})
    narrow = models("llama", tmp_path / "narrow")
    with pytest.raises(SourceError, match=r"^expert: model\.layers\.0\..*: shape .* does not fit"):
        narrow.engine().follow(recipe_of(hops), {**narrow.sources, "expert": llama})
    engine.follow(recipe_of(hops), given.sources)  # what was refused left nothing behind


def population(count: int, seed: int) -> list[tuple[Hop, ...]]:
    """Random routes of both models, many of which begin alike."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        start = list(chance.choice(found))[: chance.randrange(1, 5)] if found else [Hop("base", 0)]
        start += [
            Hop(chance.choice(["base", "expert"]), chance.randrange(3), chance.choice([1.0, -1.2]))
            for _ in range(chance.randrange(1, 4))
        ]
        found.append((*start, Hop("base", 2)))
    return found


STATE_BYTES = 4 * 16 * max(len(request.tokens) - 1 for request in ASKED) * 4
"""Of the largest batch of four: float32, hidden size 16."""


@pytest.mark.parametrize("kind", KINDS)
def test_shared_prefixes_change_no_bit(kind: str, tmp_path: Path) -> None:
    given = models(kind, tmp_path)
    routes = population(10, seed=3)
    routes = [routes[place] for place in order_by_prefix(routes)]
    asked = [prompt(tokens) for tokens in PROMPTS[:2]]
    alone = given.engine(batch_size=4)
    expected = []
    for hops in routes:
        alone.follow(recipe_of(hops), given.sources)
        expected.append((alone.loglikelihood(ASKED), alone.generate(asked)))
    for limit_bytes in (STATE_BYTES, 3 * STATE_BYTES, 10**8):
        sharing = given.engine(batch_size=4, prefix_bytes=limit_bytes)
        sharing.expect([recipe_of(hops) for hops in routes])
        for hops, answers in zip(routes, expected, strict=True):
            sharing.follow(recipe_of(hops), given.sources)
            assert (sharing.loglikelihood(ASKED), sharing.generate(asked)) == answers, limit_bytes
            assert sharing._prefixes.size_bytes <= limit_bytes
        assert sharing.hops == alone.hops
        assert sharing.shared_hops > 0 == alone.shared_hops


def test_hops_are_counted_for_each_batch(tmp_path: Path) -> None:
    given = models("llama", tmp_path)
    engine = given.engine(batch_size=4, prefix_bytes=10**8)
    routes = [SCALED, (*SCALED[:3], Hop("base", 2)), (Hop("base", 0), Hop("base", 2)), SCALED]
    batches = 3  # twelve requests
    engine.expect([recipe_of(hops) for hops in routes])
    counts = []
    for hops in routes:
        engine.follow(recipe_of(hops), given.sources)
        before = engine.hops, engine.shared_hops
        engine.loglikelihood(ASKED)
        engine.generate([prompt(tokens) for tokens in PROMPTS])
        counts.append((engine.hops - before[0], engine.shared_hops - before[1]))
    # The last hop is made whatever is kept.
    assert counts == [
        (5 * batches, 0),
        (4 * batches, 3 * batches),
        (2 * batches, 1 * batches),
        (5 * batches, 4 * batches),
    ]


def test_the_same_tokens_are_shared_and_no_others(tmp_path: Path) -> None:
    given = models("gpt2", tmp_path)
    engine = given.engine(prefix_bytes=10**8)
    engine.expect([recipe_of(SCALED), recipe_of(SCALED)])
    engine.follow(recipe_of(SCALED), given.sources)
    engine.loglikelihood(ASKED[:6])
    engine.follow(recipe_of(SCALED), given.sources)
    others = engine.loglikelihood(ASKED[6:])
    assert engine.shared_hops == 0
    assert others == following(given, SCALED).loglikelihood(ASKED[6:])
    engine.loglikelihood(ASKED[:6])
    assert engine.shared_hops == 4


SHARED = words(18, seed=77)
SHARING = [continuation([*SHARED, *words(2 + i % 4, seed=i)], 1 + i % 2) for i in range(30)]
"""More than a pass of 64 tokens holds, after one beginning."""


@pytest.mark.parametrize("limit_bytes", [10**4, 10**8])  # some of the passes, and all
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "gpt_neox"])
def test_routes_share_states_of_a_trunk_and_of_what_reads_it(
    kind: str, limit_bytes: int, tmp_path: Path
) -> None:
    given = models(kind, tmp_path)
    routes = population(8, seed=5)
    routes = [routes[place] for place in order_by_prefix(routes)]
    alone, sharing, plain = (
        given.engine(),
        given.engine(prefix_bytes=limit_bytes),
        given.engine(batch_size=1),
    )
    for engine in (alone, sharing):
        assert engine._longest_packed is None
        engine._tokens = (64, 1024)
    sharing.expect([recipe_of(hops) for hops in routes])
    for hops in routes:
        for engine in (alone, sharing, plain):
            engine.follow(recipe_of(hops), given.sources)
        found = sharing.loglikelihood(SHARING)
        assert found == alone.loglikelihood(SHARING)
        values = [value for value, _ in plain.loglikelihood(SHARING)]
        assert [value for value, _ in found] == pytest.approx(values, abs=1e-4)
    assert sharing.hops == alone.hops
    assert sharing.shared_hops > 0 == alone.shared_hops
