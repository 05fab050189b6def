"""What evomerge needs of a scoring engine: a row of the registry, and its live models.

An engine answers the tasks' requests with a live model (`evomerge.evaluate.Engine`). A row says
what the engine needs, which jobs it refuses, and how a worker gets its live models.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from evomerge.errors import JobError
from evomerge.evaluate import Engine
from evomerge.merge import MergeEngine
from evomerge.recipe import Recipe
from evomerge.sources import Source
from evomerge.workers.preparation.prepared_job import PreparedJob


class EngineModels(Protocol):
    """The live models of one engine in one worker, on one device.

    A live model is made for the first recipe of its kind and kept for later ones, as far as memory
    allows.
    """

    def expect(self, routes: Sequence[Recipe], *, sources: Mapping[str, Source]) -> None:
        """Announce the routes that come next, on the same items; this changes costs, never a score.

        sources: opened models by reference, also stages.
        """

    def hold(self, recipe: Recipe, *, sources: Mapping[str, Source], merge: MergeEngine) -> Engine:
        """Put the recipe's model into an engine and return the engine; `use` is called after.

        A recipe may be a merge, a single model, layers put together (`slices`, `modules`) or a
        `route`. sources: as in expect. merge: executes recipes over these sources.
        Raises RecipeError, SourceError.
        """

    def forget_stages(self) -> None:
        """Drop what is kept by the names of stages: they mean other models from now on."""

    def release(self) -> None:
        """Free all memory that can be filled again."""


class OpenModels(Protocol):
    """How a worker gets the live models of an engine."""

    def __call__(self, preparation: PreparedJob, *, device: str) -> EngineModels:
        """The live models of a job; nothing large is made yet. device: "cpu", "cuda", "cuda:1"."""


class CheckJob(Protocol):
    """How an engine refuses a job before anything is started."""

    def __call__(self, preparation: PreparedJob, *, device: str) -> None:
        """Raise InputError, in one line, for a job or a model that cannot be served here."""


@dataclass(frozen=True, kw_only=True)
class ScoringEngine:
    """A scoring engine as a job names it in `compute.engine`.

    module: name of the module that must be installed; None if nothing must be. install: how to
    install it, for the error message. versions: package -> version, for the record; called only if
    the engine is installed and a job uses it.
    """

    name: str
    open_models: OpenModels
    check_job: CheckJob
    module: str | None = None
    install: str = "install it"
    versions: Callable[[], Mapping[str, str]] = dict

    def check_installed(self) -> None:
        """Raise JobError if the engine is not installed; imports nothing of it."""
        if self.module is not None and importlib.util.find_spec(self.module) is None:
            raise JobError(
                f"compute.engine: {self.name} is not installed; {self.install}, or set it to "
                "transformers"
            )
