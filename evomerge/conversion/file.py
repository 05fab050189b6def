"""Reads a file of mergekit: a configuration of mergekit-evolve, or any merge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evomerge.conversion.document import ConvertedJob
from evomerge.conversion.evolve import GENOME, convert_evolve
from evomerge.conversion.merge import convert_merge
from evomerge.documents import load_text, parse_mapping, parse_mappings
from evomerge.errors import JobError
from evomerge.recipe import read_recipe

_KIND = "a mergekit file"
_EXPECTED = "merge_method and models, or genome and tasks"


def convert(path: Path, *, base: str | None = None) -> ConvertedJob:
    """The job of a file; the models must be there. Raises InputError in one line.

    base: of the job, for a merge that names none.
    """
    text = load_text(path, kind=_KIND, error=JobError)
    first = _documents(text, path)[0]
    if GENOME in first:
        document = parse_mapping(text, where=str(path), expected=_EXPECTED, error=JobError)
        if base is not None:
            raise JobError(f"--base {base}: {path} names its models; leave --base out")
        return convert_evolve(document, where=str(path))
    return convert_merge(read_recipe(text, where=str(path)), base=base, where=str(path))


def names_tasks(path: Path) -> bool:
    """Whether a file names the tasks of a search. Raises JobError if it cannot be read."""
    text = load_text(path, kind=_KIND, error=JobError)
    return GENOME in _documents(text, path)[0]


def _documents(text: str, path: Path) -> Sequence[dict[str, object]]:
    return parse_mappings(text, where=str(path), expected=_EXPECTED, error=JobError)
