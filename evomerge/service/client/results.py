"""The result of a search on a server, with the numbers of `evomerge.SearchResult`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.errors import RunError
from evomerge.service.client.connection import Connection

if TYPE_CHECKING:
    import pandas

    from evomerge.api import Gain, Winner

ExportJob = Callable[..., Any]


class RemoteResult:
    """The outcome of a search; tables are asked for when you call them."""

    def __init__(self, connection: Connection, job_id: str, export: ExportJob) -> None:
        self._connection = connection
        self._path = f"/jobs/{job_id}"
        self._export = export
        self._outcome: dict[str, Any] = connection.get(f"{self._path}/winner")

    @property
    def finished(self) -> bool:
        """Always true: there is an outcome."""
        return True

    @property
    def better(self) -> bool:
        """Whether the outcome is above the best parent (or above the parents' front) at all."""
        return bool(self._outcome["better"])

    @property
    def verdict(self) -> str:
        """ "gained", "not settled" or "no gain"."""
        return str(self._outcome["verdict"])

    @property
    def headline(self) -> str:
        """The outcome in words; a gain is claimed only if it is settled."""
        return str(self._outcome["headline"])

    @property
    def lines(self) -> list[str]:
        """The outcome as the command line prints it."""
        return list(self._outcome["lines"])

    @property
    def gain(self) -> Gain | None:
        """Winner minus best parent; None for a front."""
        from evomerge.api import Gain

        found = self._outcome["gain"]
        return None if found is None else Gain(**found)

    @property
    def winner(self) -> Winner:
        """The winner. Raises RunError for a front."""
        from evomerge.api import read_winner

        found = self._outcome["winner"]
        if found is None:
            raise RunError("it ended with a front; see `points`")
        return read_winner(found)

    @property
    def points(self) -> list[dict[str, Any]]:
        """The points of a front, in plain values; empty for one winner."""
        return list(self._outcome["points"])

    def recipe(self, *, trial: str | None = None, point: str | None = None) -> str:
        """A recipe as YAML: the winner's, a point's or a candidate's."""
        answer = self._connection.request(
            "GET", f"{self._path}/recipe", params={"trial": trial, "point": point}
        )
        return answer.text

    def scores(self) -> pandas.DataFrame:
        """Test scores, as `SearchResult.scores`."""
        from evomerge.api import read_summary, score_table

        return score_table([read_summary(model) for model in self._outcome["models"]])

    def trials_dataframe(self) -> pandas.DataFrame:
        """A row for each candidate, as `SearchResult.trials_dataframe`."""
        import pandas

        rows: list[dict[str, Any]] = []
        while True:
            page = self._connection.get(f"{self._path}/candidates", offset=len(rows))
            rows += page["items"]
            if len(rows) >= page["total"] or not page["items"]:
                return pandas.DataFrame(rows)

    def export(self, out: str | Path, **wanted: Any) -> Any:
        """Export on the server and download the folder; as `RemoteJob.export`."""
        return self._export(out, **wanted)

    def report(self, out: str | Path) -> Path:
        """Download the report, one HTML file."""
        target = Path(out)
        target.write_bytes(self._connection.request("GET", f"{self._path}/report").content)
        return target

    def __repr__(self) -> str:
        return f"<RemoteResult {self._path.rpartition('/')[2]}: {self.headline}>"
