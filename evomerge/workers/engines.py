"""The registry of scoring engines: a new engine is a line here and a file of live models.

Installed packages add their own engines by entry points of the group `evomerge.engines`: each gives
the name of an engine and where its `ScoringEngine` is. It is imported only when a job has that
name.
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
"""compute.engine of a job -> evomerge's own engine; the names are in job/sections.py."""

AUTO = TRANSFORMERS
"""The engine of `compute.engine: auto`. vLLM has never been run on a GPU, so a job must name it."""


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
    """The engine of a job. Raises JobError if it does not exist or is broken."""
    if compute.engine == "auto":
        return AUTO
    problem = engine_problem(compute.engine)
    if problem is not None:
        raise JobError(f"compute.engine: {problem}")
    return ENGINES[compute.engine]


def is_package_engine(name: str) -> bool:
    """Whether the engine is of an installed package, and not evomerge's own."""
    return name != "auto" and name not in BUILT_IN


@contextmanager
def engine_errors(engine: ScoringEngine, what: str) -> Iterator[None]:
    """Within, an error in the code of a package becomes one line that says what the code was to do.

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
    """Versions for a record: those of the job's engine, and of its package if it has one."""
    engine = engine_of(compute)
    with engine_errors(engine, "say its versions"):
        own = {str(package): str(number) for package, number in engine.versions().items()}
    return {**ENGINES.versions([engine.name]), **own}
