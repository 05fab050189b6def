"""The result of a search whose record is here, in Python: values, tables, and the next steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.api.answers import answer_sheet, answer_table
from evomerge.api.base_result import BaseResult
from evomerge.api.deliveries import export_run, recipe_of, report_run
from evomerge.api.tables import item_table
from evomerge.evaluate import CandidateKey, Split
from evomerge.recipe import Recipe
from evomerge.search import outcome_of
from evomerge.study import Study, Trial, read_study

if TYPE_CHECKING:
    import pandas

    from evomerge.export import ExportReport


class SearchResult(BaseResult):
    """The state of a search by its record: finished, stopped, or still running elsewhere.

    Made by `evomerge.search`, `evomerge.resume` and `evomerge.open_run`. The outcome is read from
    the record at that moment; the tables are read when you call them.
    """

    def __init__(self, study: Study) -> None:
        super().__init__(
            run_dir=study.run_dir,
            job=study.job,
            outcome=outcome_of(study),
            candidates=len(study.trials_of("genome")),
        )

    def recipe(  # noqa: D102
        self, *, trial: str | CandidateKey | None = None, point: str | None = None
    ) -> Recipe:
        return recipe_of(self.run_dir, trial=None if trial is None else str(trial), point=point)

    def trials_dataframe(self) -> pandas.DataFrame:  # noqa: D102
        import pandas

        with read_study(self.run_dir) as study:
            return pandas.DataFrame([row_of(trial) for trial in study.trials])

    def items_dataframe(  # noqa: D102
        self, candidates: str | CandidateKey | Iterable[str | CandidateKey] | None = None
    ) -> pandas.DataFrame:
        if isinstance(candidates, str | CandidateKey):
            candidates = [candidates]
        with read_study(self.run_dir) as study:
            wanted = (
                study.trials
                if candidates is None
                else [study.trial(CandidateKey.parse(str(name))) for name in candidates]
            )
            return item_table(items_of(study, wanted))

    def answers(  # noqa: D102
        self,
        models: str | Iterable[str] = (),
        *,
        lost: bool = False,
        gained: bool = False,
        differ: bool = False,
        task: str | None = None,
        item: int | None = None,
        split: Split | None = None,
    ) -> pandas.DataFrame:
        sheet = answer_sheet(
            self.run_dir,
            models,
            lost=lost,
            gained=gained,
            differ=differ,
            task=task,
            item=item,
            split=split,
        )
        return answer_table(sheet.shown().to_json()["items"])

    def export(  # noqa: D102
        self,
        out: str | Path,
        *,
        verify: bool = False,
        trial: str | CandidateKey | None = None,
        point: str | None = None,
        as_adapter: bool = False,
        rank: int | None = None,
        push: str | None = None,
        public: bool = False,
    ) -> ExportReport:
        return export_run(
            self.run_dir,
            Path(out),
            verify=verify,
            trial=None if trial is None else str(trial),
            point=point,
            as_adapter=as_adapter,
            rank=rank,
            push=push,
            public=public,
        )

    def report(self, out: str | Path | None = None) -> Path:  # noqa: D102
        return report_run(self.run_dir, None if out is None else Path(out))


def items_of(study: Study, trials: Iterable[Trial]) -> Iterator[dict[str, Any]]:
    """Item results in plain values, candidate by candidate, task by task; failed ones have none.

    items: numbers of the items; metrics: metric -> the values in the same order. Raises RunError
    where results are lost or damaged.
    """
    for trial in trials:
        if trial.failure is None:
            for task, items in study.items_of(trial.key).items():
                yield {
                    "candidate": str(trial.key),
                    "task": task,
                    "items": list(items.ids),
                    "metrics": {name: list(values) for name, values in items.metrics.items()},
                }


def row_of(trial: Trial) -> dict[str, Any]:
    """A candidate in plain values, as a row of `trials_dataframe`."""
    return {
        "candidate": str(trial.key),
        "phase": trial.key.phase,
        "generation": trial.key.generation,
        "kind": trial.kind,
        "label": trial.label,
        "stage": trial.stage,
        "score": trial.score,
        "items": trial.item_count,
        "merge_s": trial.cost.merge_s,
        "evaluate_s": trial.cost.evaluate_s,
        "failure": trial.failure,
        **{f"{t}/{m}": mean for t, means in trial.means.items() for m, mean in means.items()},
        **{f"gene: {name}": value for name, value in trial.parameters.items()},
    }
