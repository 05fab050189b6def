"""The YAML form of a parameter space, checked key by key.

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
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import JobError
from evomerge.merge import METHODS
from evomerge.space.base import Component, Scale
from evomerge.space.document import check_range, nearest, number, one_of, only, switch
from evomerge.space.parameters.methods import MethodRule, ParameterRule, rule_of

# How a parameter varies over depth: one value, one for each layer, for groups, or by knots.
#
# A profile says which layers each of its values is for, and how a recipe writes them.


Kind = Literal["all", "each", "groups", "knots"]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Values over the layers of a model.

    size: layers in a group for `groups`, number of knots for `knots`, unused otherwise.
    """

    kind: Kind
    depth: int
    size: int = 1

    @property
    def count(self) -> int:
        """Number of values."""
        if self.kind == "groups":
            return -(-self.depth // self.size)
        return {"all": 1, "each": self.depth, "knots": self.size}[self.kind]

    @property
    def spans(self) -> tuple[tuple[float, float], ...]:
        """First and last layer of each value; a knot's position over depth, twice."""
        last = self.depth - 1
        if self.kind == "knots":
            positions = [k * last / (self.size - 1) for k in range(self.size)]
            return tuple((position, position) for position in positions)
        if self.kind == "groups":
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
                rows[layer, {"all": 0, "each": layer, "groups": layer // self.size}[self.kind]] = (
                    1.0
                )
        return rows

    def setting(self, values: tuple[float, ...]) -> float | tuple[float, ...]:
        """The values as a recipe writes them: one number, or a gradient over depth.

        A gradient with one value for each layer is exact at every layer; between knots, the merge
        engine interpolates.
        """
        assert len(values) == self.count
        if self.kind == "all":
            return values[0]
        if self.kind == "groups":
            return tuple(values[layer // self.size] for layer in range(self.depth))
        return values


_SPACE_KEYS = ("method", "layers", "components", "parameters", "include_base", "start_from")
_PARAMETER_KEYS = ("low", "high", "start", "scale", "per", "layers", "components", "elsewhere")
_PARTS: tuple[Component, ...] = ("attention", "mlp", "rest")


@dataclass(frozen=True, kw_only=True)
class LayerGrain:
    """How finely a parameter varies over depth. where: the key that sets it."""

    kind: Kind
    size: int
    where: str


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A parameter with genes.

    components: ("all",), or those that have genes of their own; the others have `elsewhere`.
    where: its place in the job, for messages.
    """

    low: float
    high: float
    start: float
    scale: Scale
    per: Literal["source", "all"]
    layers: LayerGrain
    components: tuple[Component, ...]
    elsewhere: float | None
    where: str


Fixed = float | bool | str

_Grain = tuple[LayerGrain, tuple[Component, ...]]


@dataclass(frozen=True, kw_only=True)
class SpaceSpec:
    """A parameter space as written, before it is fitted to its models."""

    method: str
    parameters: Mapping[str, Searched | Fixed]
    include_base: bool
    start_from: Mapping[str, Any] | None
    where: str


def parse_space(document: Mapping[str, Any], *, where: str) -> SpaceSpec:
    """Check a space's mapping. Raises JobError with the key, the value and the mend."""
    only(document, (*_SPACE_KEYS, "routes"), where)
    method = document.get("method")
    if not isinstance(method, str) or method not in METHODS:
        raise JobError(f"{where}.method: {method}: no such method; {nearest(method, METHODS)}")
    include_base = switch(document.get("include_base", False), f"{where}.include_base")
    rule = rule_of(method)
    if include_base and rule.base == "named":
        raise JobError(f"{where}.include_base: {method} has the base already; leave it out")
    if not rule.searchable:
        raise JobError(
            f"{where}.method: {method} has no parameter to search; write it as a recipe, for "
            "`evomerge merge`"
        )
    written = document.get("parameters")
    if not isinstance(written, Mapping) or not written:
        raise JobError(f"{where}.parameters: missing; give {', '.join(rule.parameters)} or some")
    general = (
        _layers(document.get("layers", "all"), f"{where}.layers"),
        _components(document.get("components", "all"), f"{where}.components"),
    )
    parameters = {
        str(name): _parameter(str(name), value, general, method, rule, where)
        for name, value in written.items()
    }
    for name, known in rule.parameters.items():
        if known.default is None and name not in parameters:
            raise JobError(f"{where}.parameters.{name}: missing; {method} needs it")
    if not any(isinstance(parameter, Searched) for parameter in parameters.values()):
        raise JobError(
            f"{where}.parameters: all are fixed, so nothing is searched; give one low and high"
        )
    return SpaceSpec(
        method=method,
        parameters=parameters,
        include_base=include_base,
        start_from=document.get("start_from"),
        where=where,
    )


def _parameter(
    name: str, value: object, general: _Grain, method: str, method_rule: MethodRule, where: str
) -> Searched | Fixed:
    rules = method_rule.parameters
    place = f"{where}.parameters.{name}"
    if name not in rules:
        raise JobError(f"{place}: {method} has no such parameter; {nearest(name, rules)}")
    rule = rules[name]
    if not isinstance(value, Mapping):
        return _fixed(value, rule, place)
    if rule.search is None:
        mend = _choices(rule) if rule.choices else "a number"
        raise JobError(f"{place}: it cannot be searched; give {mend}")
    only(value, _PARAMETER_KEYS, place)
    if "low" not in value and "high" not in value:
        low, high = rule.search
        value = {"low": low, "high": high, **value}
    for key in ("low", "high"):
        if key not in value:
            raise JobError(f"{place}.{key}: missing; give the range to search")
    return _searched(value, rule, general, place=place)


def _fixed(value: object, rule: ParameterRule, place: str) -> Fixed:
    if rule.choices:
        for choice in rule.choices:
            if value is choice or (isinstance(choice, str) and value == choice):
                return choice
        raise JobError(f"{place}: {value}: give {_choices(rule)}")
    fixed = number(value, place)
    _within(fixed, rule, place)
    return fixed


def _searched(
    written: Mapping[str, Any], rule: ParameterRule, general: _Grain, *, place: str
) -> Searched:
    low = number(written["low"], f"{place}.low")
    high = number(written["high"], f"{place}.high")
    check_range(low, high, place)
    scale = one_of(written.get("scale", "linear"), ("linear", "log"), f"{place}.scale")
    if scale == "log" and low <= 0.0:
        raise JobError(f"{place}.low: {low:g} has no logarithm; give a positive one, or no scale")
    _within(low, rule, f"{place}.low")
    _within(high, rule, f"{place}.high")
    middle = math.sqrt(low * high) if scale == "log" else (low + high) / 2
    start = number(written.get("start", middle), f"{place}.start")
    if not low <= start <= high:
        raise JobError(f"{place}.start: {start:g} is outside [{low:g}, {high:g}]; start inside")
    per = one_of(written.get("per", "source"), ("source", "all"), f"{place}.per")
    if "per" in written and rule.scope == "recipe":
        raise JobError(f"{place}.per: it belongs to the whole recipe; leave `per` out")
    layers, components = general
    if "layers" in written:
        layers = _layers(written["layers"], f"{place}.layers")
    if "components" in written:
        components = _components(written["components"], f"{place}.components")
    return Searched(
        low=low,
        high=high,
        start=start,
        scale="log" if scale == "log" else "linear",
        per="all" if per == "all" or rule.scope == "recipe" else "source",
        layers=layers,
        components=components,
        elsewhere=_elsewhere(written, components, rule, place),
        where=place,
    )


def _layers(written: object, place: str) -> LayerGrain:
    if written == "all":
        return LayerGrain(kind="all", size=1, where=place)
    if written == "each":
        return LayerGrain(kind="each", size=1, where=place)
    if isinstance(written, Mapping):
        only(written, ("groups_of", "knots"), place)
        if len(written) == 1:
            [(key, size)] = written.items()
            least = 2 if key == "knots" else 1
            if isinstance(size, bool) or not isinstance(size, int) or size < least:
                raise JobError(f"{place}.{key}: {size}: give a whole number, {least} or more")
            kind: Kind = "knots" if key == "knots" else "groups"
            return LayerGrain(kind=kind, size=size, where=f"{place}.{key}")
    raise JobError(f"{place}: {written}: write all, each, {{groups_of: 4}} or {{knots: 5}}")


def _components(written: object, place: str) -> tuple[Component, ...]:
    if written == "all":
        return ("all",)
    if not isinstance(written, (list, tuple)) or not written:
        raise JobError(f"{place}: {written}: write all, or a list out of [attention, mlp, rest]")
    for part in written:
        if part not in _PARTS:
            raise JobError(f"{place}: {part}: no such component; {nearest(part, _PARTS)}")
        if written.count(part) > 1:
            raise JobError(f"{place}: {part} is listed twice; list it once")
    return tuple(part for part in _PARTS if part in written)


def _elsewhere(
    written: Mapping[str, Any], components: tuple[Component, ...], rule: ParameterRule, place: str
) -> float | None:
    missing = [part for part in _PARTS if part not in components]
    complete = components == ("all",) or not missing
    if complete and "elsewhere" in written:
        raise JobError(f"{place}.elsewhere: no component is left over; leave it out")
    if complete:
        return None
    if "elsewhere" not in written:
        raise JobError(f"{place}.elsewhere: missing; give the value of {' and '.join(missing)}")
    value = number(written["elsewhere"], f"{place}.elsewhere")
    _within(value, rule, f"{place}.elsewhere")
    return value


def _within(value: float, rule: ParameterRule, place: str) -> None:
    below = value <= rule.low if rule.low_is_open else value < rule.low
    if below or value > rule.high:
        left = "(" if rule.low_is_open or math.isinf(rule.low) else "["
        right = ")" if math.isinf(rule.high) else "]"
        box = f"{left}{rule.low:g}, {rule.high:g}{right}"
        raise JobError(f"{place}: {value:g} is outside {box}; give a value inside")


def _choices(rule: ParameterRule) -> str:
    words = [str(choice).lower() for choice in rule.choices]
    return f"{', '.join(words[:-1])} or {words[-1]}"
