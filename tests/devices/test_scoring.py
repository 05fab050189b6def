"""Choices and answers over a device: the CPU's, and counts that do not grow with the items."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from evomerge.evaluate.engines.base import NonFiniteLogits
from evomerge.evaluate.engines.transformers import scoring as scoring_module
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from tests.devices.rehearsal import Rehearsal
from tests.devices.scenes import Family, choices, engine_of, prompts, routed_engine, routes, scoring

LIKELY = 2e-5  # in nats, of float32 sums in another order


@pytest.fixture(scope="module")
def there() -> Iterator[Rehearsal]:
    with Rehearsal() as rehearsal:
        yield rehearsal


def filled(family: Family, device: str, number: int = 0, **options: object) -> TransformersEngine:
    engine = engine_of(family, device, dtype="float32", **options)
    load(engine, family, number)
    scoring(family, engine)
    return engine


def load(engine: TransformersEngine, family: Family, number: int) -> None:
    source = family.experts[number]
    engine.load((name, source.tensor(name)) for name in source.structure.shapes)


@pytest.fixture(scope="module")
def here(family: Family) -> TransformersEngine:
    return filled(family, "cpu")


@pytest.fixture(scope="module")
def engine(family: Family, there: Rehearsal) -> TransformersEngine:
    return filled(family, "cuda")


def same(found: list[tuple[float, bool]], expected: list[tuple[float, bool]]) -> bool:
    return all(
        math.isclose(value, other, abs_tol=LIKELY) and greedy == other_greedy
        for (value, greedy), (other, other_greedy) in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize(("count", "tokens"), [(16, 2**13), (128, 2**13), (96, 16)])
def test_choices_wait_once_for_many_passes(
    count: int,
    tokens: int,
    there: Rehearsal,
    engine: TransformersEngine,
    here: TransformersEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = choices(count)
    monkeypatch.setattr(engine, "_tokens", (tokens, tokens))
    plan = engine._plan([request.tokens[:-1] for request in asked], needed=0, generation=False)
    assert plan is not None
    passes = len(plan.passes)
    with there.counting() as counts:
        found = engine.loglikelihood(asked)
    assert same(found, here.loglikelihood(asked))
    assert (passes > scoring_module._UNREAD) is (tokens == 16)
    assert counts.uploads == 2
    assert counts.waits == counts.downloads == (1 if tokens > 16 else 2)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("count", [4, 32])
def test_answers_wait_once_a_token(
    count: int,
    penalty: float,
    family: Family,
    there: Rehearsal,
    engine: TransformersEngine,
    here: TransformersEngine,
) -> None:
    for each in (engine, here):
        scoring(family, each, penalty=penalty)
    asked = prompts(count, limit_tokens=8)
    with there.counting() as counts:
        found = engine.answer(asked)
    assert found == here.answer(asked)
    steps = max(map(len, found))
    assert counts.waits == counts.downloads == steps
    # Of the prompts, of their states, and of each step; two steps more move rows.
    assert counts.uploads <= 4 + (steps - 1) + 2 * 2
    # Those of a step, of two layers: none for each answer.
    assert counts.launches <= 190 + 190 * (steps - 1)


def test_time_is_taken_without_waiting(there: Rehearsal, engine: TransformersEngine) -> None:
    before = engine.forward_s
    with there.counting() as counts:
        engine.loglikelihood(choices(16))
    assert counts.waits == 1
    with there.counting() as counts:
        assert engine.forward_s > before
        assert engine.forward_s == engine.forward_s
    assert counts.waits == 1


def test_other_weights_give_other_scores(
    family: Family, there: Rehearsal, engine: TransformersEngine, here: TransformersEngine
) -> None:
    asked = choices(16)
    before = here.loglikelihood(asked)
    for number in (1, 0):
        for each in (engine, here):
            load(each, family, number)
        found = engine.loglikelihood(asked)
        assert same(found, here.loglikelihood(asked))
        assert same(found, before) is (number == 0)


def test_logits_that_are_not_finite_are_seen(
    there: Rehearsal, engine: TransformersEngine, family: Family
) -> None:
    with torch.no_grad():
        engine.model.get_output_embeddings().weight[5, 0] = torch.nan
    with pytest.raises(NonFiniteLogits):
        engine.loglikelihood(choices(16))
    with pytest.raises(NonFiniteLogits):
        engine.answer(prompts(2, limit_tokens=3))
    load(engine, family, 0)


def test_batches_of_rows(family: Family, there: Rehearsal, here: TransformersEngine) -> None:
    padded = filled(family, "cuda", batch_size=8)
    few, many = choices(16), choices(64)
    found = []
    for asked in (few, many):
        with there.counting() as counts:
            assert same(padded.loglikelihood(asked), here.loglikelihood(asked))
        assert counts.downloads == 1
        found.append((counts.uploads, counts.waits))
    batches = [uploads - 2 for uploads, _ in found]  # one copy each, and two for all
    assert batches[0] < batches[1]
    # transformers looks once a pass whether rows are packed.
    assert [waits for _, waits in found] == [1 + number for number in batches]
    scoring(family, here)
    asked_prompts = prompts(8, limit_tokens=6)
    with there.counting() as counts:
        found_answers = padded.answer(asked_prompts)
    assert found_answers == here.answer(asked_prompts)
    assert counts.downloads == max(map(len, found_answers))


def test_routes(family: Family, there: Rehearsal) -> None:
    engines = [routed_engine(family, device) for device in ("cuda", "cpu")]
    both, asked = routes(family), choices(64)
    for each in engines:
        each.prepare(longest_tokens=32, longest_scored=3)
        each.expect(both)
    for recipe in both:
        with there.counting() as counts:
            engines[0].follow(recipe, family.sources)
            found = engines[0].loglikelihood(asked)
        engines[1].follow(recipe, family.sources)
        assert found == engines[1].loglikelihood(asked)
    # The second begins where the first has been: weights and states are there.
    assert engines[0].shared_hops > 0
    assert (counts.uploads, counts.waits) == (2, 1)
