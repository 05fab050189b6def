"""Routes in a live model of a fixed depth: what is left over does nothing, to the last bit."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from evomerge.errors import JobError
from evomerge.evaluate.candidate import TaskItems
from evomerge.evaluate.engines.base import Engine
from evomerge.evaluate.engines.transformers.routed import RoutedEngine
from evomerge.job import parse_job
from evomerge.recipe import Recipe, RecipeModel
from evomerge.route import Hop, stretches_of
from evomerge.workers.live_models import LiveModels
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from evomerge.workers.vllm_models import check_job
from tests.evaluate.conftest import Recorder
from tests.vllm.conftest import KANA, MODELS
from tests.vllm.test_engine import ROUNDING

FIRST, SECOND = (str(MODELS / name) for name in ("counting", "comparison"))
OWN = [Hop(FIRST, layer) for layer in range(6)]
ROUTES = {
    "its own": OWN,
    "shorter": [*OWN[:2], *OWN[4:]],
    "scaled": [OWN[0], Hop(FIRST, 1, 1.25), OWN[2], Hop(FIRST, 3, 0.8), *OWN[4:]],
    "of two models": [*OWN[:3], Hop(SECOND, 3), Hop(FIRST, 4, 0.9), OWN[5]],
    "deeper": [*OWN[:4], Hop(SECOND, 2, 1.1), Hop(SECOND, 3), *OWN[3:]],
    "negative": [*OWN[:2], Hop(FIRST, 2, -0.9), *OWN[3:]],
}


def job_of(*, engine: str) -> PreparedJob:
    document = yaml.safe_load((KANA / "data_flow.yaml").read_text())
    models = document["models"]
    models["base"] = str(MODELS / Path(models["base"]).name)
    models["sources"] = [str(MODELS / Path(name).name) for name in models["sources"]]
    document["compute"] = {"dtype": "float32", "engine": engine, "device": "cpu"}
    return prepare(parse_job(yaml.safe_dump(document), where="job"))


def recipe_of(hops: list[Hop]) -> Recipe:
    return Recipe(merge_method="passthrough", route=stretches_of(hops), out_dtype="float32")


@pytest.fixture(scope="module")
def preparation() -> PreparedJob:
    return job_of(engine="vllm")


def scored(preparation: PreparedJob, engine: Engine) -> tuple[Recorder, Mapping[str, TaskItems]]:
    recorder = Recorder(engine)
    return recorder, preparation.suite.score(
        recorder, {task: tuple(range(40)) for task in preparation.suite.tasks}
    )


def test_routes_score_as_the_engine_for_routes_scores_them(preparation: PreparedJob) -> None:
    served = LiveModels(preparation, device="cpu", cache_folder=None)
    routed = LiveModels(job_of(engine="transformers"), device="cpu", cache_folder=None)
    served.expect([recipe_of(hops) for hops in ROUTES.values()])
    said = []
    for hops in ROUTES.values():
        engine = routed.hold(recipe_of(hops))
        assert isinstance(engine, RoutedEngine)
        ours, scores = scored(preparation, served.hold(recipe_of(hops)))
        theirs, expected = scored(preparation, engine)
        values = [answer[0] for answer in ours.likely]
        # The folded stream is another by a factor, so its roundings are too.
        assert values == pytest.approx([answer[0] for answer in theirs.likely], abs=4 * ROUNDING)
        assert [answer[1] for answer in ours.likely] == [answer[1] for answer in theirs.likely]
        assert ours.said == theirs.said
        assert {task: items.metrics for task, items in scores.items()} == {
            task: items.metrics for task, items in expected.items()
        }
        said.append(tuple(values))
    assert len(set(said)) == len(ROUTES), "otherwise stale layers would go unnoticed"


def test_layers_that_are_left_over_change_no_bit(preparation: PreparedJob) -> None:
    """A model of its own depth, a live one that is deeper, and one that had to become deeper."""
    plain = Recipe(
        merge_method="linear",
        models=(RecipeModel(model=FIRST, parameters={"weight": 1.0}),),
        out_dtype="float32",
    )
    models = LiveModels(preparation, device="cpu", cache_folder=None)
    whole, _ = scored(preparation, models.hold(plain))
    fitting, _ = scored(preparation, models.hold(recipe_of(ROUTES["its own"])))
    deeper = models.hold(recipe_of(ROUTES["deeper"]))
    routed, _ = scored(preparation, deeper)
    there = models.hold(recipe_of(ROUTES["its own"]))
    padded, _ = scored(preparation, there)
    assert there is deeper
    assert whole.likely == fitting.likely == padded.likely != routed.likely
    assert whole.said == fitting.said == padded.said


def test_a_job_of_routes_is_checked_before_anything_is_started(preparation: PreparedJob) -> None:
    check_job(preparation, device="cpu")
    with pytest.raises(JobError, match="the installed vllm runs on cpu"):
        check_job(preparation, device="cuda")


def test_a_live_model_that_is_replaced_takes_none_of_the_others_with_it(
    preparation: PreparedJob,
) -> None:
    plain = Recipe(
        merge_method="linear",
        models=(RecipeModel(model=FIRST, parameters={"weight": 1.0}),),
        out_dtype="float32",
    )
    models = LiveModels(preparation, device="cpu", cache_folder=None)
    first, _ = scored(preparation, models.hold(plain))
    shallow = models.hold(recipe_of(ROUTES["shorter"]))
    ended = weakref.ref(shallow)
    del shallow
    scored(preparation, models.hold(recipe_of(ROUTES["deeper"])))
    assert ended() is None
    again, _ = scored(preparation, models.hold(plain))
    assert again.likely == first.likely
