"""The ledger of a search: it scores candidates, records their trials and reads them back.

A candidate with a record is taken from its record; any other is scored and recorded. So a search
and its selection can be run again over a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import RunError, WorkerError
from evomerge.evaluate import (
    Candidate,
    CandidateKey,
    Cost,
    Evaluation,
    Failed,
    ItemIds,
    Kind,
    Means,
    Objective,
    Observer,
    Plan,
    Say,
    Scored,
    TaskItems,
    count_items,
    hush,
    ignore,
    means_of,
    unplanned,
)
from evomerge.search.baselines import BASE, parent_labels
from evomerge.study import FACTS, Parameter, Study, Trial, digest_items
from evomerge.workers import Pool, PreparedJob, opened_count, opened_files_of


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Scores the candidates of one search and keeps their trials."""

    preparation: PreparedJob
    study: Study
    pool: Pool
    observe: Observer = ignore
    say: Say = hush
    plan: Plan = unplanned
    _noted: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def complete(
        self, candidates: Sequence[Candidate], *, some_of: str = "", all_needed: bool = False
    ) -> list[Trial]:
        """The trials of all candidates, in order; those without a record are scored first.

        Candidates with lost or damaged item results are scored again. some_of: what the candidates
        are called, where at least one of them must be scored. all_needed: whether all of them must
        be scored. If they cannot be, WorkerError is raised. The failures that cause it are not
        recorded, so that the next run tries these candidates again.
        """
        for candidate in candidates:
            if self.study.find(candidate.key) is not None:
                self._recorded(candidate)
        missing = [candidate for candidate in candidates if self.study.lacks(candidate.key)]
        found = [self.study.find(candidate.key) for candidate in candidates]
        hold_back = bool(some_of) and all(t is None or t.failure is not None for t in found)
        failed: list[tuple[Candidate, Failed]] = []
        for candidate, outcome in self.pool.evaluate(missing, self.observe):
            if self.study.find(candidate.key) is not None:
                self._restore(candidate, outcome)
                continue
            if isinstance(outcome, Failed) and all_needed:
                raise WorkerError(f"{candidate.label} cannot be scored: {outcome.reason}")
            if isinstance(outcome, Failed) and hold_back:
                failed.append((candidate, outcome))
                continue
            hold_back = False
            for waiting in failed:
                self._record(*waiting)
            failed.clear()
            self._record(candidate, outcome)
        if failed:
            raise WorkerError(f"no {some_of} could be scored: {failed[0][1].reason}")
        return [self._recorded(candidate) for candidate in candidates]

    def _record(self, candidate: Candidate, outcome: Evaluation) -> None:
        objective = self.objective_of(candidate.key)
        means = {} if isinstance(outcome, Failed) else means_of(outcome.tasks)
        self.study.record(
            candidate,
            outcome,
            score=objective.score_of(outcome),
            means=objective.with_groups(means) if means else means,
            values=self._values(candidate.key, means) if means else None,
            parameters=self._parameters(candidate.genome),
        )
        self._note_opened()
        self.observe("recorded", candidate.key)

    def score_block(
        self, candidates: Sequence[Candidate], number: int, items: ItemIds
    ) -> list[Scored | Failed]:
        """Results of candidates of one generation on its block `number`, in order.

        They come from the candidates' records, or from the stored blocks of those without a record
        yet. The other candidates are scored, and their results on the block are stored.
        """
        on_block = [replace(candidate, items=items) for candidate in candidates]
        found = {candidate.key: self._block_of(candidate, number) for candidate in on_block}
        missing = [candidate for candidate in on_block if found[candidate.key] is None]
        for candidate, outcome in self.pool.evaluate(missing, self.observe):
            self._check_block(candidate.key, number, outcome)
            if isinstance(outcome, Scored):
                self.study.items.write_block(candidate, number, outcome)
            found[candidate.key] = outcome
        outcomes = [found[candidate.key] for candidate in candidates]
        return [outcome for outcome in outcomes if outcome is not None]

    def _block_of(self, candidate: Candidate, number: int) -> Scored | Failed | None:
        key, items = candidate.key, candidate.items
        trial = self.study.find(key)
        if trial is None:
            return self.study.items.read_block(candidate, number)
        if trial.failure is not None:
            if trial.blocks is not None and number >= len(trial.blocks):
                return Failed(reason=trial.failure)
            # The earlier blocks of a failed candidate are in block files only.
            kept = self.study.items.read_block(candidate, number)
            return Failed(reason=trial.failure) if kept is None and trial.blocks is None else kept
        recorded = self.study.found_items_of(key)
        if recorded is None:
            return self.study.items.read_block(candidate, number)
        if any(not set(ids) <= set(recorded[task].ids) for task, ids in items.items()):
            raise self._unlike(key)
        cost = Cost(items=count_items(items))
        return Scored(tasks={t: _part(recorded[t], ids) for t, ids in items.items()}, cost=cost)

    def _check_block(self, key: CandidateKey, number: int, outcome: Evaluation) -> None:
        """Refuse new results of a lost block where they differ from the recorded ones."""
        trial = self.study.find(key)
        if trial is None:
            return
        self._check_scored(key, outcome)
        assert isinstance(outcome, Scored)
        if trial.blocks is not None and trial.blocks[number:][:1] != (digest_items(outcome.tasks),):
            raise self.study.items.unlike(key)

    def _check_scored(self, key: CandidateKey, outcome: Evaluation) -> None:
        if isinstance(outcome, Failed):
            raise RunError(
                f"{self.study.run_dir}: the item results of {key} were lost or damaged, and it "
                f"could not be scored again ({outcome.reason}); try again, or put its file back"
            )

    def _restore(
        self, candidate: Candidate, outcome: Evaluation, *, means: Means | None = None
    ) -> None:
        self._check_scored(candidate.key, outcome)
        assert isinstance(outcome, Scored)
        means = means_of(outcome.tasks) if means is None else means
        self.study.restore_items(candidate.key, outcome.tasks, means=means, answers=outcome.answers)

    def conclude(
        self,
        candidate: Candidate,
        outcome: Evaluation,
        *,
        means: Means,
        blocks: Sequence[Scored] | None = None,
    ) -> Trial:
        """Record a candidate that was scored in blocks, unless it is recorded.

        candidate: with the items of all its blocks. means: estimates of the tasks' scores. blocks:
        its results on each block, without the block that it failed in.
        """
        recorded = self.study.find(candidate.key)
        if recorded is None:
            objective = self.objective_of(candidate.key)
            self.study.record(
                candidate,
                outcome,
                score=None if isinstance(outcome, Failed) else objective.score(means),
                means=objective.with_groups(means) if isinstance(outcome, Scored) else means,
                values=None if isinstance(outcome, Failed) else self._values(candidate.key, means),
                parameters=self._parameters(candidate.genome),
                blocks=blocks,
            )
            self._note_opened()
            self.observe("recorded", candidate.key)
        elif self.study.lacks(candidate.key):
            self._recorded(candidate)
            self._restore(candidate, outcome, means=means)
        if isinstance(outcome, Scored):  # a failed candidate has no other item results
            self.study.items.forget_blocks(candidate.key)
        return self._recorded(candidate)

    def _note_opened(self) -> None:
        """Add the files that tasks have read since to the facts that the search depends on."""
        count = opened_count(self.preparation)
        if self._noted.get("opened") == count:
            return
        self._noted["opened"] = count
        facts = self.study.noted(FACTS)
        if facts is not None and "opened" in facts:
            opened = {**opened_files_of(self.preparation), **facts["opened"]}
            if opened != facts["opened"]:
                self.study.note(FACTS, {**facts, "opened": opened})

    def _recorded(self, candidate: Candidate) -> Trial:
        """A candidate's trial; a record of another candidate under its key is refused."""
        trial = self.study.trial(candidate.key)
        items = {task: len(ids) for task, ids in candidate.items.items()}
        same = (trial.genome, trial.recipe, trial.items) == (
            candidate.genome,
            candidate.recipe,
            items,
        )
        if not same:
            raise self._unlike(candidate.key)
        return trial

    def _unlike(self, key: CandidateKey) -> RunError:
        return RunError(
            f"{self.study.run_dir}: {key} is recorded as another candidate than this machine and "
            "these versions propose; resume where the search began"
        )

    def fitness(self, trials: Sequence[Trial], thresholds: Sequence[float]) -> NDArray[np.float64]:
        """Fitness of recorded trials, (n,); lower is better, failed ones are worse than all."""
        means = [trial.means for trial in trials]
        objective = self.objective_of(trials[0].key) if trials else self.preparation.objective
        return objective.fitness(means, thresholds=thresholds)

    def thresholds(self) -> tuple[float, ...]:
        """The threshold of each constraint, from the baseline scores of the base and parents."""
        baselines = {trial.label: trial for trial in self.study.trials_of("baseline")}
        parents = parent_labels(self.preparation.job.models.sources)
        base, *sources = (baselines[label].means for label in (BASE, *parents))
        return self.preparation.objective.thresholds(
            base=base or None, sources=[means for means in sources if means]
        )

    def fittest(self, kind: Kind) -> list[Trial]:
        """Recorded candidates of a kind, the fittest first; failed ones are left out.

        Each is measured on the items of its own generation, so the order is noisy.
        """
        trials = [trial for trial in self.study.trials_of(kind) if trial.score is not None]
        order = np.argsort(self.fitness(trials, self.thresholds()), kind="stable")
        return [trials[place] for place in order]

    def objective_of(self, key: CandidateKey) -> Objective:
        """The objective on the items of the split that a candidate is scored on."""
        return self.preparation.objective.on(key.split)

    def _values(self, key: CandidateKey, means: Means) -> tuple[float, ...] | None:
        """The score on each axis, for the record; None where there is one score."""
        pareto = self.preparation.job.mode == "pareto"
        return self.objective_of(key).values(means) if pareto else None

    def _parameters(self, genome: tuple[float, ...] | None) -> dict[str, Parameter]:
        """Values of the genes as people read them; in later stages with the stage's name.

        Optuna allows one range for a name in a whole study, and two stages may use one gene name.
        """
        if genome is None:
            return {}
        preparation = self.preparation
        stage = f"{preparation.search.name}/" if preparation.stage else ""
        return {
            stage + gene.name: Parameter(
                value=min(max(gene.value(position), gene.low), gene.high),
                low=gene.low,
                high=gene.high,
                log=gene.scale == "log",
            )
            for gene, position in zip(self.preparation.space.genes, genome, strict=True)
        }


def _part(scored: TaskItems, ids: Sequence[int]) -> TaskItems:
    places = {item: place for place, item in enumerate(scored.ids)}
    return TaskItems(
        ids=tuple(ids),
        metrics={m: tuple(values[places[i]] for i in ids) for m, values in scored.metrics.items()},
    )
