"""Checks that a merged model loads completely and that its numbers are finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.deferred import torch
from evomerge.errors import MergeError, RecipeError
from evomerge.merge.kernels.storage import Elements
from evomerge.merge.plan.plan import Plan, TensorPlan
from evomerge.sources import (
    Source,
    UnbuildableModelError,
    UnknownModelError,
    ask,
    meta_model,
    not_finite,
    not_finite_bytes,
    short,
)


@dataclass(frozen=True, kw_only=True)
class Loadable:
    """A merge that transformers loads completely, as far as the check can tell.

    left_out: tensors that transformers has no place for; they are not written. unchecked: why the
    check was not possible; None where it was made.
    """

    left_out: frozenset[str] = frozenset()
    unchecked: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user, a sentence each."""
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
    if code is not None and config.get("auto_map"):
        return _load(config, shapes, code)
    question = ask("loadable", config, shapes)
    if question.answer is not None:
        return Loadable(left_out=frozenset(question.answer))
    found = _load(config, shapes, None)
    if found.unchecked is None:  # a package that is missing today may be there tomorrow
        question.keep(sorted(found.left_out))
    return found


def _load(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], code: Path | None
) -> Loadable:
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
            f"models: the merged model would not load completely: {found.problem} for "
            f"{type(model.module).__name__} as config.json describes it; get the config and the "
            "weights of the first model from the same place"
        )
    return Loadable(left_out=left_out)


# Whether the numbers of a merged tensor can be stored: a NaN or an infinity ends the merge.


def check_finite(
    name: str, tensor: torch.Tensor | Elements, plan: Plan, sources: Mapping[str, Source]
) -> None:
    """Raise MergeError, with the cause, for a merged tensor that holds a NaN or an infinity."""
    if isinstance(tensor, Elements):
        non_finite = not_finite_bytes(tensor.array.data.cast("B"), tensor.dtype)
    else:
        non_finite = not_finite(tensor)
    if non_finite:
        tensor_plan = next(planned for planned in plan.tensors if planned.name == name)
        dtype = getattr(torch, str(tensor.dtype).removeprefix("torch."))
        raise MergeError(why_not_finite(tensor_plan, non_finite, dtype, sources))


def why_not_finite(
    plan: TensorPlan, non_finite: str, dtype: torch.dtype, sources: Mapping[str, Source]
) -> str:
    """The error message. It names the first model with a tensor that explains it, if any."""
    dtype_name = str(dtype).removeprefix("torch.")
    for member in plan.members:
        source = sources[member.reference]
        values = source.tensor(member.tensor)
        found = not_finite(values)
        if found:
            return f"{plan.name}: {found} in {member.tensor} of {member.reference}; mend that model"
        if dtype.is_floating_point and values.is_floating_point():
            largest = float(values.abs().max())
            if largest > torch.finfo(dtype).max:
                return (
                    f"{plan.name}: {non_finite}, as {member.reference} has {largest:.3g} there and "
                    f"the largest {dtype_name} is {torch.finfo(dtype).max:.3g}; merge into "
                    "bfloat16 or float32"
                )
    return (
        f"{plan.name}: the merge makes {non_finite} from finite tensors in {dtype_name}; use other "
        "merge weights, or a wider dtype"
    )
