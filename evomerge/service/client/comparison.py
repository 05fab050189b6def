"""Searches of a server beside each other: how far, how well, at what cost, and their curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from evomerge.errors import InputError

if TYPE_CHECKING:
    import pandas

    from evomerge.evaluate import Interval
    from evomerge.service.client.job import RemoteJob


@dataclass(frozen=True, kw_only=True)
class ComparedSearch:
    """One search; what it has no value of yet is None.

    score: of the winner on the test items; gain: over the best parent; both None for a front.
    search_space: its name, the method of a space of its own, or `default`. tasks: task/metric ->
    the winner's score on the test items. generations: number, how many candidates came before, mean
    and best of each.
    """

    id: str
    name: str
    state: str
    winner: str | None = None
    score: Interval | None = None
    gain: Interval | None = None
    verdict: str | None = None
    candidates: int | None = None
    failed: int | None = None
    worker_s: float | None = None
    items: int | None = None
    search_space: str
    sources: int
    tasks: Mapping[str, Interval] = field(default_factory=dict)
    generations: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values; the field names are those of this class."""
        return asdict(self)


def compared(job: RemoteJob[Any]) -> ComparedSearch:
    """A search as its record is now. Raises InputError for a job of another kind."""
    if job.facts["kind"] != "search":
        raise InputError(f"{job.id}: a job of kind {job.facts['kind']}; name searches")
    request = job.facts["request"]
    facts: dict[str, Any] = {
        "id": job.id,
        "name": str(job.facts["name"]),
        "state": job.state,
        "search_space": _space_name(request.get("search_space")),
        "sources": len(request["models"]["sources"]),
    }
    try:
        status = job.status()
    except InputError:  # it has no record yet
        return ComparedSearch(**facts)
    for name in ("candidates", "failed", "worker_s", "items"):
        facts[name] = status[name]
    result = job.record()
    facts["verdict"] = result.verdict
    facts["generations"] = tuple(job.series()["search"]["generations"])
    if result.gain is not None:
        from evomerge.evaluate import Interval

        winner, gain = result.winner, result.gain
        facts["winner"] = winner.label
        facts["score"] = winner.scores.score
        facts["gain"] = Interval(
            value=gain.value, low=gain.low, high=gain.high, confidence=gain.confidence
        )
        facts["tasks"] = {
            f"{task}/{metric}": interval
            for task, metrics in winner.scores.tasks.items()
            for metric, interval in metrics.items()
        }
    return ComparedSearch(**facts)


def comparison_table(searches: Sequence[ComparedSearch]) -> pandas.DataFrame:
    """A row for each search, as `Server.compare` says."""
    import pandas

    rows = []
    for search in searches:
        score, gain = search.score, search.gain
        rows.append(
            {
                "name": search.name,
                "state": search.state,
                "winner": search.winner,
                "score": score and score.value,
                "low": score and score.low,
                "high": score and score.high,
                "gain": gain and gain.value,
                "gain_low": gain and gain.low,
                "gain_high": gain and gain.high,
                "verdict": search.verdict,
                "candidates": search.candidates,
                "failed": search.failed,
                "worker_s": search.worker_s,
                "items": search.items,
                "search_space": search.search_space,
                "sources": search.sources,
                **{name: interval.value for name, interval in search.tasks.items()},
            }
        )
    index = pandas.Index([search.id for search in searches], name="job")
    return pandas.DataFrame(rows, index=index)


def _space_name(space: str | Mapping[str, Any] | None) -> str:
    if isinstance(space, Mapping):
        return str(space.get("method", "its own"))
    return space or "default"
