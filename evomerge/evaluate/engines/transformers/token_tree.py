"""Texts as a tree of tokens, cut into forward passes that compute no shared token twice.

Texts with the same beginning share its path. A beginning that is shared by more texts than one pass
holds is a trunk: one pass computes it, and later passes read it from a cache. Everything else is
packed: branches are put end to end in one row, and a mask of ancestors keeps them apart. Sharing is
found from the token ids alone, so few-shot examples, system prompts and contexts of several choices
are one case. The plan depends on the texts and the limits alone, never on time, so rounding errors
repeat.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluate.engines.base import Tokens

Integers = NDArray[np.int64]

SHORTEST_TRUNK = 16
"""Fewest shared tokens for which a pass of their own and a cache of them pay."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large passes and rows may get, in tokens.

    pass_tokens: cells of a pass. row_tokens: of a row of texts that share a beginning as long as a
    trunk; a longer text has its own row. packed_tokens: of a row of other texts, at most
    row_tokens; it may be as long as the longest row of its pass.
    """

    pass_tokens: int
    row_tokens: int
    packed_tokens: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """One forward pass over (rows, columns) cells, each a token or padding at the end of its row.

    past: how many tokens of the trunk the pass reads from the cache, at depths 0 to past - 1.
    trunk: whether its one row is added to the cache, for the passes after it.
    causal: whether each row is one text from its beginning, so that causal attention is enough.
    ids, depths: (rows, columns) token ids and their places in their texts. ends: (rows, columns)
    first column after a cell's descendants. A cell sees the cells of its row that are not after it
    and end after it. texts: the texts that have their last token here.
    """

    past: int
    trunk: bool
    causal: bool
    ids: Integers
    depths: Integers
    ends: Integers
    texts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """Where a text is computed: the pass of its last token, and the cells of tokens after its past.

    trunks: (first depth, pass) of the trunks in that past. cells: (length - past,) numbers of
    cells, row by row, in depth's order.
    """

    last: int
    past: int
    trunks: tuple[tuple[int, int], ...]
    cells: Integers

    def find(self, depth: int) -> tuple[int, int]:
        """The pass and the cell of the text's token at a depth."""
        if depth >= self.past:
            return self.last, int(self.cells[depth - self.past])
        start, number = next(trunk for trunk in reversed(self.trunks) if trunk[0] <= depth)
        return number, depth - start


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Passes in the order to run them, and the place of each text."""

    passes: tuple[Pass, ...]
    places: tuple[Place, ...]


@dataclass(frozen=True)
class _Branches:
    """Sorted texts [start, stop) that go on after `past` cached tokens; tokens: of their tree."""

    start: int
    stop: int
    tokens: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Row:
    """ids, depths, ends: (columns,) as of a pass. paths: the columns of each sorted text."""

    ids: Integers
    depths: Integers
    ends: Integers
    paths: dict[int, Integers]


_Trunks = tuple[tuple[int, int], ...]
"""First depth and pass of each trunk that a text reads, as of `Place`."""


def plan_passes(texts: Sequence[Tokens], limits: Limits, *, shortest: int = SHORTEST_TRUNK) -> Plan:
    """Cut texts, distinct and not empty, into passes; shortest: fewest tokens of a trunk."""
    assert texts
    return _Planner(texts, limits, shortest).plan()


class _Planner:
    def __init__(self, texts: Sequence[Tokens], limits: Limits, shortest: int) -> None:
        self._order = sorted(range(len(texts)), key=lambda i: texts[i].astype(">i8").tobytes())
        self._texts = [texts[i] for i in self._order]
        self._lengths = np.array([len(text) for text in self._texts])
        pairs = zip(self._texts, self._texts[1:], strict=False)
        self._shared = np.array([0, *(_shared(text, following) for text, following in pairs)])
        self._limits, self._shortest = limits, shortest
        self._passes: list[Pass] = []
        self._places: dict[int, Place] = {}

    def plan(self) -> Plan:
        self._pack(self._cut(0, len(self._texts), 0, ()), 0, ())
        places = tuple(self._places[text] for text in range(len(self._texts)))
        return Plan(passes=tuple(self._passes), places=places)

    def _cut(self, start: int, stop: int, past: int, trunks: _Trunks) -> list[_Branches]:
        """Parts for rows that go on after `past`; these sorted texts are the same up to there.

        Texts that continue a longer trunk are laid at once, after that trunk.
        """
        if self._belongs_together(start, stop, past):
            return [_Branches(start, stop, self._tokens(start, stop, past))]
        common = self._common(start, stop)
        if common - past >= self._shortest:
            number = len(self._passes)
            ended = start + 1 if self._lengths[start] == common else start
            self._lay([[(start, ended)]], past, trunks, trunk_end=common)
            trunks = (*trunks, (past, number))
            self._pack(self._split(ended, stop, common, common, trunks), common, trunks)
            return []
        return self._split(start, stop, past, common, trunks)

    def _split(
        self, start: int, stop: int, past: int, common: int, trunks: _Trunks
    ) -> list[_Branches]:
        """The same for texts that differ after `common` tokens; small neighbours stay together."""
        parts: list[_Branches] = []
        for branch in self._branches(start, stop, past, common):
            if parts and parts[-1].stop == branch.start:
                first = parts[-1].start
                tokens = self._tokens(first, branch.stop, past)
                if tokens <= self._limits.packed_tokens:
                    parts[-1] = _Branches(first, branch.stop, tokens)
                    continue
            parts += self._cut(branch.start, branch.stop, past, trunks)
        return parts

    def _branches(self, start: int, stop: int, past: int, common: int) -> Iterator[_Branches]:
        """The subtrees after `common` tokens; no two of them share a longer beginning."""
        first = start
        for text in range(start + 1, stop + 1):
            if text == stop or self._shared[text] <= common:
                yield _Branches(first, text, self._tokens(first, text, past))
                first = text

    def _belongs_together(self, start: int, stop: int, past: int) -> bool:
        """Whether one row takes these texts; with a long trunk it also takes a few short ends."""
        tokens = self._tokens(start, stop, past)
        shared = self._common(start, stop) - past
        limit = self._limits.packed_tokens if shared < self._shortest else self._limits.row_tokens
        return tokens <= limit or tokens - shared <= self._limits.row_tokens // 4

    def _common(self, start: int, stop: int) -> int:
        """Length of the beginning that these texts share; of a single text, its whole length."""
        if stop - start == 1:
            return int(self._lengths[start])
        return int(self._shared[start + 1 : stop].min())

    def _tokens(self, start: int, stop: int, past: int) -> int:
        """Tokens of the texts' tree beyond `past`."""
        own = self._lengths[start:stop] - self._shared[start:stop]
        return int(self._lengths[start] - past + own[1:].sum())

    def _pack(self, parts: Sequence[_Branches], past: int, trunks: _Trunks) -> None:
        """Fill rows with parts, the largest first, and passes with rows of about one length."""
        rows: list[tuple[int, list[_Branches]]] = []
        room: list[tuple[int, int]] = []  # (tokens left, number) of each row, sorted
        columns = to_come = 0  # of the pass that new rows belong to
        for part in sorted(parts, key=lambda part: (-part.tokens, part.start)):
            fitting = bisect.bisect_left(room, (part.tokens, -1))
            if fitting < len(room):
                left, number = room.pop(fitting)
                tokens, row_parts = rows[number]
                rows[number] = tokens + part.tokens, [*row_parts, part]
            else:
                if not to_come:
                    # Rows are padded to the longest of their pass, so all may be as long as that.
                    columns = max(part.tokens, self._limits.packed_tokens)
                    to_come = self._rows(columns, past)
                to_come -= 1
                left, number = columns, len(rows)
                rows.append((part.tokens, [part]))
            bisect.insort(room, (left - part.tokens, number))
        rows.sort(key=lambda row: -row[0])
        while rows:
            most = self._rows(rows[0][0], past)
            pass_rows, rows = rows[:most], rows[most:]
            spans = [[(part.start, part.stop) for part in row_parts] for _, row_parts in pass_rows]
            self._lay(spans, past, trunks)

    def _rows(self, columns: int, past: int) -> int:
        """Number of rows in a pass; each of them reads a copy of the trunk's keys and values."""
        tokens = self._limits.pass_tokens
        return max(1, min(tokens // columns, 8 * tokens // (columns + past)))

    def _lay(
        self,
        rows: Sequence[Sequence[tuple[int, int]]],
        past: int,
        trunks: _Trunks,
        *,
        trunk_end: int | None = None,
    ) -> None:
        """Append a pass; rows: for each row, its parts as sorted texts [start, stop).

        trunk_end: the depth at which the pass ends as a trunk; None if it is none. At most one text
        ends there.
        """
        number = len(self._passes)
        if trunk_end is None:
            laid = [self._row(row, past) for row in rows]
        else:
            laid = [self._trunk(rows[0][0], past, trunk_end)]
        columns = max(len(row.ids) for row in laid)
        shape = len(laid), columns
        ids, depths = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        ends = np.tile(np.arange(1, columns + 1), (len(laid), 1))  # padding sees itself
        texts = []
        for place, row in enumerate(laid):
            ids[place, : len(row.ids)] = row.ids
            depths[place, : len(row.ids)] = row.depths
            ends[place, : len(row.ids)] = row.ends
            for sorted_text, path in row.paths.items():
                text = self._order[sorted_text]
                texts.append(text)
                self._places[text] = Place(
                    last=number, past=past, trunks=trunks, cells=path + place * columns
                )
        self._passes.append(
            Pass(
                past=past,
                trunk=trunk_end is not None,
                causal=past == 0 and all((row.ends == len(row.ids)).all() for row in laid),
                ids=ids,
                depths=depths,
                ends=ends,
                texts=tuple(texts),
            )
        )

    def _trunk(self, texts: tuple[int, int], past: int, end: int) -> _Row:
        start, stop = texts
        path = np.arange(end - past)
        return _Row(
            ids=self._texts[start][past:end],
            depths=path + past,
            ends=np.full(len(path), len(path)),
            paths=dict.fromkeys(range(start, stop), path),
        )

    def _row(self, parts: Sequence[tuple[int, int]], past: int) -> _Row:
        """Trees of texts beyond `past`, end to end."""
        size = sum(self._tokens(start, stop, past) for start, stop in parts)
        ids, depths = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        ends = np.zeros(size, dtype=np.int64)
        paths: dict[int, Integers] = {}
        filled = 0
        for start, stop in parts:
            path = np.zeros(0, dtype=np.int64)
            for text in range(start, stop):
                branch_depth = int(self._shared[text]) if text > start else past
                ends[path[branch_depth - past :]] = filled
                fresh = np.arange(filled, filled + int(self._lengths[text]) - branch_depth)
                path = np.concatenate([path[: branch_depth - past], fresh])
                ids[fresh] = self._texts[text][branch_depth:]
                depths[fresh] = np.arange(branch_depth, self._lengths[text])
                paths[text] = path
                filled += len(fresh)
            ends[path] = filled
        return _Row(ids=ids, depths=depths, ends=ends, paths=paths)


def _shared(text: Tokens, following: Tokens) -> int:
    """Length of the beginning that two texts share."""
    length = min(len(text), len(following))
    differ = text[:length] != following[:length]
    return int(differ.argmax()) if differ.any() else length


# Plans are kept, because all candidates of a generation get the same requests.


_KEPT_CELLS = 1 << 20
"""Most cells of all kept plans, some 24 bytes each; the latest plan is kept at any size."""


class KeptPlans:
    """Makes plans and keeps the last few."""

    def __init__(self) -> None:
        self._plans: dict[tuple[bytes, Limits], Plan] = {}

    def plan(self, texts: Sequence[Tokens], limits: Limits) -> Plan:
        """See `plan_passes`."""
        hasher = hashlib.blake2b(repr([len(text) for text in texts]).encode())
        for text in texts:
            hasher.update(text.tobytes())
        key = hasher.digest(), limits
        plan = self._plans.pop(key, None)
        if plan is not None:
            self._plans[key] = plan  # the latest is last
            return plan
        plan = self._plans[key] = plan_passes(texts, limits)
        while len(self._plans) > 1 and sum(map(_cells, self._plans.values())) > _KEPT_CELLS:
            del self._plans[next(iter(self._plans))]
        return plan


def _cells(plan: Plan) -> int:
    return sum(tree_pass.ids.size for tree_pass in plan.passes)
