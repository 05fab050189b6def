"""A model with the vocabulary of the result: its rows are put in the result's token order.

Only tensors with one row for each token change. They are computed when they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evomerge.deferred import torch
from evomerge.sources import Adapter, Source, Structure, read_json
from evomerge.vocabulary.rows import ABSENT, RowPlan
from evomerge.vocabulary.settings import TokenSettings, generation_file, with_settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BLOCK_ROWS = 4096
"""Rows that are summed at a time for a mean."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AlignedTensor:
    """One tensor of one model over the rows of a plan.

    donors: models and their names of the tensor, for rows that this model lacks.
    """

    reference: str
    plan: RowPlan
    donors: Mapping[str, tuple[Source, str]]

    def of(self, own: torch.Tensor) -> torch.Tensor:
        """The model's tensor, (its rows, ...), as (rows of the result, ...).

        A view where no row moves. The dtype is the stored one, but float32 if some rows are means
        or come from a model with another dtype.
        """
        rows = self.plan.own[self.reference]
        kept = _leading(rows)
        if kept == self.plan.count:
            return own[:kept]
        fills = [
            self._fill(donors, ids, donor_rows) for donors, ids, donor_rows in self._needed(rows)
        ]
        exact = not len(self.plan.spare) and all(
            len(values) < 2 and all(value.dtype == own.dtype for value in values)
            for _, values in fills
        )
        out = own.new_empty(
            (self.plan.count, *own.shape[1:]), dtype=own.dtype if exact else torch.float32
        )
        out[:kept] = own[:kept]
        moved = np.flatnonzero(rows[kept:] != ABSENT) + kept
        if len(moved):
            out[torch.from_numpy(moved)] = own[torch.from_numpy(rows[moved])].to(out.dtype)
        for ids, values in fills:
            if len(values) == 1:
                out[ids] = values[0].to(out.dtype)
                continue
            mean = torch.zeros((len(ids), *own.shape[1:]), dtype=torch.float32)
            for value in values:
                mean += value.float()
            out[ids] = (mean / max(1, len(values))).to(out.dtype)
        if len(self.plan.spare):
            out[torch.from_numpy(self.plan.spare)] = _mean(out, self.plan.spare)
        return out

    def _needed(
        self, rows: NDArray[np.int64]
    ) -> list[tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]]:
        """(donors, rows of the result, rows of the donors) for tokens that this model lacks."""
        needed = []
        for fill in self.plan.fills:
            lacking = rows[fill.ids] == ABSENT
            if lacking.any():
                needed.append((fill.donors, fill.ids[lacking], fill.rows[lacking]))
        return needed

    def _fill(
        self, donors: tuple[str, ...], ids: NDArray[np.int64], donor_rows: NDArray[np.int64]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Rows of the result, and the values that each donor gives for them."""
        values = []
        for place, donor in enumerate(donors):
            source, name = self.donors[donor]
            values.append(source.tensor(name)[torch.from_numpy(donor_rows[:, place].copy())])
        return torch.from_numpy(ids), values


class AlignedSource:
    """A model with the rows of the result's vocabulary; a Source.

    tokenizer: that of the result if it differs from every model's own files, else None. settings:
    where its configurations differ from those in `folder`.
    """

    def __init__(
        self,
        source: Source,
        *,
        tensors: Mapping[str, AlignedTensor],
        settings: TokenSettings,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        """tensors: by their name in the source."""
        self._source = source
        self._tensors = tensors
        self._last: tuple[str, torch.Tensor] | None = None
        self.settings = settings
        self.tokenizer = tokenizer
        self.config: Mapping[str, Any] = with_settings(source.config, settings.config)
        shapes = {
            name: (tensor.plan.count, *source.structure.shapes[name][1:])
            for name, tensor in tensors.items()
        }
        self.structure: Structure = replace(
            source.structure, shapes={**source.structure.shapes, **shapes}
        )

    @property
    def own(self) -> Source:
        """The model as in its own files."""
        return self._source

    @property
    def reference(self) -> str:
        """How recipes name the model."""
        return self._source.reference

    @property
    def folder(self) -> Path:
        """The folder of its files, which are unchanged."""
        return self._source.folder

    @property
    def revision(self) -> str | None:
        """The commit of a hub id; None for a local folder."""
        return self._source.revision

    @property
    def files(self) -> Mapping[str, Path]:
        """Every file that makes the model; by name."""
        return self._source.files

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor of `structure`; never to be written to.

        The last aligned tensor is kept, because a method may read it several times.
        """
        aligned = self._tensors.get(name)
        if aligned is None:
            return self._source.tensor(name)
        if self._last is None or self._last[0] != name:
            self._last = None  # never hold two embeddings at once
            self._last = name, aligned.of(self._source.tensor(name))
        return self._last[1]

    def as_stored(self, name: str) -> bool:
        """Whether a tensor has the model's own rows, in the order of its own tokens."""
        return name not in self._tensors and self._source.as_stored(name)

    def prefetch(self, name: str) -> None:
        """Ask the system to read a tensor's bytes ahead; returns at once."""
        self._source.prefetch(name)

    def sha256(self) -> Mapping[str, str]:
        """Hex digest of each of `files`. Reads every byte. Raises SourceError."""
        return self._source.sha256()


def settings_of(source: Source) -> TokenSettings:
    """Where a model's configurations differ from its files; empty for an unchanged model."""
    return source.settings if isinstance(source, AlignedSource) else TokenSettings()


def config_folder(source: Source) -> Path:
    """The folder with a model's config.json; for an adapter, its base's folder."""
    own = source.own if isinstance(source, AlignedSource) else source
    return own.base.folder if isinstance(own, Adapter) else own.folder


def generation_file_of(source: Source) -> Path | None:
    """The generation_config.json of a model's own files, whatever vocabulary it has now."""
    return generation_file(source.own if isinstance(source, AlignedSource) else source)


def stated_generation(source: Source) -> Mapping[str, Any] | None:
    """A model's generation_config.json, in its present vocabulary; None where it has none."""
    file = generation_file_of(source)
    if file is None:
        return None
    return {**read_json(file, source.reference), **settings_of(source).generation}


def _leading(rows: NDArray[np.int64]) -> int:
    """How many rows, from the first on, keep their place."""
    moved = np.flatnonzero(rows != np.arange(len(rows)))
    return int(moved[0]) if len(moved) else len(rows)


def _mean(tensor: torch.Tensor, spare: NDArray[np.int64]) -> torch.Tensor:
    """The mean of all rows but the spare ones; the same bits for any number of threads."""
    counted = np.ones(len(tensor), dtype=bool)
    counted[spare] = False
    total = np.zeros(tensor.shape[1:], dtype=np.float64)
    for start in range(0, len(tensor), _BLOCK_ROWS):
        block = tensor[start : start + _BLOCK_ROWS].float().numpy()
        total += block[counted[start : start + _BLOCK_ROWS]].sum(axis=0, dtype=np.float64)
    return torch.from_numpy(np.asarray(total / counted.sum())).to(tensor.dtype)
