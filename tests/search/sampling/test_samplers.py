"""evomerge's own ways to draw: each has one class, whose facts the rest of the house asks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evomerge
from evomerge.job import DRAWS, JobSpec, parse_job
from evomerge.job import draws as draws_of_jobs
from evomerge.search.sampling.samplers import BUILT_IN, sampler_of
from tests.search.jobs import job_document, make_job

PACKAGE = Path(evomerge.__file__).parent


def job(**evaluation: Any) -> JobSpec:
    given = job_document(Path("models"))["evaluation"]
    return make_job(Path("models"), evaluation={**given, **evaluation})


def test_every_way_to_draw_has_a_class_with_its_facts() -> None:
    assert list(BUILT_IN) == list(draws_of_jobs.BUILT_IN)
    for name, sampler in BUILT_IN.items():
        assert sampler_of(name) is sampler
        assert sampler.facts is DRAWS[name]


def comparisons(path: Path) -> Iterator[tuple[int, list[ast.AST]]]:
    """The line of every comparison, and of every case, in a module, and all that stands in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare | ast.MatchValue):
            yield (node.left if isinstance(node, ast.Compare) else node).lineno, [*ast.walk(node)]


def test_no_code_goes_by_the_name_of_a_way_to_draw() -> None:
    """Facts are asked instead. How anchors estimate is chosen by names of its own."""
    telling = {"informative", "fresh", "anchors"}  # the others are words of other things too
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        for line, parts in comparisons(path):
            said = {part.value for part in parts if isinstance(part, ast.Constant)}
            of_draws = any(isinstance(p, ast.Attribute) and p.attr == "draws" for p in parts)
            assert not (of_draws and said & set(BUILT_IN)), (place, line)
            assert not said & telling or place == "search/sampling/estimators.py", (place, line)


@pytest.mark.parametrize("draws", ["anchors", "fixed", "all"])
@pytest.mark.parametrize("field", ["growing", "elites"])
def test_the_same_items_for_all_generations_allow_no_growth_and_no_elites(
    draws: str, field: str
) -> None:
    with pytest.raises(evomerge.JobError) as refused:
        job(draws=draws, **{field: True if field == "growing" else 2})
    assert str(refused.value) == (
        f"job.yaml: evaluation: {field}: with draws: {draws} every generation has the same items; "
        "leave it out, or set draws to informative or fresh"
    )


def test_anchors_do_not_race_and_stand_for_one_metric() -> None:
    with pytest.raises(evomerge.JobError) as refused:
        job(draws="anchors", racing=True)
    assert str(refused.value) == (
        "job.yaml: evaluation: racing: anchors give a score only all together, so no candidate can "
        "be stopped early; leave it out, or set draws to another kind"
    )
    metrics = [{"task": "sums_choice", "metric": name} for name in ("acc", "acc_norm")]
    given = {**job_document(Path("models"))["evaluation"], "draws": "anchors"}
    with pytest.raises(evomerge.JobError) as refused:
        make_job(Path("models"), objectives=metrics, evaluation=given)
    assert str(refused.value) == (
        "job.yaml: evaluation.draws: anchors estimate one metric of a task, but sums_choice has "
        "several; name one, or set draws to another kind"
    )


@pytest.mark.parametrize("draws", BUILT_IN)
def test_all_but_anchors_race_where_nothing_is_said(draws: str) -> None:
    assert job(draws=draws).races is (draws != "anchors")
    assert not job(draws=draws, racing=False).races


@pytest.mark.parametrize(
    ("draws", "said"),
    [
        (
            "informative",
            "Every generation is scored on a fresh draw of search items, those on which candidates "
            "disagree more often and weighted for it; the last on 64 items.",
        ),
        (
            "fresh",
            "Every generation is scored on a fresh draw of search items; the last on 64 items.",
        ),
        ("anchors", "Every generation is scored on the same 64 items of the search items."),
        ("fixed", "Every generation is scored on the same 64 items of the search items."),
        ("all", "Every candidate that is not stopped early is scored on all search items."),
    ],
)
def test_the_report_says_which_items_were_scored(draws: str, said: str) -> None:
    assert job(draws=draws).evaluation.draw_facts.sentence("64 items") == said


def test_a_job_is_the_same_whatever_packages_offer() -> None:
    """The name is written as it was, so that records go on."""
    assert parse_job(job().to_yaml(), where="job").fingerprint() == job().fingerprint()
    assert job().model_dump(mode="json")["evaluation"]["draws"] == "informative"
