"""The results of jobs on a server, in Python: those that the functions of `evomerge` return."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from evomerge.api import BaseResult
from evomerge.evaluate import CandidateKey, Split
from evomerge.recipe import Recipe, read_recipe
from evomerge.service.client.connection import Connection, ServerError

if TYPE_CHECKING:
    import pandas

    from evomerge.calibrate import Written
    from evomerge.check import CheckReport
    from evomerge.evaluate import ScoreSummary
    from evomerge.export import ExportReport
    from evomerge.grid import GridOutcome

T = TypeVar("T")

Export = Callable[..., "ExportReport"]

_CANDIDATES = 20
"""Candidates whose item results a server gives at once."""
_ANSWERS = 500
"""Items whose answers a server gives at once."""


class RemoteResult(BaseResult):
    """The state of a search on a server by its record, with all that `SearchResult` has.

    The outcome is what the record held when this was made; the tables are asked for when you call
    them. `run_dir` is the id of the job, which stands for the folder on the server.
    """

    def __init__(self, connection: Connection, job_id: str, export: Export) -> None:
        from evomerge.job import parse_job
        from evomerge.search import read_outcome

        self._connection = connection
        self._path = f"/jobs/{job_id}"
        self._export = export
        found = connection.get(f"{self._path}/record")
        outcome = found["outcome"]
        super().__init__(
            run_dir=Path(job_id),
            job=parse_job(found["job"], where=f"the job of {job_id}"),
            outcome=None if outcome is None else read_outcome(outcome),
            candidates=found["candidates"],
        )

    def recipe(  # noqa: D102
        self, *, trial: str | CandidateKey | None = None, point: str | None = None
    ) -> Recipe:
        wanted = {"trial": None if trial is None else str(trial), "point": point}
        answer = self._connection.request("GET", f"{self._path}/recipe", params=wanted)
        return read_recipe(answer.text, where=f"the recipe of {self.run_dir}")

    def trials_dataframe(self) -> pandas.DataFrame:  # noqa: D102
        import pandas

        return pandas.DataFrame(self._candidates())

    def items_dataframe(  # noqa: D102
        self, candidates: str | CandidateKey | Iterable[str | CandidateKey] | None = None
    ) -> pandas.DataFrame:
        from evomerge.api import item_table

        if isinstance(candidates, str | CandidateKey):
            candidates = [candidates]
        if candidates is None:
            names = [row["candidate"] for row in self._candidates() if row["failure"] is None]
        else:
            names = [str(name) for name in candidates]
        parts: list[Mapping[str, Any]] = []
        for first in range(0, len(names), _CANDIDATES):
            asked = names[first : first + _CANDIDATES]
            parts += self._connection.get(f"{self._path}/items", candidate=asked)["items"]
        return item_table(parts)

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
        from evomerge.api import answer_table

        document = answers_of(
            self._connection,
            self._path,
            models,
            lost=lost,
            gained=gained,
            differ=differ,
            task=task,
            item=item,
            split=split,
        )
        return answer_table(document["items"])

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
        return self._export(
            out,
            verify=verify,
            trial=trial,
            point=point,
            as_adapter=as_adapter,
            rank=rank,
            push=push,
            public=public,
        )

    def report(self, out: str | Path | None = None) -> Path:
        """Download the report, one HTML file; to JOB_ID.html if `out` is not given."""
        target = Path(f"{self.run_dir}.html" if out is None else out)
        content = self._connection.request("GET", f"{self._path}/report").content
        target.write_bytes(content)
        return target

    def _candidates(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        while True:
            page = self._connection.get(f"{self._path}/candidates", offset=len(rows))
            rows += page["items"]
            if len(rows) >= page["total"] or not page["items"]:
                return rows


def answers_of(
    connection: Connection,
    path: str,
    models: str | Iterable[str],
    *,
    lost: bool,
    gained: bool,
    differ: bool,
    task: str | None,
    item: int | None,
    split: Split | None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Answers side by side in plain values; the arguments are those of `BaseResult.answers`.

    path: of the search. limit: the most items; None for all.
    """
    changes = {"lost": lost, "gained": gained, "differ": differ}
    wanted = {
        "models": [models] if isinstance(models, str) else list(models),
        "change": [name for name, given in changes.items() if given],
        "task": task,
        "item": item,
        "split": split,
    }
    items: list[Mapping[str, Any]] = []
    while True:
        most = _ANSWERS if limit is None else min(_ANSWERS, limit - len(items))
        page: dict[str, Any] = connection.get(
            f"{path}/answers", **wanted, offset=len(items), limit=most
        )
        items += page["items"]
        if len(items) in (page["total"], limit) or not page["items"]:
            return {**page, "items": items}


# The results of the other kinds of jobs, in plain values.


def read_check(result: Mapping[str, Any]) -> CheckReport:
    """The report of a check."""
    from evomerge.check import CheckReport

    return _read(CheckReport, result.get("report"))


def read_grid(result: Mapping[str, Any]) -> GridOutcome:
    """The outcome of a grid."""
    from evomerge.grid import GridOutcome

    return _read(GridOutcome, result)


def read_evaluation(result: Mapping[str, Any]) -> ScoreSummary:
    """The scores of a model."""
    from evomerge.evaluate import ScoreSummary

    return _read(ScoreSummary, result.get("scores"))


def read_calibration(result: Mapping[str, Any]) -> list[Written]:
    """The files of statistics, by their names in the folder of the job."""
    from evomerge.calibrate import Written

    return _read(list[Written], result.get("statistics"))


def read_export(result: Mapping[str, Any], out: Path) -> ExportReport:
    """The report of an export that lies in `out`."""
    from evomerge.export import ExportReport

    return _read(ExportReport, {**(result.get("report") or {}), "out": out})


def _read(kind: type[T], values: Mapping[str, Any] | Sequence[Any] | None) -> T:
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ServerError(
            f"result.{field}: {first['msg']}; the job was run by another version of evomerge, read "
            "its `facts` instead"
        ) from error
