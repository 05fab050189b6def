"""A worker scores nothing with an engine that differs from plain transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from evomerge.errors import SelfCheckError
from evomerge.evaluate.candidate import Candidate, CandidateKey, Scored
from evomerge.evaluate.engines.base import Continuation, LogLikelihood
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.self_check import SelfCheck
from evomerge.recipe import Recipe, RecipeModel
from evomerge.search.baselines import only
from evomerge.search.run import keep_check
from evomerge.study import read_study, resume_study
from evomerge.workers.pool import LocalPool
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.evaluate.test_self_check import keep_passes
from tests.search.jobs import make_job, write_models
from tests.sources.test_quantised import pack_fp8
from tests.study.records import write_record


@pytest.fixture(scope="module")
def preparation(tmp_path_factory: pytest.TempPathFactory) -> PreparedJob:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return prepare(make_job(folder))


def alone(model: str) -> Recipe:
    return only(model, out_dtype="float32")


def merge(base: str, model: str, weight: float) -> Recipe:
    return Recipe(
        merge_method="task_arithmetic",
        base_model=base,
        models=(RecipeModel(model=model, parameters={"weight": weight}),),
        out_dtype="float32",
    )


def score(preparation: PreparedJob, *recipes: Recipe) -> list[SelfCheck]:
    """Score recipes one after another; the self-checks that were told of."""
    checks: list[SelfCheck] = []
    items = {"sums_choice": (0, 1, 2), "sums_said": (0, 1)}
    with LocalPool(preparation, checked=checks.append) as pool:
        for place, recipe in enumerate(recipes):
            asked = Candidate(
                key=CandidateKey(1, place),
                kind="genome",
                label=f"number {place}",
                recipe=recipe,
                items=items,
            )
            [(_, outcome)] = pool.evaluate([asked])
            assert isinstance(outcome, Scored), outcome
    return checks


def test_the_first_of_each_kind_of_live_model_is_checked(preparation: PreparedJob) -> None:
    base, first, second = preparation.sources
    recipes = [alone(base), alone(first), merge(base, first, 0.4), merge(base, second, 0.7)]
    checks = score(preparation, *recipes)
    assert [check.label for check in checks] == ["number 0", "number 2"]
    assert all(check.items and check.requests for check in checks)


def test_a_packed_model_is_checked_in_another_dtype_than_its_own(tmp_path: Path) -> None:
    """Plain transformers would unpack it in that dtype, without rounding to its own first."""
    write_models(tmp_path)
    folder = tmp_path / "base"
    pack_fp8(folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "dtype": "bfloat16"}))
    prepared = prepare(make_job(tmp_path, compute={"dtype": "float32"}))
    assert prepared.out_dtype == "float32"
    assert [check.label for check in score(prepared, alone(str(folder)))] == ["number 0"]


@pytest.mark.parametrize("kind", ["a model by itself", "a merge"])
def test_a_wrong_engine_scores_nothing(
    preparation: PreparedJob, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    likely = TransformersEngine.loglikelihood

    def shifted(self: TransformersEngine, requests: Sequence[Continuation]) -> list[LogLikelihood]:
        return [(value - 0.5, greedy) for value, greedy in likely(self, requests)]

    monkeypatch.setattr(TransformersEngine, "loglikelihood", shifted)
    base, first, _ = preparation.sources
    recipe = alone(first) if kind == "a model by itself" else merge(base, first, 0.4)
    with pytest.raises(SelfCheckError, match=r"^self-check: number 0, task sums_choice, item \d+"):
        score(preparation, recipe)


def test_what_is_kept_of_the_weights_before_is_found(
    preparation: PreparedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_passes(monkeypatch)
    base, first, _ = preparation.sources
    with pytest.raises(SelfCheckError, match="number 1"):
        score(preparation, alone(base), merge(base, first, 0.9))


def test_checks_that_held_are_noted_in_the_record(tmp_path: Path) -> None:
    run_dir, told = write_record(tmp_path / "run"), list[str]()
    checks = [
        SelfCheck(label=label, items=3, requests=5, largest=1e-6, allowed=1e-3)
        for label in ("base", "merge")
    ]
    with resume_study(run_dir) as study:
        keep = keep_check(study, told.append)
        for check in checks:
            keep(check)
    with read_study(run_dir) as study:
        assert study.noted("self_checks") == {check.label: check.to_json() for check in checks}
    assert told == [str(check) for check in checks]
