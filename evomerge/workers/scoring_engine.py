"""What evomerge must know of a scoring engine: one row of the registry, and its live models.

An engine answers the tasks' requests with a live model (`evomerge.evaluate.Engine`). A row says
what it needs, which jobs it refuses, and how a worker gets its live models.
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

    They are made when the first recipe of their kind comes, and kept for those that follow, as far
    as memory allows.
    """

    def expect(self, routes: Sequence[Recipe], *, sources: Mapping[str, Source]) -> None:
        """Which routes come next, on the same items; it changes what they cost, never a score.

        sources: opened models by reference, stages among them.
        """

    def hold(self, recipe: Recipe, *, sources: Mapping[str, Source], merge: MergeEngine) -> Engine:
        """The engine with the recipe's model in it; `use` is called after.

        A recipe may be a merge, a model by itself, layers put together (`slices`, `modules`) or a
        `route`. sources: as in expect. merge: executes recipes over these.
        Raises RecipeError, SourceError.
        """

    def forget_stages(self) -> None:
        """Let go what is kept by the names of stages: they mean other models from now on."""

    def release(self) -> None:
        """Give back all memory that can be made again."""


class OpenModels(Protocol):
    """How a worker gets the live models of an engine."""

    def __call__(self, preparation: PreparedJob, *, device: str) -> EngineModels:
        """Those of a job; nothing large is made yet. device: "cpu", "cuda", "cuda:1"."""


class CheckJob(Protocol):
    """How an engine refuses a job before anything is started."""

    def __call__(self, preparation: PreparedJob, *, device: str) -> None:
        """Raise InputError, in one line, for a job or a model that cannot be served here."""


@dataclass(frozen=True, kw_only=True)
class ScoringEngine:
    """A scoring engine as a job names it in `compute.engine`.

    module: what must be installed for it, by the name that is imported; None where nothing is.
    install: how to install that, as an error says it. versions: what a record must hold of it,
    package -> version; asked for only where it is installed, and where a job has the engine.
    """

    name: str
    open_models: OpenModels
    check_job: CheckJob
    module: str | None = None
    install: str = "install it"
    versions: Callable[[], Mapping[str, str]] = dict

    def check_installed(self) -> None:
        """Raise JobError where it is not installed; imports nothing of it."""
        if self.module is not None and importlib.util.find_spec(self.module) is None:
            raise JobError(
                f"compute.engine: {self.name} is not installed; {self.install}, or set it to "
                "transformers"
            )
