"""The ways to draw items, as far as a job, its checks and its report know them.

The classes that draw are in search/sampling. Installed packages add ways of their own by entry
points of the group `evomerge.samplers`, each a name for `evaluation.draws` and where its
`ItemSampler` is. One is imported when its facts are asked for, and not before.
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
    """What is known of a way to draw items before it draws any.

    same_items: all generations are scored on the same items, so their scores can be compared as
        they are, nothing grows, and there are no elites.
    every_item: every generation is scored on all items; then same_items too.
    learns: it goes by what the baselines and earlier candidates answered.
    asks_all_first: the baselines and the first generation are scored on all items, to go by.
    whole_only: only all the items of a draw together tell a score, so no candidate is stopped
        before it has them: there are no races.
    one_metric: it stands for one metric of a task and no second one.
    preference: what the report says after "a fresh draw of search items", such as ", those on
        which candidates disagree more often and weighted for it".
    sampler: the class that draws, of a package's; search/sampling/samplers.py has evomerge's own.
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
            raise ValueError("every_item: then all generations have the same_items")
        if self.asks_all_first and not self.learns:
            raise ValueError("asks_all_first: nothing is told to a sampler that does not learn")

    def sentence(self, items: str) -> str:
        """What the report says of the items of a search; `items`: how many, as "64 items"."""
        if self.every_item:
            return "Every candidate that is not stopped before is scored on all search items."
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
"""`evaluation.draws` of a job -> its facts, of evomerge's own."""


def _read(found: object, name: str) -> DrawFacts | None:
    facts = getattr(found, "facts", None)
    if inspect.isclass(found) and not inspect.isabstract(found) and isinstance(facts, DrawFacts):
        return replace(facts, sampler=found)
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
    """Why a name is no way to draw items, and the mend; None where it is one."""
    return unknown_part(name, kind="way to draw items", built_in=list(BUILT_IN), group=DRAWS.group)


def load_draws(name: str) -> DrawFacts:
    """The facts of a way to draw. Raises JobError where the package that has it cannot be used."""
    if name not in DRAWS:
        raise JobError(f"evaluation.draws: {name}: its package is not installed here; install it")
    return DRAWS[name]


Draws = Annotated[
    str, WithJsonSchema({"anyOf": [{"enum": list(BUILT_IN), "type": "string"}, {"type": "string"}]})
]
"""A way to draw items by its name: evomerge's own, or one that an installed package offers."""
