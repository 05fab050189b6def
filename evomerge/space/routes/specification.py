"""The YAML form of a data-flow space.

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
from fractions import Fraction
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, ValidationInfo, field_validator

from evomerge.job import Section
from evomerge.space.base import Scale
from evomerge.space.document import NESTED, SCALAR, Range, StartFrom, word_or

Led = Literal["first_source", "sources", "sources_and_base"]
"""Which of the job's models a route may pass through; the first one leads."""


class Scales(Range):
    """The range of the scales; it contains 1 and is above 0."""

    scale: Scale = "log"
    per: Literal["hop", "pair"] = "hop"

    @field_validator("low")
    @classmethod
    def _check_low(cls, low: float, info: ValidationInfo) -> float:
        if low <= 0.0:
            raise ValueError(
                "not above 0, and a scale of 0 erases all layers before it; give a positive one"
            )
        return low

    @field_validator("low", "high")
    @classmethod
    def _around_one(cls, bound: float, info: ValidationInfo) -> float:
        if bound != 1.0 and (bound > 1.0) == (info.field_name == "low"):
            raise ValueError("excludes 1, and the search starts from it; widen the range")
        return bound


_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def _read_limit(written: object) -> object:
    if written is None or written == "none":
        return None
    text = written.strip() if isinstance(written, str) else ""
    if not _PERCENTAGE.fullmatch(text) and (type(written) is not int or written < 1):
        raise ValueError("give a whole number of layers, or a percentage such as 150%")
    return text or written


Limit = int | str
"""A number of layers, given directly or as a share of the first model's depth."""
_Limit = Annotated[Limit | None, BeforeValidator(_read_limit)]


def count_layers(limit: Limit, depth: int) -> tuple[int, str]:
    """The number for a first model of `depth` layers, rounded down, and the limit in words."""
    if isinstance(limit, int):
        return limit, str(limit)
    layers = int(Fraction(limit.rstrip(" %")) / 100 * depth)
    return layers, f"{limit} of {depth} layers, which is {layers},"


_Scales = Annotated[
    Annotated[Literal["none"], SCALAR] | Annotated[Scales, NESTED],
    word_or(Mapping, "none", mend="write none, or {per: hop, low: 0.7, high: 1.4}"),
]
_Models = Annotated[
    Annotated[Led, SCALAR] | Annotated[tuple[Annotated[str, BeforeValidator(str)], ...], NESTED],
    word_or(
        (list, tuple),
        *get_args(Led),
        mend=f"write {', '.join(get_args(Led))}, or a list of models of the job",
    ),
]


class RoutesSpec(Section):
    """The routes of a space, before they are fitted to their models."""

    repeats: StrictInt = Field(default=1, ge=1, le=8)
    scales: _Scales = "none"
    max_layers: _Limit = None
    min_layers: _Limit = None
    conditional: StrictBool = True
    models: _Models = "sources"


class DataFlowSpec(Section):
    """A data-flow space, before it is fitted to its models."""

    routes: RoutesSpec
    start_from: StartFrom = None
