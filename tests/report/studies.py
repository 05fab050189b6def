"""A made-up search, recorded as real ones are, at whatever point the caller wants it to stop.

Nothing is merged: scores are drawn around a quality that grows with the generation.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

from evomerge.evaluate.candidate import (
    MOST_FINALISTS,
    Candidate,
    CandidateKey,
    Cost,
    Evaluation,
    Failed,
    Kind,
    Scored,
    Step,
    TaskItems,
)
from evomerge.evaluate.inference.intervals import Interval
from evomerge.evaluate.inference.summary import Role, ScoreSummary
from evomerge.job import JobSpec
from evomerge.recipe import Condition, Recipe, RecipeModel, Setting
from evomerge.search.results.selection import ConstraintCheck, Selection
from evomerge.sources import Stack, Structure
from evomerge.study import Parameter, Study

BASE = "/models/kana/base"
SOURCES = ("/models/kana/arithmetic", "/models/kana/japanese")
TASKS = ("kana_arithmetic", "kana_comparison")
DEPTH = 12
QUALITY = {"base": 0.31, "arithmetic": 0.43, "japanese": 0.47}
MERGES = {
    "uniform soup": 0.49,
    "soup of arithmetic + japanese": 0.5,
    "task arithmetic": 0.52,
    "TIES": 0.45,
    "DARE-TIES": 0.44,
    "SLERP": 0.495,
}
FAILURE = "non-finite logits in kana_arithmetic: the merge overflowed"


def make_job(**changes: object) -> JobSpec:
    document = {
        "name": "kana-arithmetic",
        "models": {"base": BASE, "sources": list(SOURCES)},
        "objectives": [{"task": task, "metric": "exact_match"} for task in TASKS],
        "constraints": [
            {"task": "kana_counting", "metric": "exact_match", "at_least": 0.9, "of": "best_source"}
        ],
        "report": ["kana_translation"],
        "evaluation": {"items_per_generation": 128, "items_for_baselines": 512},
        "budget": {"candidates": 80},
        **changes,
    }
    return JobSpec.model_validate(document)


def make_structure(depth: int = DEPTH) -> Structure:
    layer = [
        "input_layernorm.weight",
        *(f"self_attn.{part}_proj.weight" for part in "qkvo"),
        "post_attention_layernorm.weight",
        *(f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
    ]
    names = [
        "model.embed_tokens.weight",
        *(f"model.layers.{i}.{suffix}" for i in range(depth) for suffix in layer),
        "model.norm.weight",
        "lm_head.weight",
    ]
    return Structure(
        architecture="LlamaForCausalLM",
        stacks=(Stack("model.layers.", depth),),
        shapes=dict.fromkeys(names, (8, 8)),
        dtype="float32",
        tied=False,
    )


def alone(reference: str) -> Recipe:
    return Recipe(merge_method="linear", models=(RecipeModel(model=reference),))


def merge_of(weights: Mapping[str, Setting], method: str = "task_arithmetic") -> Recipe:
    models = tuple(
        RecipeModel(model=reference, parameters={"weight": weight})
        for reference, weight in weights.items()
    )
    return Recipe(
        merge_method=method,
        base_model=BASE,
        models=models,
        parameters={"lambda": 1.0, "normalize": False},
        out_dtype="float32",
        evomerge={"seed": 0},
    )


def layered(seed: int) -> Recipe:
    """Weights by layer and component, as a per-layer space writes them."""
    draw = random.Random(seed)

    def gradient(centre: float) -> tuple[float, ...]:
        slope = draw.uniform(-0.5, 0.5)
        return tuple(
            round(centre + slope * (i / (DEPTH - 1) - 0.5) + draw.gauss(0, 0.04), 4)
            for i in range(DEPTH)
        )

    return merge_of(
        {
            source: (
                Condition(filter="self_attn", value=gradient(0.55)),
                Condition(filter="mlp", value=gradient(0.7)),
                Condition(filter=None, value=round(draw.uniform(0.3, 0.6), 4)),
            )
            for source in SOURCES
        }
    )


class MadeUpSearch:
    """Records candidates one by one; a stop is where the caller stops iterating `steps`."""

    def __init__(
        self,
        study: Study,
        *,
        seed: int = 0,
        generations: int = 8,
        population: int = 10,
        failure: str = FAILURE,
    ) -> None:
        self.study = study
        self.failure = failure
        self.generations = generations
        self.population = population
        self._draw = random.Random(seed)

    def steps(self) -> Iterator[tuple[Step, CandidateKey]]:
        """What a search would call its observer with, after it has happened."""
        yield from self.baselines()
        for number in range(1, self.generations + 1):
            yield from self.generation(number)
        yield from self.finalists(-1, 5)
        yield from self.finalists(-2, 5)

    def baselines(self) -> Iterator[tuple[Step, CandidateKey]]:
        place = 0
        for reference in (BASE, *SOURCES):
            label = reference.rpartition("/")[2]
            quality = QUALITY[label]
            key = CandidateKey(0, place)
            yield from self._score(key, "baseline", label, alone(reference), quality, 512)
            place += 1
        for label, quality in MERGES.items():
            recipe = merge_of(dict.fromkeys(SOURCES, 0.5))
            key = CandidateKey(0, place)
            yield from self._score(key, "baseline", label, recipe, quality, 512)
            place += 1

    def generation(self, number: int) -> Iterator[tuple[Step, CandidateKey]]:
        yield "asked", CandidateKey(number, 0)
        for place in range(self.population):
            key = CandidateKey(number, place)
            grown = 0.46 + 0.14 * (1 - 0.75**number)
            quality = min(0.9, grown + self._draw.gauss(0, 0.05))
            failing = (number * self.population + place) % 23 == 11
            yield from self._propose(key, quality, failing)
        yield "told", CandidateKey(number, 0)

    def _propose(
        self, key: CandidateKey, quality: float, failing: bool
    ) -> Iterator[tuple[Step, CandidateKey]]:
        """A candidate of the optimiser."""
        recipe = layered(hash((key.generation, key.place)))
        yield from self._score(
            key,
            "genome",
            str(key),
            recipe,
            quality,
            128,
            failing,
            genome=(quality, 0.5),
            parameters={"w": Parameter(value=quality, low=0.0, high=1.0)},
        )

    def finalists(self, generation: int, count: int) -> Iterator[tuple[Step, CandidateKey]]:
        for place in range(count):
            key = CandidateKey(generation, self.generations * MOST_FINALISTS + place)
            label = "mean of the second half" if place == 0 else f"g0008-i00{place}"
            yield from self._score(key, "finalist", label, layered(place), 0.57, 200)

    def _score(
        self,
        key: CandidateKey,
        kind: Kind,
        label: str,
        recipe: Recipe,
        quality: float,
        items: int,
        failing: bool = False,
        genome: tuple[float, ...] | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        hops: tuple[int, int] = (0, 0),
    ) -> Iterator[tuple[Step, CandidateKey]]:
        if self.study.find(key) is None:
            tasks = (*TASKS, "kana_counting")
            share = {task: tuple(range(items // len(tasks))) for task in tasks}
            candidate = Candidate(
                key=key,
                kind=kind,
                label=label,
                recipe=recipe,
                items=share,
                genome=genome,
                stage=len(recipe.stages),
            )
            yield "merged", key
            outcome = self._outcome(share, quality, failing, hops)
            score = None
            if isinstance(outcome, Scored):
                yield "scored", key
                means = [outcome.tasks[task].mean("exact_match") for task in TASKS]
                score = sum(means) / len(means)
            self.study.record(candidate, outcome, score=score, parameters=parameters)
            yield "recorded", key

    def _outcome(
        self,
        share: Mapping[str, tuple[int, ...]],
        quality: float,
        failing: bool,
        hops: tuple[int, int],
    ) -> Evaluation:
        items = sum(map(len, share.values()))
        merge_s = self._draw.uniform(0.8, 1.2)
        if failing:
            return Failed(reason=self.failure, cost=Cost(merge_s=merge_s, items=items))
        tasks = {
            task: TaskItems(
                ids=ids,
                metrics={"exact_match": tuple(float(self._draw.random() < quality) for _ in ids)},
            )
            for task, ids in share.items()
        }
        evaluate_s = items * self._draw.uniform(0.018, 0.022)
        return Scored(
            tasks=tasks,
            cost=Cost(
                merge_s=merge_s,
                evaluate_s=evaluate_s,
                forward_s=0.9 * evaluate_s,
                items=items,
                hops=hops[0],
                shared_hops=hops[1],
            ),
        )


def run_through(
    steps: Iterator[tuple[Step, CandidateKey]],
    observe: Callable[[Step, CandidateKey], None] = lambda step, key: None,
) -> None:
    for step, key in steps:
        observe(step, key)


def make_selection(
    *, gain: float = 0.12, after: int = 8, winner: str = "average of the second half's means"
) -> Selection:
    tasks = (*TASKS, "kana_counting", "kana_translation")
    parent = QUALITY["japanese"]
    finalists = [
        summary(winner, "finalist", parent + gain + 0.01, tasks[:3]),
        summary("last mean", "finalist", 0.46, tasks[:3]),
        summary("g0006-i004", "finalist", 0.45, tasks[:3]),
        summary("task arithmetic", "baseline", 0.44, tasks[:3]),
    ]
    tested = [
        summary(winner, "winner", parent + gain, tasks),
        summary("base", "base", QUALITY["base"], tasks),
        summary("arithmetic", "parent", QUALITY["arithmetic"], tasks),
        summary("japanese", "parent", parent, tasks),
        summary("uniform soup", "baseline", MERGES["uniform soup"], tasks),
    ]
    soup = parent + gain - MERGES["uniform soup"]
    return Selection(
        winner=winner,
        recipe=layered(3),
        genome=(0.5, 0.5),
        test_key=CandidateKey(-2, after * MOST_FINALISTS),
        validation=tuple(finalists),
        test=tuple(tested),
        best_parent="japanese",
        gain=Interval(value=gain, low=gain - 0.04, high=gain + 0.04),
        gain_over_soup=Interval(value=soup, low=soup - 0.04, high=soup + 0.04),
        constraints=(
            ConstraintCheck(task="kana_counting", metric="exact_match", score=0.61, wanted=0.58),
        ),
        items={
            "validation": dict.fromkeys(tasks[:3], 66),
            "test": dict.fromkeys(tasks, 100),
        },
    )


def summary(label: str, role: Role, quality: float, tasks: tuple[str, ...]) -> ScoreSummary:
    draw = random.Random(f"{label} {role}")
    return ScoreSummary(
        label=label,
        role=role,
        score=interval(quality, 0.035),
        tasks={
            task: {"exact_match": interval(quality + draw.uniform(-0.12, 0.12), 0.05)}
            for task in tasks
        },
    )


def interval(value: float, half: float) -> Interval:
    return Interval(value=value, low=max(0.0, value - half), high=min(1.0, value + half))
