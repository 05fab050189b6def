"""Hashes of everything that a result depends on, and a check that they have not changed."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from evomerge.errors import RunError, WorkerError
from evomerge.evaluate import WRITTEN, hash_opened
from evomerge.job import DRAWS, JobSpec
from evomerge.merge import METHODS, read_header
from evomerge.optimize import ALGORITHMS
from evomerge.workers.engines import engine_versions
from evomerge.workers.preparation.prepared_job import PreparedJob

_PINNED = ("torch", "transformers", "lm-eval", "cma", "cmaes", "optuna", "numpy")
"""Packages whose version can change a genome or a score."""

_WHERE_INSTALLED = (
    *("tokenizers", "sentencepiece", "safetensors", "datasets", "evaluate", "jinja2", "scipy"),
    *("numba", "scikit-learn", "py3langid", "sacrebleu", "rouge-score", "nltk", "sympy"),
    *("math-verify", "antlr4-python3-runtime", "latex2sympy2-extended", "pandas", "fugashi"),
)
"""Packages that prompts, merges and metrics are made with; many are needed by some tasks only."""


def fingerprints_of(preparation: PreparedJob) -> dict[str, Any]:
    """Hashes of everything a result depends on, and the versions it was made with."""
    return {
        "job": preparation.job.fingerprint(),
        "sources": {
            reference: dict(source.sha256()) for reference, source in preparation.sources.items()
        },
        "tasks": dict(preparation.task_files),
        "opened": opened_files_of(preparation),
        "statistics": _statistics_files(preparation.job),
        "versions": _versions(preparation.job),
    }


def cache_folder(run_dir: Path, facts: Mapping[str, Any]) -> Path:
    """Folder for the large arrays of a run's tensor cache, such as sorted magnitudes.

    facts: from `fingerprints_of`. The folder's name depends on the sources and the vocabulary.
    """
    text = json.dumps([facts["sources"], facts["job"]["models"]], sort_keys=True)
    return run_dir / "facts" / hashlib.sha256(text.encode()).hexdigest()[:16]


def check_unchanged(before: Mapping[str, Any], now: Mapping[str, Any], *, where: str) -> list[str]:
    """Refuse to continue a search if its job, tasks or sources changed since it began.

    Returns the versions that changed, in words: they may change scores, so the user is told, but
    they do not stop a search. Raises RunError with the first difference named.
    """
    missing = sorted({*now} - {*before})
    if missing:
        raise RunError(f"{where}: its record has no {missing[0]}; start a new search")
    meanings = {"job": "the job's", "tasks": "task file", "sources": "source"}
    meanings["statistics"] = "the statistics"
    for part, meaning in meanings.items():
        old, new = before[part], now[part]
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
    _check_opened(before["opened"], now["opened"], where)
    old, new = before["versions"], now["versions"]
    return [
        f"{package} {old.get(package, 'not used')} -> {new.get(package, 'not used')}"
        for package in {**old, **new}
        if old.get(package) != new.get(package)
    ]


def files_of(preparation: PreparedJob) -> dict[str, str]:
    """Hashes of the models' files, the tasks' files and their items: the same on every machine."""
    sources = {
        **preparation.sources,
        **{name: model.source for name, model in preparation.alone.items()},
    }
    of_models = {
        f"{reference}/{name}": digest
        for reference, source in sources.items()
        for name, digest in source.sha256().items()
    }
    return {**of_models, **preparation.task_files}


def check_alike(files: Mapping[str, str], preparation: PreparedJob) -> None:
    """Refuse, on another machine, models and tasks that are not those of the command's machine.

    files: from `files_of`, there. Raises WorkerError.
    """
    if not files:
        return
    found = files_of(preparation)
    differing = sorted(name for name in {*files, *found} if files.get(name) != found.get(name))
    if differing:
        raise WorkerError(
            f"{differing[0]} is not the same as where the command runs; give all machines the same "
            "models and tasks"
        )


def opened_files_of(preparation: PreparedJob) -> dict[str, dict[str, str]]:
    """The files that the tasks' code has read until now; it reads more as answers are scored."""
    suites = [preparation.suite, *(model.suite for model in preparation.alone.values())]
    return {
        name: asdict(file)
        for suite in reversed(suites)
        for name, file in suite.opened_files.items()
    }


def opened_count(preparation: PreparedJob) -> int:
    """A number that grows when the tasks' code has read more."""
    suites = {id(s): s for s in (preparation.suite, *(m.suite for m in preparation.alone.values()))}
    return sum(suite.opened_count for suite in suites.values())


def _check_opened(
    before: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]], where: str
) -> None:
    """Refuse files that changed since they were read, and files that were not read before.

    A file that is read only while answers are scored is searched in its old place and beside the
    tasks.
    """
    roots = {file["root"] for file in now.values()}
    for name in sorted({*before, *now}):
        if name not in before:
            raise RunError(
                f"{where}: a task reads {name} now, and did not when the search began; remove "
                "it, or start a new search"
            )
        old = before[name]
        new = now[name]["sha256"] if name in now else _hash_where(old, roots)
        if old["sha256"] != new and WRITTEN not in (old["sha256"], new):
            raise RunError(
                f"{where}: task file {name} changed since the search began; put it back as it "
                "was, or start a new search"
            )


def _hash_where(file: Mapping[str, str], roots: Iterable[str]) -> str | None:
    """The present hash of a file that is not read yet; None if it is gone."""
    for root in (*sorted(roots), file["root"]):
        path = Path(os.path.normpath(Path(root, file["place"])))
        if path.is_file():
            return hash_opened(path)
    return None


@functools.cache
def _version_where_installed(package: str) -> str | None:
    """To look for what is not there takes a look into every folder; once a process is enough."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _versions(job: JobSpec) -> dict[str, str]:
    versions = {
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in _PINNED},
    }
    for package in _WHERE_INSTALLED:
        found = _version_where_installed(package)
        if found is not None:
            versions[package] = found
    # A grid's job does not say which methods it uses.
    versions.update(METHODS.versions())
    versions = {**engine_versions(job.compute), **versions}
    versions.update(
        ALGORITHMS.versions([job.optimizer_of(search).algorithm for search in job.searches])
    )
    versions.update(DRAWS.versions([job.evaluation.draws]))
    return versions


def _statistics_files(job: JobSpec) -> dict[str, str]:
    """What a job's statistics were computed from, file by file; this determines their values."""
    folder = job.models.statistics
    if folder is None:
        return {}
    headers = {file.name: read_header(file) for file in sorted(Path(folder).glob("*.safetensors"))}
    return {
        name: json.dumps(header.to_metadata(), sort_keys=True)
        for name, header in headers.items()
        if header is not None
    }
