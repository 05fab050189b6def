"""A made-up search that has ended, with what its models answered on the test items.

Each model answers twenty items in words and ten by choices; which of them are right, and which are
cut off at the limit of eight tokens, is written here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from evomerge.evaluate.answers import Answers, ItemAnswer, Question, TaskAnswers
from evomerge.evaluate.candidate import Candidate, CandidateKey, Kind, Phase, Scored, TaskItems
from evomerge.evaluate.inference.intervals import Interval
from evomerge.evaluate.inference.summary import Role
from evomerge.job import JobSpec
from evomerge.recipe import Recipe, RecipeModel
from evomerge.search.results.selection import Selection
from evomerge.study import SELECTION, Study, create_study
from tests.report.studies import BASE, SOURCES, layered, make_selection, summary

SAID, CHOSEN = "kana_said", "kana_chosen"
ITEMS = 20
CHOICES = ("a dog", "a cat")
WINNER = "average of the second half's means"


_KINDS: dict[Phase, Kind] = {
    "baselines": "baseline",
    "search": "genome",
    "validation": "finalist",
    "test": "finalist",
}


@dataclass(frozen=True, kw_only=True)
class MadeUp:
    """A model: the items it answers rightly in words, those cut off, and what it says."""

    label: str
    role: Role
    right: Collection[int]
    cut: Collection[int] = ()
    says: str = "answer"
    counts: bool = True


MODELS = (
    MadeUp(label=WINNER, role="winner", right=range(12), cut=range(0)),
    MadeUp(label="base", role="base", right=()),
    MadeUp(label="arithmetic", role="parent", right=range(3)),
    MadeUp(label="japanese", role="parent", right=range(8, 16), cut=range(9)),
    MadeUp(label="uniform soup", role="baseline", right=(19,)),
)
"""Of the winner against japanese: 0 to 7 are gained, 12 to 15 lost; 19 differs otherwise."""


def make_job(**changes: object) -> JobSpec:
    document = {
        "name": "kana",
        "models": {"base": BASE, "sources": list(SOURCES)},
        "objectives": [
            {"task": SAID, "metric": "exact_match"},
            {"task": CHOSEN, "metric": "acc"},
        ],
        "budget": {"candidates": 8},
        **changes,
    }
    return JobSpec.model_validate(document)


@contextmanager
def answered(
    run_dir: Path, models: Collection[MadeUp] = MODELS, *, keep: bool = True
) -> Iterator[Study]:
    """The record of the search, open. keep: whether answers were kept."""
    with create_study(run_dir, make_job()) as study:
        genome = MadeUp(label="g0008-i000", role="finalist", right=range(9))
        record(study, CandidateKey(8, 0), genome, keep=False)
        for place, model in enumerate(models):
            record(study, CandidateKey(-2, 8000 + place), model, keep=keep)
        study.note(SELECTION, selection(models).to_json())
        yield study


def record(study: Study, key: CandidateKey, model: MadeUp, *, keep: bool = True) -> None:
    """Record a model's results on the items, and its answers."""
    candidate = Candidate(
        key=key,
        kind=_KINDS[key.phase],
        label=model.label,
        recipe=recipe_of(model),
        items={SAID: tuple(range(ITEMS)), CHOSEN: tuple(range(10))},
        keep_answers=keep,
    )
    tasks = {
        SAID: TaskItems(
            ids=tuple(range(ITEMS)),
            metrics={"exact_match": tuple(float(i in model.right) for i in range(ITEMS))},
        ),
        CHOSEN: TaskItems(ids=tuple(range(10)), metrics={"acc": (1.0,) * 10}),
    }
    outcome = Scored(tasks=tasks, answers=answers_of(model) if keep else {})
    study.record(candidate, outcome, score=len(model.right) / ITEMS)


def recipe_of(model: MadeUp) -> Recipe:
    known = {"base": BASE, "arithmetic": SOURCES[0], "japanese": SOURCES[1]}
    if model.label in known:
        return Recipe(merge_method="linear", models=(RecipeModel(model=known[model.label]),))
    return layered(sum(map(ord, model.label)))


def answers_of(model: MadeUp) -> Answers:
    said = tuple(
        ItemAnswer(
            item=item,
            question=Question(prompt=f"What is\n{item} and one?", target=str(item + 1)),
            text=f"{model.says} {item + 1 if item in model.right else 0}",
            characters=len(model.says) + 2,
            tokens=(8 if item in model.cut else 3) if model.counts else None,
            cut=item in model.cut if model.counts else None,
        )
        for item in range(ITEMS)
    )
    chosen = tuple(
        ItemAnswer(
            item=item,
            question=Question(prompt=f"Which is {item}?", target="a cat", choices=CHOICES),
            loglikelihoods=(-2.5, -1.25),
        )
        for item in range(10)
    )
    return {SAID: TaskAnswers(items=said), CHOSEN: TaskAnswers(items=chosen)}


def selection(models: Collection[MadeUp] = MODELS) -> Selection:
    """The outcome over these models."""
    tested = [summary(m.label, m.role, len(m.right) / ITEMS, (SAID, CHOSEN)) for m in models]
    parents = {m.label: len(m.right) for m in models if m.role == "parent"}
    return replace(
        make_selection(),
        winner=next(m.label for m in models if m.role == "winner"),
        test_key=CandidateKey(-2, 8000),
        test=tuple(tested),
        best_parent=max(parents, key=lambda label: parents[label]),
        gain=Interval(value=0.1, low=0.02, high=0.18),
        comparisons=(),
        constraints=(),
        items={"validation": {SAID: 9, CHOSEN: 9}, "test": {SAID: ITEMS, CHOSEN: 10}},
    )


def paths(run_dir: Path) -> Mapping[str, Path]:
    """The file of each model's answers, by the model's label."""
    keys = {m.label: CandidateKey(-2, 8000 + place) for place, m in enumerate(MODELS)}
    return {label: run_dir / "answers" / f"{key}.parquet" for label, key in keys.items()}
