"""Caches of keys and values: of a trunk, and of answers that are being generated.

transformers gets both as its cache. A trunk is computed once, as one row. Passes of many rows read
it, and it does not grow with them. Answers have a row each, in memory that is written in place, so
a step copies no past. Both hold every token, so neither supports sliding windows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from evomerge.devices import upload

States = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer."""


class _Layer(CacheLayerMixin):  # type: ignore[misc]  # transformers has no types
    """One layer of a cache; the cache gives its length."""

    is_sliding = False
    keys: torch.Tensor | None
    values: torch.Tensor | None

    def __init__(self, length: Callable[[], int]) -> None:
        super().__init__()
        self._length = length

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: memory is allocated when the first states come."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of keys that a pass of so many tokens sees, and the place of the first."""
        return self._length() + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens of the past."""
        return self._length()

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class _TrunkLayer(_Layer):
    """keys, values: (1, heads, length, size) of the trunk. latest: those of the last pass."""

    latest: tuple[torch.Tensor, torch.Tensor]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The trunk's states and those of a pass, (rows, heads, length + columns, size)."""
        self.latest = key_states, value_states
        return self.joined(self.keys, key_states), self.joined(self.values, value_states)

    def joined(self, trunk: torch.Tensor | None, states: torch.Tensor) -> torch.Tensor:
        """States of the trunk, repeated for every row, and after them those of a pass."""
        if trunk is None or not self._length():
            return states
        past = trunk[:, :, : self._length()]
        return torch.cat([past.expand(len(states), -1, -1, -1), states], dim=2)

    def grow(self) -> None:
        """Add the last pass, of one row, to the trunk."""
        keys, values = self.latest
        self.keys, self.values = self.joined(self.keys, keys), self.joined(self.values, values)


class TrunkCache(Cache):  # type: ignore[misc]  # transformers has no types
    """The states of one trunk: passes read them, and only `grow` adds to them.

    length: tokens of the trunk; lower it to go back to where other branches begin.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.length = 0

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: object,
        **__: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What a layer attends to; see Cache.update."""
        while len(self.layers) <= layer_idx:
            self.layers.append(_TrunkLayer(lambda: self.length))
        states: tuple[torch.Tensor, torch.Tensor] = self.layers[layer_idx].update(
            key_states, value_states
        )
        return states

    def grow(self) -> None:
        """Add the last pass to the trunk."""
        added = 0
        for layer in self._used():
            added = layer.latest[0].shape[2]
            layer.grow()
        self.length += added

    def paths(self, past: int, cells: torch.Tensor) -> States:
        """Keys and values (texts, heads, past + longest, size) of some texts, layer by layer.

        past: tokens of the trunk. cells: (texts, longest) numbers of cells of the last pass, row by
        row; any numbers fill up the shorter texts.
        """
        return [
            (
                _texts(layer.keys, layer.latest[0], past, cells),
                _texts(layer.values, layer.latest[1], past, cells),
            )
            for layer in self._used()
        ]

    def _used(self) -> Sequence[_TrunkLayer]:
        # A route that begins late leaves the first layers without states.
        return [layer for layer in self.layers if hasattr(layer, "latest")]


class _AnswerLayer(_Layer):
    """keys, values: (rows, heads, room, size), of which only a part is in use."""

    def __init__(self, cache: AnswerCache) -> None:
        super().__init__(lambda: cache.longest - 1)
        self._cache = cache

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token a row and return what all rows hold, (rows, heads, longest, size)."""
        cache = self._cache
        assert self.keys is not None and self.values is not None
        self.keys[cache.rows, :, cache.ends] = key_states[:, :, 0]
        self.values[cache.rows, :, cache.ends] = value_states[:, :, 0]
        count, longest = len(cache.rows), cache.longest
        return self.keys[:count, :, :longest], self.values[:count, :, :longest]

    def put(self, row: int, keys: torch.Tensor, values: torch.Tensor, *, room: int) -> None:
        """Store (texts, heads, length, size) as the states of the rows from `row` on.

        room: most tokens that these rows may reach, at least their length.
        """
        rows, tokens = row + len(keys), keys.shape[2]
        self.keys = _with_room(self.keys, keys, rows=rows, tokens=room)
        self.values = _with_room(self.values, values, rows=rows, tokens=room)
        self.keys[row:rows, :, :tokens] = keys
        self.values[row:rows, :, :tokens] = values

    def move(self, sources: torch.Tensor, targets: torch.Tensor, length: int) -> None:
        """Copy the first tokens of some rows to others."""
        for states in (self.keys, self.values):
            assert states is not None
            states[targets, :, :length] = states[sources, :, :length]


class AnswerCache(Cache):  # type: ignore[misc]  # transformers has no types
    """The states of answers that are being generated, a row each, without gaps between the rows.

    lengths: tokens of each row. rows, ends: (rows,) numbers of the rows, and where their next
    tokens go. longest: tokens of the longest row after its next token.
    """

    def __init__(self, *, device: torch.device) -> None:
        super().__init__(layers=[])
        self.lengths: list[int] = []
        self.rows = self.ends = torch.zeros(0, dtype=torch.long, device=device)
        self.longest = 1
        self._device = device

    def add(self, states: States, lengths: Sequence[int], *, room: int) -> None:
        """Add rows at the end; states: (rows, heads, longest, size), lengths: tokens of each row.

        room: most tokens that the longest of them may reach. It is allocated at once, so no step
        copies the past.
        """
        while len(self.layers) < len(states):
            self.layers.append(_AnswerLayer(self))
        for layer, (keys, values) in zip(self.layers, states, strict=True):
            layer.put(len(self.lengths), keys, values, room=room)
        self.lengths += lengths

    def remove(self, rows: Collection[int]) -> list[tuple[int, int]]:
        """Remove rows and put rows from the end in their places: (from, to) of each.

        This is one copy a layer, because many answers may end at the same step.
        """
        count = len(self.lengths) - len(rows)
        holes = sorted(row for row in rows if row < count)
        movers = [row for row in range(count, len(self.lengths)) if row not in rows]
        moves = list(zip(movers, holes, strict=True))
        if moves:
            sources, targets = upload(np.array([movers, holes]), self._device)
            longest = max(self.lengths[row] for row in movers)
            for layer in self.layers:
                layer.move(sources, targets, longest)
        for source, target in moves:
            self.lengths[target] = self.lengths[source]
        del self.lengths[count:]
        return moves

    def begin_step(self, ends: torch.Tensor) -> None:
        """Prepare for a pass of one token a row; ends: the lengths, on the device."""
        self.longest = max(self.lengths) + 1
        self.rows = torch.arange(len(self.lengths), device=self._device)
        self.ends = ends
        self.lengths = [length + 1 for length in self.lengths]

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: object,
        **__: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What a layer attends to; see Cache.update."""
        states: tuple[torch.Tensor, torch.Tensor] = self.layers[layer_idx].update(
            key_states, value_states
        )
        return states


def _texts(
    trunk: torch.Tensor | None, latest: torch.Tensor, past: int, cells: torch.Tensor
) -> torch.Tensor:
    columns = latest.shape[2]
    rows = cells.div(columns, rounding_mode="floor")
    own = latest[rows, :, cells % columns].transpose(1, 2)  # (texts, heads, longest, size)
    if trunk is None or not past:
        return own
    return torch.cat([trunk[:, :, :past].expand(len(own), -1, -1, -1), own], dim=2)


def _with_room(
    states: torch.Tensor | None, like: torch.Tensor, *, rows: int, tokens: int
) -> torch.Tensor:
    """Memory (rows, heads, tokens, size) at least; the old states are at its beginning."""
    old_size = (len(states), states.shape[2]) if states is not None else (0, 0)
    if states is not None and old_size[0] >= rows and old_size[1] >= tokens:
        return states
    rows = old_size[0] if old_size[0] >= rows else max(rows, 2 * old_size[0])
    tokens = max(tokens, old_size[1])
    # Zeros, because a mask does not hide a NaN that is in memory by chance.
    grown = like.new_zeros((rows, like.shape[1], tokens, like.shape[3]))
    if states is not None:
        grown[: old_size[0], :, : old_size[1]] = states
    return grown
