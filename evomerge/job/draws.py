"""The facts on each way to draw items, for the checks of a job and for the report.

The classes that draw are in search/sampling. Installed packages add their own with entry points of
the group `evomerge.samplers`: a name for `evaluation.draws` and its `ItemSampler`. The package is
imported when its facts are first needed.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import WithJsonSchema

from evomerge.errors import JobError
from evomerge.registry import Registry, unknown_part


@dataclass(frozen=True, kw_only=True)
class DrawFacts:
    """The facts on a way to draw items.

    same_items: all generations are scored on the same items. So their scores can be compared
        directly, the number of items does not grow, and there are no elites.
    every_item: every generation is scored on all items; needs same_items too.
    learns: the draw uses the answers of the baselines and of earlier candidates.
    asks_all_first: the baselines and the first generation are scored on all items; needs learns.
    whole_only: only all items of a draw together give a score. So no candidate is stopped earlier,
        and there are no races.
    one_metric: a draw is for one metric of a task; a second metric is refused.
    preference: text of the report after "a fresh draw of search items", for example ", those on
        which candidates disagree more often and weighted for it".
    sampler: a package's class that draws; search/sampling/samplers.py has evomerge's own.
    """

    same_items: bool = False
    every_item: bool = False
    learns: bool = False
    asks_all_first: bool = False
    whole_only: bool = False
    one_metric: bool = False
    preference: str = ""
    sampler: type[object] | None = None

    def __post_init__(self) -> None:
        if self.every_item and not self.same_items:
            raise ValueError("every_item: all generations have the same items; set same_items too")
        if self.asks_all_first and not self.learns:
            raise ValueError("asks_all_first: only a sampler that learns can use it; set learns")

    def sentence(self, items: str) -> str:
        """The report's sentence on the items of a search; items: their number, as "64 items"."""
        if self.every_item:
            return "Every candidate that is not stopped early is scored on all search items."
        if self.same_items:
            return f"Every generation is scored on the same {items} of the search items."
        return (
            f"Every generation is scored on a fresh draw of search items{self.preference}; the "
            f"last on {items}."
        )


BUILT_IN: dict[str, DrawFacts] = {
    "informative": DrawFacts(
        learns=True,
        preference=", those on which candidates disagree more often and weighted for it",
    ),
    "fresh": DrawFacts(),
    "anchors": DrawFacts(
        same_items=True, learns=True, asks_all_first=True, whole_only=True, one_metric=True
    ),
    "fixed": DrawFacts(same_items=True),
    "all": DrawFacts(same_items=True, every_item=True),
}
"""`evaluation.draws` of a job -> the facts on evomerge's own way to draw."""


def _read(part: object, name: str) -> DrawFacts | None:
    facts = getattr(part, "facts", None)
    if inspect.isclass(part) and not inspect.isabstract(part) and isinstance(facts, DrawFacts):
        return replace(facts, sampler=part)
    return None


DRAWS: Registry[DrawFacts] = Registry(
    key="evaluation.draws",
    group="evomerge.samplers",
    built_in=BUILT_IN,
    read=_read,
    wanted="evomerge.search.ItemSampler with facts and draw_task",
    code=lambda facts: facts.sampler,
    error=JobError,
)


def draws_problem(name: str) -> str | None:
    """Why a name is not a way to draw items, and the mend; None if it is one."""
    return unknown_part(name, kind="way to draw items", built_in=list(BUILT_IN), group=DRAWS.group)


def load_draws(name: str) -> DrawFacts:
    """The facts on a way to draw. Raises JobError if its package cannot be used."""
    if name not in DRAWS:
        raise JobError(f"evaluation.draws: {name}: its package is not installed here; install it")
    return DRAWS[name]


Draws = Annotated[
    str, WithJsonSchema({"anyOf": [{"enum": list(BUILT_IN), "type": "string"}, {"type": "string"}]})
]
"""The name of a way to draw items: evomerge's own, or one of an installed package."""
