"""A scoring engine of an installed package is one like evomerge's own."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

import evomerge
from evomerge.errors import JobError, SelfCheckError
from evomerge.evaluate.engines.base import Continuation, LogLikelihood
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.job import ANYWHERE, ComputeSpec, JobSpec, parse_job
from evomerge.job.sections import BuiltInEngine
from evomerge.recipe import Recipe, RecipeModel
from evomerge.route import Hop, fold, stretches_of
from evomerge.search.baselines import only
from evomerge.sources import open_source
from evomerge.study import read_study
from evomerge.workers.engines import BUILT_IN, ENGINES, engine_of
from evomerge.workers.live_models import LiveModels
from evomerge.workers.pool_choice import check_models, check_workers
from evomerge.workers.preparation.fingerprints import check_unchanged, fingerprints_of
from evomerge.workers.preparation.preparation import prepare
from tests.evaluate.conftest import Recorder
from tests.own_parts import EXAMPLES, installed, installed_example, write_metadata
from tests.search.jobs import JOBS, job_document, make_job, write_models

OURS = {"device": "cpu"}
OWN = {"engine": "one_by_one", "device": "cpu"}

ROUNDING = 1e-5
"""What a log-likelihood may differ by in float32."""


@pytest.fixture
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed_example("own_engine", tmp_path_factory.mktemp("site")):
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Mapping[str, Path]:
    """The same search, over weights and then over routes, with the own and a built-in engine."""
    folder = tmp_path_factory.mktemp("runs")
    with installed_example("own_engine", tmp_path_factory.mktemp("site")):
        for name, compute in (("own", OWN), ("ours", OURS)):
            search(models, folder / name, compute)
    return {name: folder / name for name in ("own", "ours")}


def search(models: Path, run_dir: Path, compute: Mapping[str, Any]) -> None:
    document = job_document(models, **JOBS["hybrid"])
    document |= {"budget": {"candidates": 12}, "compute": compute}
    document["evaluation"] |= {
        "split": {"search": 0.9, "validation": 0.05, "test": 0.05},
        "items_per_generation": 8,
        "items_for_baselines": 8,
        "finalists": 1,
    }
    evomerge.search(document, run_dir)


def outcomes(run_dir: Path) -> dict[str, Any]:
    """What every candidate said of every item."""
    with read_study(run_dir) as study:
        found = {}
        for trial in study.trials:
            tasks = study.items_of(trial.key)
            found[f"{trial.kind} {trial.key}"] = {
                task: (items.ids, dict(items.metrics)) for task, items in tasks.items()
            }
    return found


def recipes(models: Path) -> Iterator[Recipe]:
    """A recipe of each kind of live model."""
    base, first, second = (str(models / name) for name in ("base", "first", "second"))
    half = {"weight": 0.5}
    yield only(first, out_dtype="float32")
    yield Recipe(
        merge_method="task_arithmetic",
        base_model=base,
        models=tuple(RecipeModel(model=name, parameters=half) for name in (first, second)),
        out_dtype="float32",
    )
    hops = [Hop(first, 0), Hop(second, 0, 0.8), Hop(second, 1), Hop(first, 1, 1.2)]
    route = Recipe(merge_method="passthrough", route=stretches_of(hops), out_dtype="float32")
    yield route
    yield fold(
        route, {name: open_source(name, where="recipe").structure for name in (first, second)}
    )


def test_it_says_what_the_built_in_engine_says(example: None, models: Path) -> None:
    built = {
        name: LiveModels(
            prepare(make_job(models, compute=compute)), device="cpu", cache_folder=None
        )
        for name, compute in (("own", OWN), ("ours", OURS))
    }
    suite = prepare(make_job(models)).suite
    told = set()
    for recipe in recipes(models):
        own, ours = (models_of.hold(recipe) for models_of in built.values())
        assert isinstance(ours, TransformersEngine)
        assert not isinstance(own, TransformersEngine)
        own, ours = Recorder(own), Recorder(ours)
        for recorder in (own, ours):
            suite.score(recorder, {task: tuple(range(20)) for task in suite.tasks})
        likely = [answer[0] for answer in ours.likely]
        assert [answer[0] for answer in own.likely] == pytest.approx(likely, abs=ROUNDING)
        assert [answer[1] for answer in own.likely] == [answer[1] for answer in ours.likely]
        assert own.said == ours.said
        told.add(tuple(round(value, 3) for value in likely))
    assert len(told) == 3, "the last is the route again"


def test_a_search_finds_of_every_item_what_it_finds_with_the_built_in_engine(
    runs: Mapping[str, Path],
) -> None:
    said = outcomes(runs["own"])
    assert said == outcomes(runs["ours"])
    found = {value for tasks in said.values() for _, each in tasks.values() for value in each}
    assert found == {"acc", "exact_match"}
    assert any("1.0" in str(tasks) for tasks in said.values())


def test_what_baselines_and_finalists_answered_is_kept_and_of_no_one_else(
    runs: Mapping[str, Path],
) -> None:
    with read_study(runs["own"]) as own, read_study(runs["ours"]) as ours:
        phases = {t.key.phase: t.answers is not None for t in own.trials if t.failure is None}
        assert phases == {"baselines": True, "search": False, "validation": True, "test": True}
        compared = 0
        for trial in own.trials:
            answers, others = own.answers_of(trial.key), ours.answers_of(trial.key)
            assert answers.keys() == others.keys()
            for task, kept in answers.items():
                assert [each.item for each in kept.items] == list(own.items_of(trial.key)[task].ids)
                for each, other in zip(kept.items, others[task].items, strict=True):
                    assert (each.text, each.question) == (other.text, other.question)
                    assert each.loglikelihoods == pytest.approx(other.loglikelihoods, abs=1e-4)
                    # The example's engine does not count tokens.
                    assert (each.tokens, each.cut) == (None, None)
                    assert (other.tokens is not None) == (other.cut is not None) == each.generated
                    compared += 1
        assert compared


def test_a_search_notes_its_version_and_the_self_checks_that_held(
    runs: Mapping[str, Path],
) -> None:
    with read_study(runs["own"]) as own, read_study(runs["ours"]) as ours:
        assert set(own.noted("self_checks")) == set(ours.noted("self_checks"))
        assert len(own.noted("self_checks")) == 3, "a model by itself, a merge, a route"
        package = own.noted("facts")["versions"]["engine one_by_one"]
        file = EXAMPLES / "own_engine" / "evomerge_one_by_one" / "__init__.py"
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        assert package == f"evomerge-one-by-one 1.0 (sha256 {digest})"
        assert not [name for name in ours.noted("facts")["versions"] if "engine" in name]


def test_a_record_is_read_where_the_package_is_not_installed(runs: Mapping[str, Path]) -> None:
    assert evomerge.open_run(runs["own"]).finished
    with pytest.raises(JobError, match=r"compute.engine: one_by_one is not an installed engine"):
        evomerge.resume(runs["own"])


def test_a_search_that_goes_on_with_it_is_told_of(example: None, models: Path) -> None:
    ours, own = (
        fingerprints_of(prepare(make_job(models, compute=compute)))
        for compute in ({"device": "cpu"}, OWN)
    )
    version = own["versions"]["engine one_by_one"]
    told = check_unchanged(ours, own, where="run")
    assert told == [f"engine one_by_one not used -> {version}"]


def test_it_is_held_to_plain_transformers(
    example: None, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_of(ComputeSpec(**OWN))
    one_by_one = sys.modules["evomerge_one_by_one"].OneByOne
    likely = one_by_one.loglikelihood

    def shifted(self: object, requests: Sequence[Continuation]) -> list[LogLikelihood]:
        return [(value - 0.5, greedy) for value, greedy in likely(self, requests)]

    monkeypatch.setattr(one_by_one, "loglikelihood", shifted)
    with pytest.raises(SelfCheckError, match=r"^self-check: .*task sums_choice, item \d+"):
        search(models, tmp_path / "run", OWN)


def test_one_that_cannot_be_held_to_anything_is_not_trusted(
    example: None, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_of(ComputeSpec(**OWN))
    monkeypatch.setattr(sys.modules["evomerge_one_by_one"].OneByOne, "plain", lambda self: 1 / 0)
    with pytest.raises(
        SelfCheckError, match=r"cannot be checked against plain transformers \(ZeroDiv"
    ):
        search(models, tmp_path / "run", OWN)


@pytest.mark.parametrize(
    ("part", "words"),
    [("check_job", "cannot check the job"), ("versions", "cannot say its versions")],
)
def test_what_its_code_raises_is_said_in_a_line(
    example: None,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    words: str,
) -> None:
    def fail(*given: object, **named: object) -> None:
        raise ValueError("a fault of it")

    monkeypatch.setitem(vars(ENGINES["one_by_one"]), part, fail)
    with pytest.raises(JobError, match=rf"one_by_one {words} \(ValueError: a fault of it\)"):
        search(models, tmp_path / "run", OWN)
    assert not (tmp_path / "run").exists()


def test_a_model_that_it_cannot_serve_is_refused_before_anything_is_started(
    example: None, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(preparation: object, *, device: str) -> None:
        raise JobError(f"compute.device: {device} is nothing for it; choose another")

    row = ENGINES["one_by_one"]
    monkeypatch.setitem(vars(row), "check_job", refuse)
    with pytest.raises(JobError, match=r"^compute.device: cpu is nothing for it"):
        search(models, tmp_path / "run", OWN)
    assert not (tmp_path / "run").exists()


def test_a_name_that_is_none_is_refused_with_the_nearest(example: None, models: Path) -> None:
    for name, mend in (
        ("one_by_on", "did you mean one_by_one?"),
        ("vlm", "did you mean vllm?"),
        ("Q", "install its package, or name one of auto, transformers, vllm, one_by_one"),
    ):
        text = yaml.safe_dump(job_document(models, compute={"engine": name}))
        with pytest.raises(JobError) as refused:
            parse_job(text, where="job.yaml")
        assert str(refused.value) == (
            f"job.yaml: compute.engine: {name} is not an installed engine; {mend}"
        )


def test_a_worker_without_the_package_says_so(models: Path) -> None:
    document = job_document(models, compute={"engine": "absent"})
    job = JobSpec.model_validate(document, context=ANYWHERE)
    for ask in (check_workers, engine_of):
        with pytest.raises(JobError, match=r"^compute.engine: absent is not an installed engine"):
            ask(job.compute)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ImportError('no library')", r"of broken 2.0, cannot be imported \(no library\)"),
        ("BROKEN = 3", "of broken 2.0: broken_engine:BROKEN is no evomerge.workers.ScoringEngine"),
        (
            "from evomerge.workers import ScoringEngine\n"
            "BROKEN = ScoringEngine(name='broken', open_models=print, check_job=print,\n"
            "                       module='not_there', install='install not-there')",
            "compute.engine: broken is not installed; install not-there, or set it to transformers",
        ),
    ],
)
def test_a_package_that_cannot_be_used_is_named_before_anything_is_started(
    models: Path, tmp_path: Path, code: str, words: str
) -> None:
    points = {"broken": "broken_engine:BROKEN", "transformers": "broken_engine:X"}
    write_metadata(tmp_path, "broken", "2.0", {ENGINES.group: points})
    (tmp_path / "broken_engine.py").write_text(code)
    with installed(tmp_path):
        assert ENGINES["transformers"] is BUILT_IN["transformers"], "ours keeps its name"
        job = make_job(models, compute={"engine": "broken", "device": "cpu"})
        for refuse in (lambda: check_workers(job.compute), lambda: check_models(prepare(job))):
            with pytest.raises(JobError, match=words) as refused:
                refuse()
            assert "\n" not in str(refused.value)


def test_a_package_is_imported_only_when_its_engine_is_asked_for(
    models: Path, tmp_path: Path
) -> None:
    write_metadata(tmp_path, "broken", "2.0", {ENGINES.group: {"broken": "broken_engine:X"}})
    (tmp_path / "broken_engine.py").write_text("raise ImportError")
    with installed(tmp_path):
        check_models(prepare(make_job(models)))
        assert make_job(models, compute={"engine": "broken"}).compute.engine == "broken"
        assert "broken_engine" not in sys.modules


def test_a_job_names_the_engines_that_there_are() -> None:
    assert get_args(BuiltInEngine) == ("auto", *BUILT_IN)
    assert all(row.name == name for name, row in BUILT_IN.items())
