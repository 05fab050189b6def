"""Made-up searches of routes: alone, and as the second stage of a job.

Genomes are drawn around a route that grows clearer with the generation; the space that decodes them
is the real one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from evomerge.evaluate.candidate import CandidateKey, Step
from evomerge.job import JobSpec
from evomerge.recipe import Recipe
from evomerge.search.results.selection import Selection
from evomerge.space import SearchSpace, build_space
from evomerge.study import Parameter, Study
from evomerge.study.notes import STAGES
from tests.report.studies import (
    BASE,
    SOURCES,
    MadeUpSearch,
    layered,
    make_job,
    make_selection,
    make_structure,
)

ROUTES = {"repeats": 2, "scales": {"per": "hop", "low": 0.7, "high": 1.4}, "max_layers": "150%"}
MERGE = "merge"
WANTED = {1: {SOURCES[1]: range(3, 9)}, 2: {SOURCES[1]: range(7, 10)}}
"""pass -> model -> layers that the search comes to, beside the leading model's own."""

LEFT = (4, 5, 8)
"""Layers of the leading model that it leaves."""

HOPS, SHARED = 480, 180
"""Passes through a layer that each candidate asks for, and those that are shared."""


def make_space(stages: Mapping[str, Recipe] | None = None) -> SearchSpace:
    return build_space(
        {"routes": ROUTES},
        base=BASE,
        sources=(*list(stages or ())[-1:], *SOURCES),
        structure=make_structure(),
        out_dtype="float32",
        seed=0,
        stages=stages,
    )


def route_job() -> JobSpec:
    return make_job(search_space={"routes": ROUTES})


def hybrid_job() -> JobSpec:
    return make_job(
        stages=[
            {"name": MERGE, "search_space": "per_layer_task_arithmetic"},
            {"name": "data_flow", "search_space": {"routes": ROUTES}},
        ]
    )


class MadeUpRouteSearch(MadeUpSearch):
    """Candidates are routes; `after`: the last generation of the stages before."""

    def __init__(
        self,
        study: Study,
        *,
        space: SearchSpace,
        after: int = 0,
        generations: int = 8,
        population: int = 10,
    ) -> None:
        super().__init__(study, generations=after + generations, population=population)
        self.space = space
        self.after = after
        self._genes = random.Random(1)

    def genome(self, number: int) -> tuple[float, ...]:
        """(n,) in [0, 1]: one of generation `number` of this stage; the wanted route for 0."""
        learnt = 1.0 - 0.75**number if number else 1.0
        noise = 0.25 if number else 0.0
        genome = []
        for gene, start in zip(self.space.genes, self.space.start, strict=True):
            assert gene.layers is not None
            layer, passing = int(gene.layers[0]), int(gene.name.split(".")[1])
            if gene.binary:
                taken = layer in WANTED[passing].get(str(gene.source), ())
                if start:
                    taken = layer not in LEFT
                middle = (1.0 - learnt) * start + learnt * taken
            else:
                middle = start + learnt * (0.3 if layer % 5 == 3 else 0.0)
            genome.append(min(max(middle + noise * self._genes.gauss(0.0, 1.0), 0.0), 1.0))
        return tuple(genome)

    def decode(self, genome: tuple[float, ...]) -> Recipe:
        return self.space.decode(np.array(genome))

    def _propose(
        self, key: CandidateKey, quality: float, failing: bool
    ) -> Iterator[tuple[Step, CandidateKey]]:
        genome = self.genome(key.generation - self.after)
        yield from self._score(
            key,
            "genome",
            str(key),
            self.decode(genome),
            quality,
            128,
            failing,
            genome=genome,
            parameters=self._parameters(genome),
            hops=(HOPS, SHARED),
        )

    def _parameters(self, genome: tuple[float, ...]) -> dict[str, Parameter]:
        return {
            gene.name: Parameter(
                value=min(max(gene.value(at), gene.low), gene.high), low=gene.low, high=gene.high
            )
            for gene, at in zip(self.space.genes, genome, strict=True)
        }


class MadeUpHybrid:
    """Three generations of merges, of which the winner is noted, then routes over it."""

    FIRST = 3

    def __init__(self, study: Study, *, generations: int = 5, population: int = 6) -> None:
        self.study = study
        self.merges = MadeUpSearch(study, generations=self.FIRST, population=population)
        self.winner = layered(7)
        self.routes = MadeUpRouteSearch(
            study,
            space=make_space({MERGE: self.winner}),
            after=self.FIRST,
            generations=generations,
            population=population,
        )

    def first_stage(self) -> Iterator[tuple[Step, CandidateKey]]:
        yield from self.merges.baselines()
        for number in range(1, self.FIRST + 1):
            yield from self.merges.generation(number)
        yield from self.merges.finalists(-1, 5)
        ended = {"name": MERGE, "generations": self.FIRST, "recipe": self.winner.to_yaml()}
        self.study.note(STAGES, [ended])

    def steps(self) -> Iterator[tuple[Step, CandidateKey]]:
        yield from self.first_stage()
        for number in range(self.FIRST + 1, self.routes.generations + 1):
            yield from self.routes.generation(number)
        yield from self.routes.finalists(-1, 5)
        yield from self.routes.finalists(-2, 5)


def select_route(search: MadeUpRouteSearch) -> Selection:
    genome = search.genome(0)
    selection = make_selection(after=search.generations)
    return replace(selection, recipe=search.decode(genome), genome=genome)
