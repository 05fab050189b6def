"""The models of a job, opened."""

from __future__ import annotations

from evomerge.job import JobSpec
from evomerge.sources import Source, open_source


def open_models_of(job: JobSpec) -> dict[str, Source]:
    """Every model of the job by its reference, the base first; adapters are opened over the base.

    Raises SourceError.
    """
    models = job.models
    base = open_source(models.base, where="models.base")
    experts = {
        reference: open_source(reference, where=f"models.sources.{place}", base=base)
        for place, reference in enumerate(models.sources)
    }
    return {models.base: base, **experts}
