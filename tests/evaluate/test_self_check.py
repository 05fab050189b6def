"""The self-check: an engine that scores wrongly is found before its scores are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge.errors import SelfCheckError, TaskError
from evomerge.evaluate.candidate import Split
from evomerge.evaluate.engines.base import Reference
from evomerge.evaluate.engines.transformers import tree_passes
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.engines.transformers.key_values import TrunkCache
from evomerge.evaluate.engines.transformers.plain import load_plain
from evomerge.evaluate.engines.transformers.tree_passes import PlacedPass
from evomerge.evaluate.self_check import Expected, check_engine, choose_items, expect
from evomerge.evaluate.suite import TaskSuite
from evomerge.job import SplitSpec
from evomerge.recipe import DType
from tests.checkpoints import load_tensors, word_tokenizer
from tests.evaluate.conftest import TASKS

Plant = Callable[[TransformersEngine, pytest.MonkeyPatch], None]


def expected_of(folder: Path, suite: TaskSuite, *, dtype: DType = "float32") -> Expected:
    plain = load_plain(folder, tokenizer=word_tokenizer(), dtype=dtype)
    return expect(plain, suite, choose_items(suite))


def engine_of(folder: Path, *, dtype: DType = "float32", **options: Any) -> TransformersEngine:
    engine = TransformersEngine(folder, tokenizer=word_tokenizer(), dtype=dtype, **options)
    engine.load(load_tensors(folder).items())
    return engine


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("batch_size", ["auto", 4])
def test_an_engine_that_is_right_passes(
    expert: Path, suite: TaskSuite, dtype: DType, batch_size: Any
) -> None:
    engine = engine_of(expert, dtype=dtype, batch_size=batch_size)
    found = check_engine(engine, expected_of(expert, suite, dtype=dtype), suite, label="expert")
    assert found.requests >= found.items > len(suite.tasks)
    assert found.largest <= found.allowed


def drop_cache(engine: TransformersEngine, patch: pytest.MonkeyPatch) -> None:
    """As when a library renames the argument, and options that are not taken are left out."""
    run = engine._run

    def run_without(ids: torch.Tensor, **given: object) -> torch.Tensor:
        given = {name: value for name, value in given.items() if name != "past_key_values"}
        if ids.shape[1] == 1:
            given.pop("attention_mask", None)
        return run(ids, **given)

    patch.setattr(engine, "_run", run_without)


def drop_mask(_: TransformersEngine, patch: pytest.MonkeyPatch) -> None:
    """Texts of one row see each other."""
    patch.setattr(tree_passes, "_mask", lambda *_, **__: None)


def count_positions_from_the_row(engine: TransformersEngine, patch: pytest.MonkeyPatch) -> None:
    """A token's place is where it lies in its row, not in its text."""
    run = engine._run

    def run_elsewhere(ids: torch.Tensor, **given: object) -> torch.Tensor:
        places = torch.arange(ids.shape[1])[None].expand(ids.shape)
        return run(ids, **{**given, "position_ids": places + 1})

    patch.setattr(engine, "_run", run_elsewhere)


@pytest.mark.parametrize("plant", [drop_cache, drop_mask, count_positions_from_the_row])
def test_a_pass_that_went_wrong_is_found(
    expert: Path, suite: TaskSuite, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(expert)
    plant(engine, monkeypatch)
    with pytest.raises(SelfCheckError, match="plain transformers"):
        check_engine(engine, expected_of(expert, suite), suite, label="expert")


@pytest.mark.parametrize("plant", [drop_cache, drop_mask])
def test_it_is_found_in_coarse_arithmetic_too(
    expert: Path, suite: TaskSuite, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(expert, dtype="bfloat16")
    plant(engine, monkeypatch)
    with pytest.raises(SelfCheckError, match="in bfloat16"):
        check_engine(engine, expected_of(expert, suite, dtype="bfloat16"), suite, label="expert")


def keep_passes(patch: pytest.MonkeyPatch) -> None:
    """What is kept over candidates must be dropped where the weights change, and here is not."""
    kept: dict[bytes, torch.Tensor] = {}
    run = TransformersEngine._run_pass

    def run_once(engine: TransformersEngine, placed: PlacedPass, cache: TrunkCache) -> torch.Tensor:
        logits = run(engine, placed, cache)
        asked = placed.tree_pass.ids.tobytes() + placed.cells.numpy().tobytes()
        return kept.setdefault(asked, logits)

    patch.setattr(TransformersEngine, "_run_pass", run_once)


def test_states_of_other_weights_are_found(
    base: Path, expert: Path, suite: TaskSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_passes(monkeypatch)
    engine = engine_of(base)
    check_engine(engine, expected_of(base, suite), suite, label="base")
    engine.load(load_tensors(expert).items())
    with pytest.raises(SelfCheckError, match="expert"):
        check_engine(engine, expected_of(expert, suite), suite, label="expert")


def test_a_wrong_head_is_found(expert: Path, suite: TaskSuite) -> None:
    engine = engine_of(expert)
    weights = load_tensors(expert)
    engine.load((weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}).items())
    with pytest.raises(SelfCheckError, match="log-likelihood"):
        check_engine(engine, expected_of(expert, suite), suite, label="expert")


def test_an_answer_that_goes_on_after_its_end_is_found(expert: Path, suite: TaskSuite) -> None:
    engine = engine_of(expert)
    expected = expected_of(expert, suite)
    ends_sooner = [
        plain if isinstance(plain, float) else replace(plain, tokens=plain.tokens[:2], ended=True)
        for plain in expected.answers
    ]
    with pytest.raises(SelfCheckError, match="an answer of 2"):
        check_engine(engine, replace(expected, answers=tuple(ends_sooner)), suite, label="expert")


def _off_by(engine: TransformersEngine, nats: float, patch: pytest.MonkeyPatch) -> None:
    likely = engine.loglikelihood
    patch.setattr(
        engine, "loglikelihood", lambda asked: [(said - nats, best) for said, best in likely(asked)]
    )


def test_a_model_that_rounds_more_than_others_is_allowed_what_it_rounds(
    expert: Path, suite: TaskSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a merge does that is far from its models: plain transformers rounds as much."""
    expected = expected_of(expert, suite, dtype="bfloat16")
    engine = engine_of(expert, dtype="bfloat16")
    _off_by(engine, 0.6, monkeypatch)
    exact = load_plain(expert, tokenizer=word_tokenizer(), dtype="bfloat16").in_float32()
    assert exact.dtype == torch.float32
    likely = exact.loglikelihood
    with pytest.raises(SelfCheckError, match="plain transformers"):
        check_engine(engine, expected, suite, label="merge", exact=lambda: exact)
    monkeypatch.setattr(exact, "loglikelihood", lambda request: likely(request) + 1.2)
    found = check_engine(engine, expected, suite, label="merge", exact=lambda: exact)
    assert found.own is not None
    assert found.largest <= found.allowed
    assert "float32 gives truer scores" in str(found)


def test_a_model_whose_rounding_is_unknown_keeps_the_usual_limits(
    expert: Path, suite: TaskSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = expected_of(expert, suite, dtype="bfloat16")
    engine = engine_of(expert, dtype="bfloat16")
    _off_by(engine, 0.6, monkeypatch)

    def lacks_memory() -> Reference:
        raise MemoryError

    with pytest.raises(SelfCheckError, match="plain transformers"):
        check_engine(engine, expected, suite, label="merge", exact=lacks_memory)


def test_many_small_differences_are_found_together(
    expert: Path, suite: TaskSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(expert, dtype="bfloat16")
    likely = engine.loglikelihood
    monkeypatch.setattr(
        engine, "loglikelihood", lambda asked: [(said - 0.4, best) for said, best in likely(asked)]
    )
    with pytest.raises(
        SelfCheckError, match=r"nats a token off.* 0\.15 a token on the whole\).* float32"
    ):
        check_engine(engine, expected_of(expert, suite, dtype="bfloat16"), suite, label="expert")


def test_items_are_few_and_of_every_task(suite: TaskSuite) -> None:
    items = choose_items(suite)
    assert set(items) == set(suite.tasks)
    for task, ids in items.items():
        assert 1 <= len(ids) <= 4
        assert set(ids) <= set(suite.items(task, "search"))


@pytest.mark.parametrize(
    ("shares", "taken"),
    [
        (SplitSpec(search=1e-6, validation=0.5, test=0.5 - 1e-6), "validation"),
        (SplitSpec(search=1e-6, validation=1e-6, test=1 - 2e-6), "test"),
    ],
)
def test_a_task_without_items_to_search_by_is_checked_on_others(
    shares: SplitSpec, taken: Split
) -> None:
    suite = TaskSuite.load(
        ["toy_choice"], folders=[TASKS], tokenizer=word_tokenizer(), split=shares
    )
    with pytest.raises(TaskError, match="search split"):
        suite.items("toy_choice", "search")
    chosen = choose_items(suite)["toy_choice"]
    assert len(chosen) == 4
    assert set(chosen) <= set(suite.items("toy_choice", taken))


def test_a_log_likelihood_that_is_no_number_is_not_near_to_one(
    expert: Path, suite: TaskSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(expert)
    nothing = (float("nan"), True)
    monkeypatch.setattr(engine, "loglikelihood", lambda requests: [nothing for _ in requests])
    with pytest.raises(SelfCheckError, match="a log-likelihood of nan"):
        check_engine(engine, expected_of(expert, suite), suite, label="expert")
