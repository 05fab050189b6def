"""Parameters as a recipe writes them, and their values for one tensor.

Values are not checked here; each method checks its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

Scalar = bool | float | str
"""One value of a parameter."""

Gradient = tuple[float, ...]
"""Values spread evenly over the depth of a slice, with linear interpolation between them."""


class Condition(BaseModel):
    """A value for the tensors whose name contains `filter` (None or "*": for all)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filter: str | None = None
    value: Scalar | Gradient

    def matches(self, tensor_name: str) -> bool:
        """Whether the value applies to this tensor."""
        return self.filter in (None, "*") or str(self.filter) in tensor_name


Setting = Scalar | Gradient | tuple[Condition, ...]
"""A parameter as written: one value, a gradient over depth, or a list of conditions."""

Settings = Mapping[str, Setting]
"""Parameters of one scope, by name."""


def _one_condition_is_a_list(value: object) -> object:
    """Mergekit reads a single {filter, value} as a list of one."""
    return (value,) if isinstance(value, Mapping) and "value" in value else value


def _none_is_empty(value: object) -> object:
    return {} if value is None else value


_WrittenSetting = Annotated[Setting, BeforeValidator(_one_condition_is_a_list)]

Parameters = Annotated[dict[str, _WrittenSetting], BeforeValidator(_none_is_empty)]
"""The field of a recipe with one scope's parameters; an empty key means no parameters."""


def resolve(setting: Setting, *, tensor_name: str, depth: float) -> Scalar | None:
    """The value of a setting for one tensor, as mergekit 0.1.5 resolves it.

    depth: the tensor's position in its slice: i/(L-1) for layer i of L, 1 when L is 1, and 0 for
    tensors outside the layers. Returns None when no condition matches; then the next scope decides.
    """
    if isinstance(setting, tuple):
        if not setting:
            return None
        if isinstance(setting[0], Condition):
            for condition in setting:
                assert isinstance(condition, Condition)
                if condition.matches(tensor_name):
                    return resolve(condition.value, tensor_name=tensor_name, depth=depth)
            return None
        values = [float(value) for value in setting if not isinstance(value, Condition)]
        scaled = depth * (len(values) - 1)
        below = int(scaled)
        above = min(len(values) - 1, below + 1)
        fraction = scaled - below
        return (1 - fraction) * values[below] + fraction * values[above]
    return setting


def resolve_in(
    scopes: Iterable[Settings], name: str, *, tensor_name: str, depth: float
) -> Scalar | None:
    """Parameter `name` for one tensor: the first scope that has a value for it; None if none."""
    for scope in scopes:
        if name in scope:
            value = resolve(scope[name], tensor_name=tensor_name, depth=depth)
            if value is not None:
                return value
    return None


def without_empty(document: Any) -> Any:
    """A document without keys that have None or an empty mapping as value, at any depth."""
    if isinstance(document, Mapping):
        kept = {key: without_empty(value) for key, value in document.items()}
        return {key: value for key, value in kept.items() if value is not None and value != {}}
    if isinstance(document, list):
        return [without_empty(value) for value in document]
    return document
