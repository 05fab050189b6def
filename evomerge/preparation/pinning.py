"""A job with nothing left that could mean something else tomorrow or in another folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.job import JobSpec, parse_job
from evomerge.preparation.opening import open_models_of
from evomerge.sources import Adapter, Source
from evomerge.space import read_space


def pin(job: JobSpec) -> JobSpec:
    """The job with nothing left that could mean something else tomorrow or in another folder.

    Local paths become absolute, hub ids carry their commit, a named search space is written out.
    """
    sources = {name: pinned_reference(source) for name, source in open_models_of(job).items()}
    models = job.models.model_copy(
        update={
            "base": sources[job.models.base],
            "sources": tuple(sources[reference] for reference in job.models.sources),
            "tokenizer": _pinned_tokenizer(job.models.tokenizer, sources),
            "statistics": _absolute(job.models.statistics),
        }
    )
    folders = tuple(str(Path(folder).resolve()) for folder in job.evaluation.task_folders)
    evaluation = job.evaluation.model_copy(update={"task_folders": folders})
    written = [
        search.model_copy(update={"search_space": _pin_space(search.search_space, sources)})
        for search in job.searches
    ]
    searched = (
        {"stages": tuple(written)} if job.stages else {"search_space": written[0].search_space}
    )
    pinned = job.model_copy(update={"models": models, "evaluation": evaluation, **searched})
    # Two spellings of one folder are the same model now.
    return parse_job(pinned.to_yaml(), where="job")


def _pinned_tokenizer(written: str, pinned: Mapping[str, str]) -> str:
    """The words of a job mean what they say, also beside a model's folder of that name."""
    return written if written in ("base", "union") else pinned[written]


def _pin_space(spec: str | Mapping[str, Any], pinned: Mapping[str, str]) -> dict[str, Any]:
    """A space written out, its models named as the pinned job names them."""
    space = read_space(spec)
    routes = space.get("routes")
    if isinstance(routes, Mapping) and isinstance(models := routes.get("models"), list):
        space["routes"] = {**routes, "models": [pinned.get(name, name) for name in models]}
    return space


def pinned_reference(source: Source) -> str:
    """How to name a model so that it means the same everywhere on this machine.

    An adapter is named with its base, as recipes write it.
    """
    reference = (
        source.reference.rpartition("+")[2] if isinstance(source, Adapter) else source.reference
    )
    own = str(source.folder)
    if source.revision is not None:
        own = f"{reference.partition('@')[0]}@{source.revision}"
    return f"{pinned_reference(source.base)}+{own}" if isinstance(source, Adapter) else own


def _absolute(folder: str | None) -> str | None:
    return None if folder is None else str(Path(os.path.expanduser(folder)).resolve())
