"""The YAML form of a data-flow space, checked key by key.

    routes:
      repeats: 2                             # how often the layers may come, 1 (the default) to 8
      scales: {per: hop, low: 0.7, high: 1.4, scale: log}   # or none, the default
      max_layers: 150%                       # of the first model's depth, rounded down, or a number
      min_layers: 75%                        # the same
      conditional: true                      # scales of layers that are out do not drift
      models: sources                        # first_source | sources | sources_and_base, or a list

`per` is hop (the default: one scale for every place of a layer on the route) or pair (one scale for
every two layers that may follow each other). `scale` is log (the default) or linear. Besides
`routes`, the space may have `start_from` (a recipe that the search starts from).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from evomerge.errors import JobError
from evomerge.space.base import Scale
from evomerge.space.document import check_range, number, one_of, only, switch

MOST_REPEATS = 8

_SPACE_KEYS = ("routes", "start_from")
_ROUTES_KEYS = ("repeats", "scales", "max_layers", "min_layers", "conditional", "models")
_SCALES_KEYS = ("per", "low", "high", "scale")

_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?)\s*%")

Led = Literal["first_source", "sources", "sources_and_base"]
"""Which of the job's models a route may pass through; the first one leads."""


@dataclass(frozen=True, kw_only=True)
class Scales:
    """The range of the scales; it contains 1 and is above 0.

    per: one gene for each place of a layer on the route, or for each pair of layers that may follow
    each other.
    """

    per: Literal["hop", "pair"]
    low: float
    high: float
    scale: Scale


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A number of layers, given directly or as a share of the first model's depth."""

    given: int | Fraction
    written: str
    where: str

    def layers(self, depth: int) -> int:
        """The number for a first model of `depth` layers, rounded down."""
        return self.given if isinstance(self.given, int) else int(self.given * depth)

    def said(self, depth: int) -> str:
        """The limit in words, for messages."""
        if isinstance(self.given, int):
            return self.written
        return f"{self.written} of {depth} layers, which is {self.layers(depth)},"


@dataclass(frozen=True, kw_only=True)
class RoutesSpec:
    """A data-flow space as written, before it is fitted to its models.

    where: the place of `routes`, for messages.
    """

    repeats: int
    scales: Scales | None
    max_layers: Limit | None
    min_layers: Limit | None
    conditional: bool
    models: Led | tuple[str, ...]
    start_from: Mapping[str, Any] | None
    where: str


def parse_routes(document: Mapping[str, Any], *, where: str) -> RoutesSpec:
    """Check a data-flow space's mapping. Raises JobError with the key, the value and the mend."""
    if "method" in document:
        raise JobError(f"{where}.method: the space has routes already; keep one of them")
    only(document, _SPACE_KEYS, where)
    written, place = document["routes"], f"{where}.routes"
    if not isinstance(written, Mapping):
        raise JobError(f"{place}: {written}: give a mapping, such as {{repeats: 2}}")
    only(written, _ROUTES_KEYS, place)
    return RoutesSpec(
        repeats=_repeats(written.get("repeats", 1), f"{place}.repeats"),
        scales=_scales(written.get("scales", "none"), f"{place}.scales"),
        max_layers=_limit(written.get("max_layers"), f"{place}.max_layers"),
        min_layers=_limit(written.get("min_layers"), f"{place}.min_layers"),
        conditional=switch(written.get("conditional", True), f"{place}.conditional"),
        models=_models(written.get("models", "sources"), f"{place}.models"),
        start_from=document.get("start_from"),
        where=place,
    )


def _repeats(written: object, place: str) -> int:
    if type(written) is not int or not 1 <= written <= MOST_REPEATS:  # a switch is an int too
        raise JobError(f"{place}: {written}: give a whole number from 1 to {MOST_REPEATS}")
    return written


def _scales(written: object, place: str) -> Scales | None:
    if written == "none":
        return None
    if not isinstance(written, Mapping):
        raise JobError(f"{place}: {written}: write none, or {{per: hop, low: 0.7, high: 1.4}}")
    only(written, _SCALES_KEYS, place)
    for key in ("low", "high"):
        if key not in written:
            raise JobError(f"{place}.{key}: missing; give the range to search")
    low = number(written["low"], f"{place}.low")
    high = number(written["high"], f"{place}.high")
    if low <= 0.0:
        raise JobError(
            f"{place}.low: {low:g} is not above 0, and a scale of 0 erases all layers before it; "
            "give a positive one"
        )
    check_range(low, high, place)
    if not low <= 1.0 <= high:
        key = "low" if low > 1.0 else "high"
        raise JobError(
            f"{place}.{key}: 1 is outside [{low:g}, {high:g}], and the search starts from it; "
            "widen the range"
        )
    per = one_of(written.get("per", "hop"), ("hop", "pair"), f"{place}.per")
    scale = one_of(written.get("scale", "log"), ("linear", "log"), f"{place}.scale")
    return Scales(
        per="pair" if per == "pair" else "hop",
        low=low,
        high=high,
        scale="log" if scale == "log" else "linear",
    )


def _limit(written: object, place: str) -> Limit | None:
    if written is None or written == "none":
        return None
    amount: int | Fraction | None = None
    if type(written) is int and written >= 1:
        amount = written
    elif isinstance(written, str) and (found := _PERCENTAGE.fullmatch(written.strip())):
        amount = Fraction(found[1]) / 100
    if amount is None:
        raise JobError(
            f"{place}: {written}: give a whole number of layers, or a percentage such as 150%"
        )
    return Limit(given=amount, written=str(written).strip(), where=place)


def _models(written: object, place: str) -> Led | tuple[str, ...]:
    if isinstance(written, str):
        named = one_of(written, ("first_source", "sources", "sources_and_base"), place)
        words: dict[str, Led] = {"first_source": "first_source", "sources": "sources"}
        return words.get(named, "sources_and_base")
    if not isinstance(written, (list, tuple)) or not written:
        raise JobError(f"{place}: {written}: write sources, or a list of models of the job")
    return tuple(str(reference) for reference in written)
