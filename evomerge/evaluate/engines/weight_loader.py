"""Finds the place of each checkpoint tensor in a live model, and copies tensors there.

Most tensors have the name of a parameter. A tied head is one parameter with two names. Some
architectures rename tensors on load, and mixture-of-experts checkpoints store one tensor for each
expert while the live model holds them fused. The rules are transformers' own. Here most become
views that a merge is copied into; tensors that are split, joined or turned in another way are
collected first, and transformers' own rule is applied to them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import final

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from evomerge.errors import SourceError, one_line


@dataclass(frozen=True)
class _Place:
    owner: str
    """The parameter, by the first of its names."""
    view: torch.Tensor
    """The memory that the tensor is copied into: the parameter or a part of it."""
    alias: bool
    """Whether this is the second name of a tied parameter."""


@final
@dataclass(frozen=True)
class _Piece:
    """A tensor that becomes parameters only together with others, or only a part of each."""

    owner: str
    """The parameter that names the rule's result; the rule may fill others too."""
    pattern: str
    """Which of the rule's tensors it is."""
    rule: WeightConverter


@dataclass
class _Collected:
    """The tensors of one rule that have come so far."""

    rule: WeightConverter
    tensors: dict[str, tuple[str, torch.Tensor]] = field(default_factory=dict)
    """Name -> its pattern in the rule, and the tensor."""

    @property
    def complete(self) -> bool:
        """Whether all have come; unknown, so False, where a pattern stands for many tensors."""
        wanted = self.rule.source_patterns
        found = {pattern for pattern, _ in self.tensors.values()}
        return found == set(wanted) and not any("*" in pattern for pattern in wanted)


class WeightLoader:
    """Copies checkpoints into one live model, in place, and checks that nothing is left over."""

    def __init__(self, model: PreTrainedModel) -> None:
        rules = get_model_conversion_mapping(model)
        self._renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        # Of rules for one pattern, in the parts of a model, transformers applies the last to all.
        self._rules = {
            pattern: rule for rule in self._converters for pattern in rule.source_patterns
        }
        self._model = model
        self._prefix: str = model.base_model_prefix
        self._parameters = dict(model.named_parameters())
        self._state: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
        self._ignored = _ignored_patterns(model)
        self._names_by_id = {id(value): name for name, value in self._parameters.items()}
        self._places: dict[str, _Place | _Piece | None] = {}

    def fill(self, stream: Iterable[tuple[str, torch.Tensor]], *, within: str = "") -> None:
        """Copy every tensor to its place, converting the dtype where it differs.

        within: the parameters that must be given are those with names that begin so; all if empty.
        Tensors that transformers ignores in old checkpoints are ignored. Tensors without values, on
        the meta device, are only checked. Raises SourceError for any other unknown name, for a
        shape that differs, and for a parameter without a tensor.
        """
        filled = {name: 0 for name in self._parameters if name.startswith(within)}
        tied: dict[str, torch.Tensor] = {}
        collected: dict[str, _Collected] = {}
        known = self._places  # read here, because this is done for every tensor of every candidate
        with torch.no_grad():
            for name, tensor in stream:
                try:
                    place = known[name]
                except KeyError:
                    place = self._place(name)
                if place is None:
                    continue
                if type(place) is _Piece:
                    pieces = collected.setdefault(place.owner, _Collected(place.rule))
                    pieces.tensors[name] = place.pattern, tensor
                    if pieces.complete:
                        self._convert(place.owner, collected.pop(place.owner), filled)
                    continue
                view = place.view
                if tensor.shape != view.shape:
                    raise SourceError(
                        f"{name}: shape {list(tensor.shape)} does not fit {list(view.shape)} "
                        "of the live model; merge checkpoints of the base's structure"
                    )
                if place.alias:
                    tied[place.owner] = tensor
                    continue
                if tensor.data_ptr() != view.data_ptr() and not tensor.is_meta:
                    # Nothing waits for a copy to a GPU: what uses the tensor comes after it.
                    view.copy_(tensor, non_blocking=view.is_cuda)
                if place.owner in filled:
                    filled[place.owner] += tensor.numel()
            for owner, pieces in collected.items():
                self._convert(owner, pieces, filled)
            for owner, tensor in tied.items():
                # A tied head stored alone fills both; beside stored embeddings it is ignored.
                if filled[owner] == 0:
                    _copy(tensor, self._parameters[owner])
                    filled[owner] = tensor.numel()
        self._check_complete(filled)

    def destination(self, name: str) -> torch.Tensor | None:
        """Memory into which a tensor of the checkpoint may be written before it is given to `fill`.

        None for the second name of a tied parameter, for a tensor that is rearranged on load, and
        for one that transformers does not load. Raises SourceError for an unknown name.
        """
        place = self._place(name)
        return place.view if isinstance(place, _Place) and not place.alias else None

    def rearranged(self, name: str) -> bool:
        """Whether a tensor is split, joined or turned on load, so that it has no memory of its own.

        Raises SourceError for an unknown name.
        """
        return isinstance(self._place(name), _Piece)

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

    def _convert(self, owner: str, pieces: _Collected, filled: dict[str, int]) -> None:
        """Make parameters of collected tensors by transformers' rule, and copy them in place."""
        rule = copy.deepcopy(pieces.rule)
        for name in sorted(pieces.tensors, key=dot_natural_key):  # transformers' own order
            pattern, tensor = pieces.tensors[name]
            rule.add_tensor(owner, name, pattern, tensor)
        first = next(iter(pieces.tensors))
        try:
            made = rule.convert(owner, model=self._model, config=self._model.config)
        except Exception as error:  # rules raise different errors for tensors that do not fit
            raise SourceError(
                f"{first}: cannot be made into {owner} ({one_line(error)}); merge checkpoints of "
                "the base's structure"
            ) from error
        for target, value in made.items():
            tensor = value[0] if isinstance(value, list) else value
            parameter = self._state.get(target)
            if parameter is None or parameter.shape != tensor.shape:
                raise SourceError(
                    f"{first}: it makes {list(tensor.shape)} of {target}, which does not fit the "
                    "live model; merge checkpoints of the base's structure"
                )
            _copy(tensor, parameter.detach())
            place = self._names_by_id.get(id(parameter), target)
            if place in filled:
                filled[place] += tensor.numel()

    def _place(self, name: str) -> _Place | _Piece | None:
        if name not in self._places:
            self._places[name] = self._find(name)
        return self._places[name]

    def _find(self, name: str) -> _Place | _Piece | None:
        target, pattern = rename_source_key(
            name, self._renamings, self._converters, self._prefix, self._state
        )
        if target not in self._state and name in self._state:
            # A pattern matched the name by mistake; transformers then uses the name itself.
            target, pattern = rename_source_key(name, [], [], self._prefix, self._state)
        parameter = self._state.get(target)
        if parameter is None:
            if any(ignored.search(name) for ignored in self._ignored):
                return None
            raise SourceError(
                f"{name}: the live model has no such tensor; merge checkpoints of the base's "
                "structure"
            )
        owner = self._names_by_id.get(id(parameter), target)
        view = parameter.detach()
        if pattern is None:
            return _Place(owner, view, alias=owner != target)
        rule = self._rules[pattern]
        part = _part(name, view, pattern, rule)
        return _Piece(target, pattern, rule) if part is None else _Place(owner, part, alias=False)


def _copy(tensor: torch.Tensor, to: torch.Tensor) -> None:
    """Copy values; one that is already there has them, and one without values is only counted."""
    if not tensor.is_meta and tensor.data_ptr() != to.data_ptr():
        to.copy_(tensor, non_blocking=to.is_cuda)


def _part(
    name: str, fused: torch.Tensor, pattern: str, rule: WeightConverter
) -> torch.Tensor | None:
    """The part of a fused parameter that one expert's tensor fills; None where there is none."""
    stack, *rest = rule.operations
    number = re.search(pattern.replace(".", r"\.").replace(r"*\.", r"(\d+)\."), name)
    stacked = isinstance(stack, MergeModulelist) and stack.dim == 0 and number is not None
    joined = len(rest) == 1 and isinstance(rest[0], Concatenate)
    if not stacked or (rest and not joined) or len(rule.target_patterns) > 1:
        return None
    assert number is not None
    expert = int(number.group(1))
    if expert >= len(fused):
        raise SourceError(
            f"{name}: the live model has {len(fused)} experts in a layer, counted from 0; merge "
            "checkpoints of the base's structure"
        )
    part = fused[expert]
    if rest:
        # The joined dimension counts the stacked one, which the index above removed.
        parts = part.chunk(len(rule.source_patterns), dim=rest[0].dim - 1)
        part = parts[rule.source_patterns.index(pattern)]
    return part


def _ignored_patterns(model: PreTrainedModel) -> list[re.Pattern[str]]:
    """Names of tensors that old checkpoints store, and that transformers no longer loads."""
    patterns = set(model._keys_to_ignore_on_load_unexpected or ())
    if any(name.endswith("rotary_emb.inv_freq") for name, _ in model.named_buffers()):
        patterns.add(r"rotary_emb\.inv_freq")
    return [re.compile(pattern) for pattern in sorted(patterns)]
