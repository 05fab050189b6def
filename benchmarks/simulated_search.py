"""Made-up merges whose true score is known, searched by evomerge's own loop without a model.

A record in memory and a pool that answers by formula stand where the study and the workers stand;
everything between them (draws, races, fidelity, elites, validation) is the product's. Imported by
search_quality.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluate.candidate import (
    Candidate,
    CandidateKey,
    Cost,
    Evaluation,
    Kind,
    Observer,
    Scored,
    TaskItems,
    count_items,
    ignore,
)
from evomerge.evaluate.metric import Means, Metric
from evomerge.evaluate.objective import Objective, Term, means_of
from evomerge.job import EvaluationSpec, JobSpec
from evomerge.recipe import Recipe, RecipeModel
from evomerge.search.ledger import Ledger
from evomerge.search.selection.finalists import Entrant
from evomerge.study import Trial

Array = NDArray[np.float64]

TASK, METRIC = "items", "acc"
SEARCH, VALIDATION, UNSEEN = 1000, 300, 2000


class Landscape:
    """Merges of n genes, and items that each think of a merge what they like.

    Quality falls quadratically from an optimum that is uniform in [0.1, 0.9], some genes mattering
    more than others (Dirichlet). An item is solved where its ease, plus the quality, plus a linear
    taste of its own for the genes, is above 0: so items disagree about what is better, and a search
    can fit them. At the start, 0.5 everywhere, some 0.69 of the items are solved.
    """

    def __init__(self, genes: int, seed: int) -> None:
        draw = np.random.default_rng((genes, seed))
        count = SEARCH + VALIDATION + UNSEEN
        self.genes = genes
        self.ease = draw.normal(0.5, 1.0, count)
        self.matters = draw.dirichlet(np.ones(genes))
        self.optimum = draw.uniform(0.1, 0.9, genes)
        self.taste = 1.6 * draw.normal(0.0, 1.0, (count, genes)) * np.sqrt(self.matters)
        self.start: Array = np.full(genes, 0.5)
        self.splits = {
            "search": tuple(range(SEARCH)),
            "validation": tuple(range(SEARCH, SEARCH + VALIDATION)),
            "test": tuple(range(SEARCH + VALIDATION, count)),
        }

    def outcomes(self, genome: Array, items: Sequence[int]) -> Array:
        """1 where the merge solves the item, else 0; (items,)."""
        chosen = np.asarray(items)
        better = self._quality(genome) - self._quality(self.start)
        margin = self.ease[chosen] + better + self.taste[chosen] @ (genome - self.start)
        return np.asarray(margin > 0.0, dtype=np.float64)

    def true_score(self, genome: Array) -> float:
        """Share of the unseen items that the merge solves."""
        return float(self.outcomes(genome, self.splits["test"]).mean())

    def _quality(self, genome: Array) -> float:
        return -float((self.matters * ((genome - self.optimum) / 0.5) ** 2).sum())


class BoxSpace:
    """The unit box; a genome is spelled out as the weights of a recipe, which nothing merges."""

    exclusive = False

    def __init__(self, genes: int) -> None:
        self.start: Array = np.full(genes, 0.5)
        self.genes = tuple(SimpleNamespace(binary=False, name=f"gene {i}") for i in range(genes))

    def decode(self, genome: Array) -> Recipe:
        """A recipe of its own for every genome."""
        text = np.asarray(genome, dtype=np.float64).tobytes().hex()
        return Recipe(merge_method="linear", models=(RecipeModel(model=text),))

    def encode(self, recipe: Recipe) -> Array | None:
        """The genome of a recipe that `decode` made; no other."""
        try:
            return np.frombuffer(bytes.fromhex(recipe.references[0]), dtype=np.float64).copy()
        except ValueError:
            return None

    def active(self, genome: Array) -> NDArray[np.bool_]:
        """Every gene has an effect."""
        return np.ones(genome.shape, dtype=np.bool_)


@dataclass
class MemoryStudy:
    """The record, in memory."""

    run_dir = "memory"

    def __post_init__(self) -> None:
        self.items = self
        self._trials: dict[CandidateKey, Trial] = {}
        self._results: dict[CandidateKey, Mapping[str, TaskItems]] = {}
        self._blocks: dict[tuple[CandidateKey, int], Scored] = {}
        self._notes: dict[str, object] = {}

    def find(self, key: CandidateKey) -> Trial | None:
        """See Study."""
        return self._trials.get(key)

    def trial(self, key: CandidateKey) -> Trial:
        """See Study."""
        return self._trials[key]

    def trials_of(self, kind: Kind) -> tuple[Trial, ...]:
        """See Study."""
        return tuple(t for _, t in sorted(self._trials.items()) if t.kind == kind)

    def items_of(self, key: CandidateKey) -> Mapping[str, TaskItems]:
        """See Study."""
        return self._results[key]

    def found_items_of(self, key: CandidateKey) -> Mapping[str, TaskItems]:
        """See Study."""
        return self._results[key]

    def lacks(self, key: CandidateKey) -> bool:
        """See Study."""
        return key not in self._trials

    def outcome_of(self, key: CandidateKey) -> Evaluation:
        """See Study."""
        return Scored(tasks=self._results[key])

    def noted(self, name: str) -> object:
        """See Study."""
        return self._notes.get(name)

    def note(self, name: str, value: object) -> None:
        """See Study."""
        self._notes[name] = value

    def read_block(self, candidate: Candidate, number: int) -> Scored | None:
        """See ItemFiles."""
        return self._blocks.get((candidate.key, number))

    def write_block(self, candidate: Candidate, number: int, outcome: Scored) -> None:
        """See ItemFiles."""
        self._blocks[candidate.key, number] = outcome

    def forget_blocks(self, key: CandidateKey) -> None:
        """See ItemFiles."""
        self._blocks = {at: block for at, block in self._blocks.items() if at[0] != key}

    def record(
        self,
        candidate: Candidate,
        outcome: Evaluation,
        *,
        score: float | None,
        means: Means | None = None,
        **_unused: object,
    ) -> Trial:
        """See Study."""
        assert isinstance(outcome, Scored)
        trial = Trial(
            key=candidate.key,
            kind=candidate.kind,
            label=candidate.label,
            recipe=candidate.recipe,
            genome=candidate.genome,
            score=score,
            means=means_of(outcome.tasks) if means is None else means,
            items={task: len(ids) for task, ids in candidate.items.items()},
            cost=outcome.cost,
            failure=None,
        )
        self._trials[candidate.key] = trial
        self._results[candidate.key] = outcome.tasks
        return trial


class FormulaPool:
    """Answers by the landscape; the base and the parents are merges far from the start."""

    def __init__(self, landscape: Landscape, models: Mapping[str, Array]) -> None:
        self._landscape = landscape
        self._models = models
        self._space = BoxSpace(landscape.genes)

    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Evaluation]]:
        """See Pool."""
        for candidate in candidates:
            genome = self.genome_of(candidate.recipe, candidate.genome)
            items = candidate.items[TASK]
            values = tuple(self._landscape.outcomes(genome, items).tolist())
            tasks = {TASK: TaskItems(ids=tuple(items), metrics={METRIC: values})}
            yield candidate, Scored(tasks=tasks, cost=Cost(items=count_items(candidate.items)))

    def genome_of(self, recipe: Recipe, genome: Sequence[float] | None = None) -> Array:
        """Where a recipe lies in the box; a default merge amid the models that it is of."""
        if genome is not None:
            return np.array(genome)
        encoded = self._space.encode(recipe)
        if encoded is not None:
            return encoded
        of = [self._models[reference] for reference in recipe.references]
        return np.asarray(np.mean(of, axis=0))


def simulated_ledger(landscape: Landscape, job: JobSpec) -> Ledger:
    """A ledger whose candidates are scored by formula; the base and parents are drawn by the job's
    seed, each gene a normal step of 0.25 away from the start."""
    draw = np.random.default_rng((landscape.genes, job.optimizer.seed, 1))
    names = (job.models.base, *job.models.sources)
    models = {
        name: np.clip(landscape.start + draw.normal(0.0, 0.25, landscape.genes), 0.0, 1.0)
        for name in names
    }
    metric = Metric(task=TASK, key=METRIC, higher_is_better=True)
    preparation = SimpleNamespace(
        job=job,
        suite=SimpleNamespace(items=lambda _task, split: landscape.splits[split], opened_count=0),
        alone={},
        objective=Objective(terms=[Term(metric=metric, weight=1.0)], aggregate="mean"),
        space=BoxSpace(landscape.genes),
        optimizer=job.optimizer,
        stage=0,
        winners={},
        out_dtype="float32",
        items_each=job.evaluation.items_each(genes=landscape.genes, tasks=1),
    )
    pool = FormulaPool(landscape, models)
    return _BareLedger(preparation=preparation, study=MemoryStudy(), pool=pool)  # type: ignore[arg-type]


class _BareLedger(Ledger):
    """Genes here have no names or values to show in a record."""

    def _parameters(self, genome: tuple[float, ...] | None) -> dict[str, object]:  # type: ignore[override]
        return {}


class SimulatedProblem:
    """A landscape as search_quality.py searches it.

    candidates: of a search that scores every candidate on all items; fewer fill its generations.
    items: what an economical one may score in all, below a twentieth of that. each: items of a
    candidate: evomerge's default.
    """

    candidates = 600
    items = 29_000

    def __init__(self, genes: int, seed: int) -> None:
        self.genes = genes
        self.each = EvaluationSpec().items_each(genes=genes, tasks=1)
        self._seed = seed
        self._landscape = Landscape(genes, seed)

    def reserve(self, *, validated: bool) -> int:
        """Items kept back for baselines (ten of them), and for eleven finalists on validation."""
        return 10 * 128 + (11 * VALIDATION if validated else 0)

    def open(
        self,
        *,
        evaluation: Mapping[str, object],
        optimizer: Mapping[str, object],
        budget: Mapping[str, int],
    ) -> Ledger:
        """A ledger over the landscape."""
        job = JobSpec.model_validate(
            {
                "name": "simulated",
                "models": {"base": "base", "sources": ["first", "second"]},
                "objectives": [{"task": TASK, "metric": METRIC}],
                "evaluation": {"items_for_baselines": 128, **evaluation},
                "optimizer": {"seed": self._seed, **optimizer},
                "budget": dict(budget),
            }
        )
        return simulated_ledger(self._landscape, job)

    def true_score(self, ledger: Ledger, entrant: Entrant) -> float:
        """On items that the search never saw."""
        return self._landscape.true_score(ledger.pool.genome_of(entrant.recipe, entrant.genome))  # type: ignore[attr-defined]

    def start_score(self, ledger: Ledger) -> float:
        """The same of the start of the space."""
        return self._landscape.true_score(self._landscape.start)
