"""Whether what a merge writes can be loaded whole, and is finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evomerge.errors import MergeError, RecipeError
from evomerge.merge.plan.plan import Plan, TensorPlan
from evomerge.sources import (
    Source,
    UnbuildableModelError,
    UnknownModelError,
    meta_model,
    not_finite,
    short,
)


@dataclass(frozen=True, kw_only=True)
class Loadable:
    """A merge that transformers loads whole, as far as can be known.

    left_out: its tensors that transformers has no place for, to be left unwritten. unchecked: why
    nothing could be found out; None where it was.
    """

    left_out: frozenset[str] = frozenset()
    unchecked: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told, a sentence each."""
        notes = []
        if self.left_out:
            first, more = min(self.left_out), len(self.left_out) - 1
            others = f" and {more} more" if more else ""
            notes.append(f"{first}{others} left out, as transformers has no place for it")
        if self.unchecked:
            notes.append(f"not checked whether the result loads: {self.unchecked}")
        return tuple(notes)


def check_loadable(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], *, code: Path | None = None
) -> Loadable:
    """Load a merge on the meta device by transformers' own rules.

    shapes: of its tensors, by the names in the files. code: a folder whose modelling code may be
    run. Raises RecipeError where transformers cannot build the model, or would miss a tensor.
    """
    try:
        model = meta_model(config, code=code)
        found = model.load(shapes)
        left_out = frozenset(
            name for name in shapes if model.rename(name).name in set(found.unexpected)
        )
        if left_out:
            found = model.load({name: shapes[name] for name in shapes.keys() - left_out})
    except UnknownModelError as error:
        return Loadable(unchecked=short(error))
    except UnbuildableModelError as error:
        raise RecipeError(
            f"models: transformers cannot build the merged model from its config.json "
            f"({short(error)}); get the config and the weights from the same place"
        ) from error
    if found.problem:
        raise RecipeError(
            f"models: the merged model would not load whole: {found.problem} for "
            f"{type(model.module).__name__} as config.json describes it; get the config and the "
            "weights of the first model from the same place"
        )
    return Loadable(left_out=left_out)


# Whether the numbers of a merged tensor can be stored: a NaN or an infinity ends the merge.


def check_finite(
    name: str, tensor: torch.Tensor, plan: Plan, sources: Mapping[str, Source]
) -> None:
    """Raise MergeError for a merged tensor that holds a NaN or an infinity, with what it is of."""
    what = not_finite(tensor)
    if what:
        made = next(each for each in plan.tensors if each.name == name)
        raise MergeError(why_not_finite(made, what, tensor.dtype, sources))


def why_not_finite(
    made: TensorPlan, what: str, dtype: torch.dtype, sources: Mapping[str, Source]
) -> str:
    """The sentence a user reads: the first model whose own tensor shows the reason, if one does."""
    stored = str(dtype).removeprefix("torch.")
    for member in made.members:
        source = sources[member.reference]
        values = source.tensor(member.tensor)
        found = not_finite(values)
        if found:
            return f"{made.name}: {found} in {member.tensor} of {member.reference}; mend that model"
        if dtype.is_floating_point and values.is_floating_point():
            largest = float(values.abs().max())
            if largest > torch.finfo(dtype).max:
                return (
                    f"{made.name}: {what}, as {member.reference} has {largest:.3g} there and "
                    f"{stored} ends at {torch.finfo(dtype).max:.3g}; merge into bfloat16 or float32"
                )
    return (
        f"{made.name}: the merge makes {what} of finite weights in {stored}; use other weights of "
        "the models, or a wider dtype"
    )
