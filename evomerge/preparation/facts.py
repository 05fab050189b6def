"""What a result depends on beyond the job, hashed, and whether it is still what it was."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evomerge.errors import RunError
from evomerge.evaluate.engines.vllm_start import vllm_version
from evomerge.job import JobSpec
from evomerge.preparation.preparation import Preparation
from evomerge.statistics import read_header

_PINNED = ("torch", "transformers", "lm-eval", "cma", "cmaes", "optuna", "numpy")
"""Packages whose version can change a genome or a score."""


def facts_of(preparation: Preparation) -> dict[str, Any]:
    """Hashes of everything a result depends on, and the versions it was made with."""
    return {
        "job": preparation.job.fingerprint(),
        "sources": {
            reference: dict(source.sha256()) for reference, source in preparation.sources.items()
        },
        "tasks": dict(preparation.task_files),
        "statistics": _statistics_files(preparation.job),
        "versions": _versions(preparation.job),
    }


def sources_digest(facts: Mapping[str, Any]) -> str:
    """A short name for what these sources hold in this job's vocabulary, from `facts_of`."""
    text = json.dumps([facts["sources"], facts["job"]["models"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_unchanged(before: Mapping[str, Any], now: Mapping[str, Any], *, where: str) -> list[str]:
    """Refuse to go on with a search whose job, tasks or sources are not those of its start.

    Returns the versions that changed, in words: they may change scores, so the user is told, but
    they do not stop a search. Raises RunError with the first difference named.
    """
    meanings = {"job": "the job's", "tasks": "task file", "sources": "source"}
    meanings["statistics"] = "the statistics"
    for part, meaning in meanings.items():
        old, new = before.get(part, {}), now[part]
        changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        if changed:
            detail = changed[0]
            if part == "sources":
                files = {**old.get(detail, {}), **new.get(detail, {})}
                differs = [
                    name
                    for name in sorted(files)
                    if old.get(detail, {}).get(name) != new.get(detail, {}).get(name)
                ]
                detail = f"{detail}/{differs[0]}"
            raise RunError(
                f"{where}: {meaning} {detail} changed since the search began; put it back as it "
                "was, or start a new search"
            )
    old, new = before["versions"], now["versions"]
    return [
        f"{package} {old.get(package, 'not used')} -> {new.get(package, 'not used')}"
        for package in {**old, **new}
        if old.get(package) != new.get(package)
    ]


def _versions(job: JobSpec) -> dict[str, str]:
    versions = {
        "python": platform.python_version(),
        **{package: version(package) for package in _PINNED},
    }
    if job.compute.engine == "vllm":
        versions["vllm"] = vllm_version()
    return versions


def _statistics_files(job: JobSpec) -> dict[str, str]:
    """What a job's statistics were computed of, file by file; their values follow from that."""
    folder = job.models.statistics
    if folder is None:
        return {}
    headers = {file.name: read_header(file) for file in sorted(Path(folder).glob("*.safetensors"))}
    return {
        name: json.dumps(header.to_metadata(), sort_keys=True)
        for name, header in headers.items()
        if header is not None
    }
