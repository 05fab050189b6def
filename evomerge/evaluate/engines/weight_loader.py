"""Finds the place of each checkpoint tensor in a live model, and copies tensors there.

Most tensors have the name of a parameter. A tied head is one parameter with two names. Some
architectures rename tensors on load, and mixture-of-experts checkpoints store one tensor for each
expert while the live model holds them fused. The rules are transformers' own; here they become
views that a merge is copied into.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    rename_source_key,
)

from evomerge.errors import SourceError


@dataclass(frozen=True)
class _Place:
    owner: str
    """The parameter, by the first of its names."""
    view: torch.Tensor
    """The memory that the tensor is copied into: the parameter or a part of it."""
    alias: bool
    """Whether this is the second name of a tied parameter."""


class WeightLoader:
    """Copies checkpoints into one live model, in place, and checks that nothing is left over."""

    def __init__(self, model: PreTrainedModel) -> None:
        rules = get_model_conversion_mapping(model)
        self._renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        self._prefix: str = model.base_model_prefix
        self._parameters = dict(model.named_parameters())
        self._state: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
        self._ignored = _ignored_patterns(model)
        self._names_by_id = {id(value): name for name, value in self._parameters.items()}
        self._places: dict[str, _Place | None] = {}

    def fill(self, stream: Iterable[tuple[str, torch.Tensor]], *, within: str = "") -> None:
        """Copy every tensor to its place, converting the dtype where it differs.

        within: the parameters that must be given are those with names that begin so; all if empty.
        Tensors that transformers ignores in old checkpoints are ignored. Raises SourceError for any
        other unknown name, for a shape that differs, and for a parameter without a tensor.
        """
        filled = {name: 0 for name in self._parameters if name.startswith(within)}
        tied: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            for name, tensor in stream:
                place = self._place(name)
                if place is None:
                    continue
                if tensor.shape != place.view.shape:
                    raise SourceError(
                        f"{name}: shape {list(tensor.shape)} does not fit {list(place.view.shape)} "
                        "of the live model; merge checkpoints of the base's structure"
                    )
                if place.alias:
                    tied[place.owner] = tensor
                    continue
                if tensor.data_ptr() != place.view.data_ptr():
                    place.view.copy_(tensor)
                if place.owner in filled:
                    filled[place.owner] += tensor.numel()
            for owner, tensor in tied.items():
                # A tied head stored alone fills both; beside stored embeddings it is ignored.
                if filled[owner] == 0:
                    self._parameters[owner].copy_(tensor)
                    filled[owner] = tensor.numel()
        self._check_complete(filled)

    def destination(self, name: str) -> torch.Tensor | None:
        """Memory into which a tensor of the checkpoint may be written before it is given to `fill`.

        None for the second name of a tied parameter, and for a tensor that transformers does not
        load. Raises SourceError for an unknown name.
        """
        place = self._place(name)
        return None if place is None or place.alias else place.view

    def owner(self, name: str) -> str | None:
        """The parameter that a tensor of the checkpoint fills; None if it is not loaded.

        Raises SourceError for an unknown name.
        """
        place = self._place(name)
        return None if place is None else place.owner

    def _check_complete(self, filled: dict[str, int]) -> None:
        for name, count in filled.items():
            if count < self._parameters[name].numel():
                raise SourceError(
                    f"{name}: no tensor was given for it; the merge must hold every tensor of the "
                    "base"
                )

    def _place(self, name: str) -> _Place | None:
        if name not in self._places:
            self._places[name] = self._find(name)
        return self._places[name]

    def _find(self, name: str) -> _Place | None:
        target, pattern = rename_source_key(
            name, self._renamings, self._converters, self._prefix, self._state
        )
        parameter = self._state.get(target)
        if parameter is None:
            if any(pattern.search(name) for pattern in self._ignored):
                return None
            raise SourceError(
                f"{name}: the live model has no such tensor; merge checkpoints of the base's "
                "structure"
            )
        owner = self._names_by_id.get(id(parameter), target)
        view = parameter.detach()
        if pattern is None:
            return _Place(owner, view, alias=owner != target)
        return _Place(owner, self._part(name, view, pattern), alias=False)

    def _part(self, name: str, fused: torch.Tensor, pattern: str) -> torch.Tensor:
        """The part of a fused parameter that one expert's tensor fills."""
        converter = next(rule for rule in self._converters if pattern in rule.source_patterns)
        stack, *rest = converter.operations
        number = re.search(pattern.replace(".", r"\.").replace(r"*\.", r"(\d+)\."), name)
        stacked = isinstance(stack, MergeModulelist) and stack.dim == 0 and number is not None
        joined = len(rest) == 1 and isinstance(rest[0], Concatenate)
        if not stacked or (rest and not joined):
            raise SourceError(
                f"{name}: this architecture rearranges the tensor on load in a way that is not "
                "supported; merge another architecture"
            )
        assert number is not None
        part = fused[int(number.group(1))]
        if rest:
            # The joined dimension counts the stacked one, which the index above removed.
            parts = part.chunk(len(converter.source_patterns), dim=rest[0].dim - 1)
            part = parts[converter.source_patterns.index(pattern)]
        return part


def _ignored_patterns(model: PreTrainedModel) -> list[re.Pattern[str]]:
    """Names of tensors that old checkpoints store, and that transformers no longer loads."""
    patterns = set(model._keys_to_ignore_on_load_unexpected or ())
    if any(name.endswith("rotary_emb.inv_freq") for name, _ in model.named_buffers()):
        patterns.add(r"rotary_emb\.inv_freq")
    return [re.compile(pattern) for pattern in sorted(patterns)]
