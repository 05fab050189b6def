"""What a merge method is: its parameters, the models it takes, and how it merges one tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from numpy.typing import NDArray

from evomerge.errors import RecipeError
from evomerge.recipe import Scalar

if TYPE_CHECKING:
    import torch

Value = float | bool | str
"""A parameter as a method sees it: a number, a switch or a choice."""

Sums = Literal["any", "elected", "single", "none"]

_ON, _OFF = {"true", "yes", "on"}, {"false", "no", "off"}


@dataclass(frozen=True, kw_only=True)
class ParameterSpec:
    """One parameter of a method.

    scope: given per model (falling back to the recipe's), or once for the whole recipe. default:
    the value if none is given; None if one must be given. allowed: closed range of a number. mend:
    what to write instead of a value outside it. search: a sensible closed range to search; None if
    it is not searched. choices: the words of a choice; a switch written there means the first word
    when on and the last when off.
    """

    kind: Literal["number", "switch", "choice"]
    scope: Literal["model", "recipe"]
    default: Value | None = None
    allowed: tuple[float, float] = (-math.inf, math.inf)
    mend: str = "give a finite number"
    search: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()

    def read(self, value: Scalar, *, where: str) -> Value:
        """The value as written, in the parameter's own kind. Raises RecipeError."""
        if self.kind == "number":
            return self._read_number(value, where)
        switch = _read_switch(value)
        if self.kind == "choice":
            if switch is not None:
                return self.choices[0 if switch else -1]
            if value in self.choices:
                return str(value)
            raise RecipeError(f"{where}: {value} is not one of {', '.join(self.choices)}")
        if switch is None:
            raise RecipeError(f"{where}: {value} is not a switch; write true or false")
        return switch

    def _read_number(self, value: Scalar, where: str) -> float:
        try:
            number = float(value)
        except ValueError:
            raise RecipeError(f"{where}: {value} is not a number; {self.mend}") from None
        low, high = self.allowed
        if not math.isfinite(number):
            raise RecipeError(f"{where}: {value} is not finite; {self.mend}")
        if not low <= number <= high:
            raise RecipeError(f"{where}: {number:g} is outside [{low:g}, {high:g}]; {self.mend}")
        return number


def _read_switch(value: Scalar) -> bool | None:
    if isinstance(value, str):
        word = value.lower()
        return word in _ON if word in _ON | _OFF else None
    return bool(value) if value in (0, 1) else None


class Inputs(Protocol):
    """What a method is given to merge one tensor; members are numbered as the recipe lists them."""

    @property
    def name(self) -> str:
        """Name of the tensor in the merged checkpoint."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor, the same in every member."""

    @property
    def base(self) -> int | None:
        """The member that is the base model."""

    @property
    def members(self) -> range:
        """Every model, the base too; a base that the recipe does not list comes last."""

    @property
    def experts(self) -> tuple[int, ...]:
        """Every model but the base."""

    def number(self, parameter: str, member: int | None = None) -> float:
        """A number of the whole recipe, or of one member."""

    def switch(self, parameter: str) -> bool:
        """A switch of the whole recipe."""

    def choice(self, parameter: str) -> str:
        """A choice of the whole recipe."""

    def stored(self, member: int) -> torch.Tensor:
        """A member's tensor as it is stored; never to be written to."""

    def tensor(self, member: int) -> torch.Tensor:
        """A member's tensor, float32; never to be written to."""

    def task_vector(self, member: int) -> torch.Tensor:
        """A member's tensor minus the base's, float32; never to be written to."""

    def draw_key(self, member: int) -> int:
        """The 64-bit key of a member's random draws for this tensor; see `kernels/masks.py`."""

    def cached(
        self, kind: str, members: tuple[int, ...], make: Callable[[], NDArray[Any]]
    ) -> NDArray[Any]:
        """The array that `make` returns: computed once for these members, kept between merges.

        kind: a name for the array. The array must depend on nothing but the kind and the members;
        the base must be among them if the array depends on it.
        """

    def keeps(self, kind: str, members: tuple[int, ...], size_bytes: int) -> bool:
        """Whether an array of this size is kept; if not, making it serves one merge only."""

    def statistic(self, member: int, kind: str) -> torch.Tensor | None:
        """What `evomerge calibrate` stored for a member's tensor; None where it stored nothing.

        kind: one of `statistics.Kind`. Raises RecipeError where the member was not calibrated.
        """


def _unknown(inputs: Inputs) -> None:
    """No sum of the members' tensors is known to be the merged tensor."""
    return None


@dataclass(frozen=True, kw_only=True)
class Method:
    """A merge method.

    merge: (inputs, out) -> writes the merged tensor into `out`, which has the shape of the members'
    tensors and the dtype of the merged checkpoint. Arithmetic is float32 and rounded once.
    needs_base: whether a recipe must name the base model. weighs_base: whether the base takes the
    per-model parameters as any other model does. min_models, max_models: the base counted. experts:
    the number of models besides a base, if it is fixed. ignored: parameters that mergekit's recipes
    may contain and that change nothing. on_device: whether it uses kernels alone and merges on the
    device of the sources; other methods get tensors on the CPU. compiled: whether it only gives
    tensors to kernels or copies one, so that it merges `Elements` too. random: whether its masks
    are random, so that the recipe's seed matters. statistics: the kind of statistics its models
    need. sums: which weighted sums of models its weights can give where nothing is dropped. any:
    every sum; elected: sums of one model and the base; single: one model alone; none: none that is
    known. coefficients: (inputs) -> the number that each member's tensor counts with, where the
    merged tensor is their sum; None where it is not. mergekit: whether mergekit has it under this
    name.
    """

    name: str
    citation: str
    parameters: Mapping[str, ParameterSpec]
    merge: Callable[[Inputs, torch.Tensor], None]
    needs_base: bool
    weighs_base: bool
    min_models: int = 1
    max_models: int | None = None
    experts: int | None = None
    ignored: frozenset[str] = field(default_factory=frozenset)
    on_device: bool = False
    compiled: bool = False
    random: bool = False
    statistics: Literal["fisher", "inputs"] | None = None
    sums: Sums = "none"
    coefficients: Callable[[Inputs], tuple[float, ...] | None] = _unknown
    mergekit: bool = False
