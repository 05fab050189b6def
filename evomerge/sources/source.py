"""What everything downstream knows of a model to be merged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from evomerge.sources.structure import Structure


class Source(Protocol):
    """A model opened for reading: a checkpoint, or an adapter over one."""

    @property
    def reference(self) -> str:
        """How recipes name it: a folder or a hub id."""

    @property
    def folder(self) -> Path:
        """Where its files lie."""

    @property
    def revision(self) -> str | None:
        """The commit of a hub id; None for a local folder."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Its config.json; an adapter's is its base's."""

    @property
    def structure(self) -> Structure:
        """How it is built."""

    @property
    def files(self) -> Mapping[str, Path]:
        """Every file that makes the model: weights, configurations, tokenizer; by name."""

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor by its name in `structure.shapes`; never to be written to.

        In the stored dtype, but that what an adapter changes is float32.
        """

    def as_stored(self, name: str) -> bool:
        """Whether a tensor's rows are those of the model's own files, in their order."""

    def prefetch(self, name: str) -> None:
        """Ask the system to read a tensor's bytes ahead; returns at once."""

    def sha256(self) -> Mapping[str, str]:
        """Hex digest of each of `files`. Reads every byte. Raises SourceError."""
