"""A way to draw items of an installed package is one like evomerge's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evomerge
from evomerge.evaluate.candidate import (
    Candidate,
    Evaluation,
    Observer,
    TaskItems,
    ignore,
)
from evomerge.job import DRAWS
from evomerge.search.ledger import Ledger
from evomerge.search.loop import run_search
from evomerge.search.sampling.draws import ItemDraws
from evomerge.search.sampling.informative import draw_weighted
from evomerge.search.sampling.sample import Sample
from evomerge.study import Study, create_study, resume_study
from evomerge.workers.pool import Pool
from evomerge.workers.preparation.fingerprints import fingerprints_of
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.own_parts import installed, installed_example, write_metadata
from tests.search.jobs import LightPool, job_document, make_job, write_models

TASKS = {"sums_choice": "acc", "sums_said": "exact_match"}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed_example("own_sampler", tmp_path_factory.mktemp("site")):
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def preparation(example: None, models: Path) -> PreparedJob:
    return prepare(make_job(models, evaluation=evaluation(models), budget={"candidates": 16}))


def evaluation(models: Path, draws: str = "disputed", **changes: Any) -> dict[str, Any]:
    given = {"items_for_baselines": 400, "items_per_generation": 24, "draws": draws, **changes}
    return {**job_document(models)["evaluation"], **given}


class Cut(Exception):
    """A search is ended from outside."""


class CutPool(LightPool):
    """Ends the search when it has scored so many candidates."""

    def __init__(self, most: int) -> None:
        self._left = most

    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Evaluation]]:
        for scored in super().evaluate(candidates, observe):
            if self._left == 0:
                raise Cut
            self._left -= 1
            yield scored


def searched(study: Study, preparation: PreparedJob, pool: Pool | None = None) -> Study:
    run_search(Ledger(preparation=preparation, study=study, pool=pool or LightPool()))
    return study


def content(study: Study) -> dict[str, object]:
    """All that a search has recorded, to the last bit."""
    return {
        str(one.key): (one.genome, one.score, one.means, study.items_of(one.key))
        for one in study.trials
    }


def test_a_generation_is_scored_on_the_items_that_it_draws(
    preparation: PreparedJob, tmp_path: Path
) -> None:
    study = searched(create_study(tmp_path / "run", preparation.job), preparation)
    parents = [t for t in study.trials_of("baseline") if t.label in ("first", "second")]
    assert len(parents) == 2
    for generation in (1, 2, 3, 4):
        for ordinal, (task, metric) in enumerate(TASKS.items()):
            pool = np.array(preparation.suite.items(task, "search"))
            answers = [
                dict(zip(items.ids, items.metrics[metric], strict=True))
                for items in (study.items_of(one.key)[task] for one in parents)
            ]
            differ = [i in answers[0] and answers[0][i] != answers[1][i] for i in pool.tolist()]
            assert 0 < sum(differ) < len(pool)
            # With a race twice as many are drawn; all candidates are scored on the first half.
            draw, blocks = (
                np.random.PCG64(np.random.SeedSequence((3, generation, ordinal, stream)))
                for stream in (1, 2)
            )
            places, _ = draw_weighted(np.where(differ, 4.0, 1.0), 24, draw)
            ids = pool[places][np.argsort(blocks.random_raw(24))].tolist()
            for trial in study.trials_of("genome"):
                if trial.key.generation == generation:
                    scored = set(study.items_of(trial.key)[task].ids)
                    assert set(ids[:12]) <= scored <= set(ids)


def test_a_search_that_was_ended_goes_on_to_the_same_record(
    preparation: PreparedJob, tmp_path: Path
) -> None:
    whole = content(searched(create_study(tmp_path / "whole", preparation.job), preparation))
    with create_study(tmp_path / "cut", preparation.job) as study, pytest.raises(Cut):
        searched(study, preparation, CutPool(len(whole) // 2))
    with resume_study(tmp_path / "cut") as study:
        assert 0 < len(study.trials) < len(whole)
        assert content(searched(study, preparation)) == whole


def test_its_version_and_file_are_in_the_record(preparation: PreparedJob) -> None:
    said = fingerprints_of(preparation)["versions"]["draws disputed"]
    assert said.startswith("evomerge-disputed 1.0 (sha256 ")
    assert len(said.partition("sha256 ")[2]) == 13


def test_its_estimates_are_right_on_the_average(example: None) -> None:
    """The mean of 2,000 estimates is within four standard errors: one run in 16,000 fails."""
    pool = tuple(range(100, 160))
    draws = ItemDraws({"first": pool}, {"first": ("acc",)}, kind="disputed", seed=3, parents=[1, 2])
    rng = np.random.default_rng(0)

    def answers(ids: Sequence[int], values: Sequence[float]) -> dict[str, TaskItems]:
        return {"first": TaskItems(ids=tuple(ids), metrics={"acc": tuple(values)})}

    draws.learn([answers(pool, (rng.random(60) < 0.7).astype(float).tolist()) for _ in range(4)])
    truth = {i: float(rng.random() < (i % 7) / 7) for i in pool}
    estimates, likelier = [], 0
    for generation in range(1, 2001):
        sample: Sample = draws.draw(generation, 24)
        ids = sorted(sample.tasks["first"].items.tolist())
        likelier += int((sample.tasks["first"].scales < 1.0).sum())
        estimates.append(sample.means(answers(ids, [truth[i] for i in ids]))["first"]["acc"])
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert likelier > 0
    assert abs(np.mean(estimates) - np.mean(list(truth.values()))) < 4 * error


def test_the_report_says_which_items_it_prefers(example: None, models: Path) -> None:
    job = make_job(models, evaluation=evaluation(models))
    assert job.evaluation.draw_facts.sentence("24 items") == (
        "Every generation is scored on a fresh draw of search items, those on which the parents "
        "differ more often and weighted for it; the last on 24 items."
    )


def test_a_job_is_read_without_importing_its_package(tmp_path: Path, models: Path) -> None:
    with package(tmp_path, "raise ImportError('no library')"):
        given = evaluation(models, "broken", growing=True, racing=True)
        assert make_job(models, evaluation=given).evaluation.draws == "broken"


def test_a_record_is_read_where_the_package_is_gone_and_goes_on_where_it_is_there(
    tmp_path: Path, models: Path
) -> None:
    run = tmp_path / "run"
    with package(tmp_path, SAMPLER.format(facts="", code="return sample")):
        preparation = prepare(make_job(models, evaluation=evaluation(models, "broken")))
        with searched(create_study(run, preparation.job), preparation) as study:
            count = len(study.trials)
    assert len(evomerge.open_run(run).trials_dataframe()) == count
    page = evomerge.report(run)
    assert "drawn by a package that is not installed here" in page.read_text()
    with pytest.raises(evomerge.JobError, match="broken is not an installed way to draw items"):
        evomerge.resume(run)


def test_a_name_that_is_none_is_refused_with_the_nearest(example: None, models: Path) -> None:
    for written, near in (("disputd", "disputed"), ("informativ", "informative")):
        with pytest.raises(
            evomerge.JobError, match=f"evaluation.draws: {written} is .* mean {near}"
        ):
            make_job(models, evaluation=evaluation(models, written))
    with pytest.raises(evomerge.JobError, match=r"name one of informative, .*, all, disputed"):
        make_job(models, evaluation=evaluation(models, "xyz"))


def package(folder: Path, code: str) -> Any:
    """A package with the sampler `broken`, and one that takes a name of evomerge's own."""
    points = {"broken": "broken_sampler:BROKEN", "fresh": "broken_sampler:X"}
    write_metadata(folder, "broken", "2.0", {DRAWS.group: points})
    (folder / "broken_sampler.py").write_text(code)
    return installed(folder)


UNUSABLE = {
    "raise ImportError('no library')": r"of broken 2.0, cannot be imported \(no library\)",
    "BROKEN = 3": "of broken 2.0: broken_sampler:BROKEN is no evomerge.search.ItemSampler",
    "from evomerge.search import ItemSampler as BROKEN": "is no evomerge.search.ItemSampler with",
    "from evomerge.job import DrawFacts\nDrawFacts(every_item=True)": "imported .every_item: all",
}


@pytest.mark.parametrize(("code", "words"), UNUSABLE.items())
def test_a_package_that_cannot_be_used_is_named_before_anything_is_opened(
    tmp_path: Path, models: Path, code: str, words: str
) -> None:
    document = job_document(models, evaluation=evaluation(models, "broken"))
    with package(tmp_path, code):
        assert DRAWS["fresh"].sampler is None, "ours keeps its name"
        with pytest.raises(evomerge.JobError, match=words) as refused:
            evomerge.search(document, tmp_path / "run")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


SAMPLER = """
import numpy as np
from dataclasses import replace
from evomerge.job import DrawFacts
from evomerge.search import ItemSampler, TaskSample

class BROKEN(ItemSampler):
    facts = DrawFacts({facts})

    def draw_task(self, task, count, generation):
        sample = self.draw_plain(task, count, generation)
        {code}
"""

BREACHES = {
    "return sample.items": "ndarray is no evomerge.search.TaskSample",
    "return replace(sample, items=sample.items[1:])": r"of shape \(11,\); give 12 as int64",
    "return replace(sample, items=sample.items + 0.5)": "items are float64",
    "return replace(sample, items=sample.items + 10**6)": "is none of the task's search items",
    "return replace(sample, items=sample.items[[0] * count])": "an item is drawn twice",
    "return replace(sample, scales=sample.scales * np.nan)": "a scale that is finite",
    "return replace(sample, scales=-sample.scales)": "a scale that is finite and above 0",
    "return replace(sample, scales=sample.scales[1:])": "a scale that is finite",
    "return replace(sample, offsets={'acc': 1.0})": "guesses and offsets have different",
    "return replace(sample, offsets={'acc': 1.0}, guesses={'acc': np.ones(3)})": "a finite guess",
    "return replace(sample, estimate=np.mean)": "an estimate of its own; that is only for",
    "return replace(sample, items=np.random.permutation(sample.items))": "take all random bits",
    "return sample.nothing": r"cannot draw generation 1 of first \(AttributeError: 'TaskSample'",
    "return self.draw_by(task, np.zeros(60), count, generation)": r"\(ValueError: probabilities: ",
}


@pytest.mark.parametrize(("code", "words"), BREACHES.items())
def test_a_sampler_that_breaks_its_word_ends_in_one_line(
    tmp_path: Path, code: str, words: str
) -> None:
    with package(tmp_path, SAMPLER.format(facts="", code=code)):
        draws = ItemDraws({"first": range(60)}, {"first": ("acc",)}, kind="broken", seed=0)
        with pytest.raises(evomerge.JobError, match=words) as refused:
            draws.draw(1, 12)
    assert str(refused.value).startswith("evaluation.draws: broken")
    assert "\n" not in str(refused.value)


def test_a_sampler_cannot_make_other_items_its_own(tmp_path: Path) -> None:
    code = "self.pools[task][:] += 1000; return replace(sample, items=sample.items + 1000)"
    with package(tmp_path, SAMPLER.format(facts="", code=code)):
        draws = ItemDraws({"first": range(60)}, {"first": ("acc",)}, kind="broken", seed=0)
        with pytest.raises(evomerge.JobError, match="is none of the task's search items"):
            draws.draw(1, 12)


@pytest.mark.parametrize("estimate", ["lambda o: 1 / 0", "lambda o: np.nan", "lambda o: 'x'"])
def test_an_estimate_that_is_no_number_ends_in_one_line(tmp_path: Path, estimate: str) -> None:
    code = f"return replace(sample, estimate={estimate}, offsets={{'acc': np.float32(0)}}, "
    code += "guesses={'acc': np.zeros(count)})"
    facts = "same_items=True, whole_only=True, learns=True"
    with package(tmp_path, SAMPLER.format(facts=facts, code=code)):
        draws = ItemDraws({"first": range(60)}, {"first": ("acc",)}, kind="broken", seed=0)
        drawn = draws.draw(1, 12).tasks["first"]
        assert type(drawn.offsets["acc"]) is float, "a record can hold it"
        scored = TaskItems(
            ids=tuple(sorted(drawn.items.tolist())), metrics={"acc": (1.0,) * len(drawn.items)}
        )
        with pytest.raises(evomerge.JobError, match="broken cannot estimate first"):
            drawn.mean(scored, "acc")


def test_findings_that_are_none_end_in_one_line(tmp_path: Path) -> None:
    code = "return sample\n    findings = None"
    with package(tmp_path, SAMPLER.format(facts="", code=code)):
        draws = ItemDraws({"first": range(60)}, {"first": ("acc",)}, kind="broken", seed=0)
        with pytest.raises(evomerge.JobError, match="broken cannot say its findings"):
            _ = draws.findings


def test_a_search_ends_with_that_line_and_keeps_what_it_has(tmp_path: Path, models: Path) -> None:
    code = "return replace(sample, items=sample.items + generation // 2 * 10**6)"
    with package(tmp_path, SAMPLER.format(facts="", code=code)):
        preparation = prepare(make_job(models, evaluation=evaluation(models, "broken")))
        study = create_study(tmp_path / "run", preparation.job)
        with pytest.raises(evomerge.JobError, match="generation 2 of sums_choice: item 1"):
            searched(study, preparation)
        assert len(study.trials_of("genome")) == 4


def test_one_that_says_that_its_items_stay_is_held_to_it(tmp_path: Path) -> None:
    with package(tmp_path, SAMPLER.format(facts="same_items=True", code="return sample")):
        draws = ItemDraws({"first": range(60)}, {"first": ("acc",)}, kind="broken", seed=0)
        draws.draw(1, 12)
        with pytest.raises(evomerge.JobError, match="differ from the first draw"):
            draws.draw(2, 12)


def test_a_class_that_is_no_sampler_is_refused_before_baselines_are_scored(
    tmp_path: Path, models: Path
) -> None:
    code = "from evomerge.job import DrawFacts\nclass BROKEN:\n    facts = DrawFacts()"
    with package(tmp_path, code):
        preparation = prepare(make_job(models, evaluation=evaluation(models, "broken")))
        study = create_study(tmp_path / "run", preparation.job)
        with pytest.raises(evomerge.JobError, match=r"its class is no evomerge.search.ItemSampler"):
            searched(study, preparation)
        assert not study.trials


@pytest.mark.parametrize(
    ("facts", "changes", "words"),
    [
        ("same_items=True", {"growing": True}, "growing: with draws: broken every generation has"),
        ("same_items=True", {"elites": 1}, "elites: with draws: broken every generation has the"),
        ("whole_only=True", {"racing": True}, "racing: broken give a score only all together, so"),
    ],
)
def test_its_facts_refuse_what_does_not_go_with_it(
    tmp_path: Path, models: Path, facts: str, changes: dict[str, Any], words: str
) -> None:
    with (
        package(tmp_path, SAMPLER.format(facts=facts, code="return sample")),
        pytest.raises(evomerge.JobError, match=words) as refused,
    ):
        prepare(make_job(models, evaluation=evaluation(models, "broken", **changes)))
    assert "\n" not in str(refused.value)


def test_what_asks_for_all_items_first_has_them_from_everyone_before(
    tmp_path: Path, models: Path
) -> None:
    facts = "learns=True, asks_all_first=True"
    with package(tmp_path, SAMPLER.format(facts=facts, code="return sample")):
        preparation = prepare(make_job(models, evaluation=evaluation(models, "broken")))
        study = searched(create_study(tmp_path / "run", preparation.job), preparation)
        every = {task: len(preparation.suite.items(task, "search")) for task in TASKS}
        assert all(one.items == every for one in study.trials_of("baseline"))
        counts = [one.item_count for one in study.trials_of("genome")]
        assert counts[:4] == [sum(every.values())] * 4
        assert max(counts[4:]) < sum(every.values())
