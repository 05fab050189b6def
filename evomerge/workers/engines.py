"""The registry of scoring engines. One file of live models each; a new engine is a line here.

Installed packages add engines of their own by entry points of the group `evomerge.engines`, each
the name of an engine and where its `ScoringEngine` is. One is imported when a job asks for its
name, and not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from evomerge.errors import JobError
from evomerge.job import ENGINES_GROUP, ComputeSpec, engine_problem
from evomerge.registry import Registry, package_errors
from evomerge.workers.scoring_engine import ScoringEngine
from evomerge.workers.transformers_models import TRANSFORMERS
from evomerge.workers.vllm_models import VLLM

BUILT_IN: dict[str, ScoringEngine] = {
    "transformers": TRANSFORMERS,
    "vllm": VLLM,
}
"""compute.engine of a job -> the engine, of evomerge's own; their names are in job/sections.py."""

AUTO = TRANSFORMERS
"""What `compute.engine: auto` is. vLLM has never been run on a GPU, so it is taken only by name."""


def _read(found: object, name: str) -> ScoringEngine | None:
    return found if isinstance(found, ScoringEngine) and found.name == name else None


ENGINES: Registry[ScoringEngine] = Registry(
    key="compute.engine",
    group=ENGINES_GROUP,
    built_in=BUILT_IN,
    read=_read,
    wanted="evomerge.workers.ScoringEngine of that name",
    code=lambda engine: engine.open_models,
    error=JobError,
)


def engine_of(compute: ComputeSpec) -> ScoringEngine:
    """The engine that a job asks for. Raises JobError where there is none, or it is broken."""
    if compute.engine == "auto":
        return AUTO
    problem = engine_problem(compute.engine)
    if problem is not None:
        raise JobError(f"compute.engine: {problem}")
    return ENGINES[compute.engine]


def is_package_engine(name: str) -> bool:
    """Whether an installed package has to offer it; evomerge has no such engine itself."""
    return name != "auto" and name not in BUILT_IN


@contextmanager
def asked(engine: ScoringEngine, what: str) -> Iterator[None]:
    """Say in one line what the code of a package raised, and what it was to do.

    Raises JobError.
    """
    if engine.name in BUILT_IN:
        yield
        return
    with package_errors(
        lambda raised: JobError(
            f"compute.engine: {engine.name} cannot {what} ({raised}); mend its package"
        )
    ):
        yield


def engine_versions(compute: ComputeSpec) -> Mapping[str, str]:
    """What a record holds of the job's engine: its versions, and its package's where it has one."""
    engine = engine_of(compute)
    with asked(engine, "say its versions"):
        own = {str(package): str(number) for package, number in engine.versions().items()}
    return {**ENGINES.versions([engine.name]), **own}
