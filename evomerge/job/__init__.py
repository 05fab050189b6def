"""The job: what a user asks for, as one validated value.

The same JobSpec serves the command line, Python callers and services. It checks everything that
can be known without opening a checkpoint or a task; it does not know what those hold.
"""

from evomerge.job.job import JobSpec, StageSpec
from evomerge.job.loading import load_job, parse_job
from evomerge.job.sections import (
    Aggregate,
    Algorithm,
    BudgetSpec,
    ComputeSpec,
    ConstraintSpec,
    Draws,
    EvaluationSpec,
    Mode,
    ModelsSpec,
    ObjectiveSpec,
    OptimizerSpec,
    ParetoAlgorithm,
    SingleAlgorithm,
    SplitSpec,
)
from evomerge.job.shipped import shipped_folder

__all__ = [
    "Aggregate",
    "Algorithm",
    "BudgetSpec",
    "ComputeSpec",
    "ConstraintSpec",
    "Draws",
    "EvaluationSpec",
    "JobSpec",
    "Mode",
    "ModelsSpec",
    "ObjectiveSpec",
    "OptimizerSpec",
    "ParetoAlgorithm",
    "SingleAlgorithm",
    "SplitSpec",
    "StageSpec",
    "load_job",
    "parse_job",
    "shipped_folder",
]
