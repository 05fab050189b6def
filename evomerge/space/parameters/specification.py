"""The YAML form of a parameter space.

    method: task_arithmetic
    layers: {knots: 5}                    # all | each | {groups_of: 4} | {knots: 5}
    components: [attention, mlp, rest]    # all, or those that get genes of their own
    parameters:
      weight: {low: 0.0, high: 1.5, start: 0.5}   # searched
      lambda: 1.0                                 # fixed

A searched parameter has `low` and `high` (without both: the method's own range). It may have
`start` (default: the middle), `scale` (linear | log), `per` (source | all), `layers`, `components`,
and `elsewhere`: the value for tensors of components that are not listed. The whole space may have
`start_from` (a recipe that the search starts from). For methods that need no base it may have
`include_base`: averages then weigh the base too; nuslerp and multislerp use the differences from
it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    AllowInfNan,
    Discriminator,
    Field,
    Strict,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from evomerge.documents import nearest
from evomerge.errors import JobError
from evomerge.job import Section
from evomerge.merge import METHODS
from evomerge.space.base import Component
from evomerge.space.document import NESTED, SCALAR, Number, Range, StartFrom, read_number, word_or
from evomerge.space.parameters.methods import ParameterRule, rule_of

# How a parameter varies over depth: one value, one for each layer, for groups, or by knots.
#
# A profile says which layers each of its values is for, and how a recipe writes them.


Kind = Literal["all", "each", "groups_of", "knots"]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Values over the layers of a model.

    size: layers in a group for `groups_of`, number of knots for `knots`, unused otherwise.
    """

    kind: Kind
    depth: int
    size: int = 1

    @property
    def count(self) -> int:
        """Number of values."""
        if self.kind == "groups_of":
            return -(-self.depth // self.size)
        return {"all": 1, "each": self.depth, "knots": self.size}[self.kind]

    @property
    def spans(self) -> tuple[tuple[float, float], ...]:
        """First and last layer of each value; a knot's position over depth, twice."""
        last = self.depth - 1
        if self.kind == "knots":
            positions = [k * last / (self.size - 1) for k in range(self.size)]
            return tuple((position, position) for position in positions)
        if self.kind == "groups_of":
            firsts = range(0, self.depth, self.size)
            return tuple((first, min(first + self.size - 1, last)) for first in firsts)
        return ((0, last),) if self.kind == "all" else tuple((i, i) for i in range(self.depth))

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each value in the name of a gene; "" where there is only one value."""
        digits = max(2, len(str(self.depth - 1)))
        if self.kind == "all":
            return ("",)
        if self.kind == "knots":
            return tuple(f"knot{k}of{self.size}" for k in range(1, self.size + 1))
        return tuple(
            f"L{first:0{digits}.0f}" + (f"-L{last:0{digits}.0f}" if last > first else "")
            for first, last in self.spans
        )

    def basis(self) -> NDArray[np.float64]:
        """(depth, count): a layer's value is its row times the values."""
        rows = np.zeros((self.depth, self.count))
        for layer in range(self.depth):
            if self.kind == "knots":
                position = layer * (self.size - 1) / (self.depth - 1)
                below = min(int(position), self.size - 2)
                rows[layer, below] = 1.0 - (position - below)
                rows[layer, below + 1] = position - below
            else:
                columns = {"all": 0, "each": layer, "groups_of": layer // self.size}
                rows[layer, columns[self.kind]] = 1.0
        return rows

    def setting(self, values: tuple[float, ...]) -> float | tuple[float, ...]:
        """The values as a recipe writes them: one number, or a gradient over depth.

        A gradient with one value for each layer is exact at every layer; between knots, the merge
        engine interpolates.
        """
        assert len(values) == self.count
        if self.kind == "all":
            return values[0]
        if self.kind == "groups_of":
            return tuple(values[layer // self.size] for layer in range(self.depth))
        return values


class LayerParts(Section):
    """How a parameter varies over depth: in groups of layers, or linearly between knots."""

    groups_of: StrictInt = Field(default=0, ge=1)
    knots: StrictInt = Field(default=0, ge=2)

    @model_validator(mode="after")
    def _one_of_two(self) -> LayerParts:
        if len(self.model_fields_set) != 1:
            raise ValueError("has groups_of and knots; keep one of them")
        return self


Layers = Annotated[
    Annotated[Literal["all", "each"], SCALAR] | Annotated[LayerParts, NESTED],
    word_or(Mapping, "all", "each", mend="write all, each, {groups_of: 4} or {knots: 5}"),
]


def profile_of(layers: Layers, depth: int, *, where: str) -> Profile:
    """The profile over a model of `depth` layers. Raises JobError when it has too many parts."""
    if isinstance(layers, str):
        return Profile(kind=layers, depth=depth)
    kind: Kind = "knots" if layers.knots else "groups_of"
    size = layers.knots or layers.groups_of
    if size > depth:
        raise JobError(f"{where}.{kind}: {size} is more than the {depth} layers; give fewer")
    return Profile(kind=kind, depth=depth, size=size)


_Part = Literal["attention", "mlp", "rest"]


def _each_once(parts: tuple[_Part, ...]) -> tuple[_Part, ...]:
    for part in parts:
        if parts.count(part) > 1:
            raise ValueError(f"{part} is listed twice; list it once")
    return tuple(part for part in get_args(_Part) if part in parts)


Components = Annotated[
    Annotated[Literal["all"], SCALAR]
    | Annotated[tuple[_Part, ...], AfterValidator(_each_once), NESTED],
    word_or((list, tuple), "all", mend="write all, or a list out of [attention, mlp, rest]"),
]


def _middle(found: Mapping[str, Any]) -> float:
    low, high = found["low"], found["high"]
    return math.sqrt(low * high) if found["scale"] == "log" else (low + high) / 2


class Searched(Range):
    """A parameter with genes, complete with what the space and the method say."""

    start: Number = Field(default_factory=_middle, validate_default=True)
    per: Literal["source", "all"] = "source"
    layers: Layers = "all"
    components: Components = "all"
    elsewhere: Number | None = None

    @field_validator("start")
    @classmethod
    def _inside(cls, start: float, info: ValidationInfo) -> float:
        low, high = info.data.get("low", start), info.data.get("high", start)
        if not low <= start <= high:
            raise ValueError(f"outside [{low:g}, {high:g}]; start inside")
        return start

    @property
    def parts(self) -> tuple[Component, ...]:
        """("all",), or the components that have genes of their own."""
        return ("all",) if self.components == "all" else self.components


Fixed = StrictBool | Annotated[float, Strict(), AllowInfNan(False)] | StrictStr

_Parameter = Annotated[
    Annotated[Searched, NESTED] | Annotated[Fixed, SCALAR],
    Discriminator(lambda written: (NESTED if isinstance(written, Mapping) else SCALAR).tag),
]


class SpaceSpec(Section):
    """A parameter space, before it is fitted to its models.

    layers, components: of the parameters without their own. routes: only of a data-flow space.
    """

    method: str
    layers: Layers = "all"
    components: Components = "all"
    parameters: dict[str, _Parameter] = Field(default_factory=dict)
    include_base: StrictBool = False
    start_from: StartFrom = None
    routes: None = None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, written: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add what the space or its method says to the parameters that do not say it."""
        method, parameters = written.get("method"), written.get("parameters") or {}
        if "routes" in written:
            raise ValueError("method: the space has routes already; keep one of them")
        if not isinstance(method, str) or method not in METHODS:
            return written
        if not rule_of(method).searchable:
            raise ValueError(
                f"method: {method} has no parameter to search; write it as a recipe, for "
                "`evomerge merge`"
            )
        if not isinstance(parameters, Mapping):
            return written
        rules = rule_of(method).parameters
        general = {key: written[key] for key in ("layers", "components") if key in written}
        complete: dict[str, object] = {}
        for name, value in parameters.items():
            if name not in rules:
                raise ValueError(
                    f"parameters.{name}: {method} has no such parameter; {nearest(name, rules)}"
                )
            rule = rules[name]
            if isinstance(value, Mapping):
                if rule.search is None:
                    raise ValueError(f"parameters.{name}: it cannot be searched; {_mend(rule)}")
                low, high = rule.search
                unsaid = {} if value.keys() & {"low", "high"} else {"low": low, "high": high}
                complete[name] = {**general, **unsaid, **value}
            else:
                complete[name] = value if rule.choices else read_number(value)
        return {**written, "parameters": complete}

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"no such method; {nearest(method, METHODS)}")
        return method

    @model_validator(mode="after")
    def _fits_method(self) -> SpaceSpec:
        rule = rule_of(self.method)
        if self.include_base and rule.base == "named":
            raise ValueError(f"include_base: {self.method} has the base already; leave it out")
        if not self.parameters:
            raise ValueError(f"parameters: missing; give {', '.join(rule.parameters)} or some")
        for name, parameter in self.parameters.items():
            _check(parameter, rule.parameters[name], f"parameters.{name}")
        for name, known in rule.parameters.items():
            if known.default is None and name not in self.parameters:
                raise ValueError(f"parameters.{name}: missing; {self.method} needs it")
        if not any(isinstance(parameter, Searched) for parameter in self.parameters.values()):
            raise ValueError(
                "parameters: all are fixed, so nothing is searched; give one low and high"
            )
        return self


def _check(parameter: Searched | Fixed, rule: ParameterRule, place: str) -> None:
    """Raise ValueError for what the method does not allow."""
    if isinstance(parameter, Searched):
        if "per" in parameter.model_fields_set and rule.scope == "recipe":
            raise ValueError(f"{place}.per: it belongs to the whole recipe; leave `per` out")
        _check_within(parameter.low, rule, f"{place}.low")
        _check_within(parameter.high, rule, f"{place}.high")
        _check_elsewhere(parameter, rule, f"{place}.elsewhere")
    elif isinstance(parameter, float) and not rule.choices:
        _check_within(parameter, rule, place)
    elif isinstance(parameter, float) or parameter not in rule.choices:  # 1.0 == True
        raise ValueError(f"{place}: {parameter}: {_mend(rule)}")


def _mend(rule: ParameterRule) -> str:
    words = [str(choice).lower() for choice in rule.choices]
    return f"give {', '.join(words[:-1])} or {words[-1]}" if words else "give a number"


def _check_elsewhere(searched: Searched, rule: ParameterRule, place: str) -> None:
    others = [part for part in get_args(_Part) if part not in searched.parts]
    if searched.components == "all" or not others:
        if "elsewhere" in searched.model_fields_set:
            raise ValueError(f"{place}: no component is left over; leave it out")
    elif searched.elsewhere is None:
        raise ValueError(f"{place}: missing; give the value of {' and '.join(others)}")
    else:
        _check_within(searched.elsewhere, rule, place)


def _check_within(value: float, rule: ParameterRule, place: str) -> None:
    below = value <= rule.low if rule.low_is_open else value < rule.low
    if below or value > rule.high:
        left = "(" if rule.low_is_open or math.isinf(rule.low) else "["
        right = ")" if math.isinf(rule.high) else "]"
        box = f"{left}{rule.low:g}, {rule.high:g}{right}"
        raise ValueError(f"{place}: {value:g} is outside {box}; give a value inside")
