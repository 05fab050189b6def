"""Job files: reading, overrides, checks, and errors in one line."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from evomerge.documents import load_text, nearest, parse_mapping, parse_value
from evomerge.errors import JobError
from evomerge.job.job import JobSpec
from evomerge.job.sections import ANYWHERE, Section
from evomerge.problem_words import problem_text, written_parts

S = TypeVar("S", bound=Section)


def load_job(path: Path, *, overrides: Iterable[str] = ()) -> JobSpec:
    """Read and check a job file.

    overrides: `dotted.key=value` pairs, the value read as YAML. Raises JobError in one line.
    """
    text = load_text(path, kind="a job", error=JobError)
    return parse_job(text, where=str(path), overrides=overrides)


def load_recorded_job(path: Path) -> JobSpec:
    """The job of a search that is only read; packages that it used may be missing here."""
    text = load_text(path, kind="a job", error=JobError)
    return parse_sections(JobSpec, text, where=str(path), expected=_NEEDED, context=ANYWHERE)


def parse_job(text: str, *, where: str, overrides: Iterable[str] = ()) -> JobSpec:
    """Read and check the text of a job, as load_job; `where` names it in messages."""
    return parse_sections(JobSpec, text, where=where, expected=_NEEDED, overrides=overrides)


_NEEDED = "name, models, objectives and budget"
"""Keys that a job must have."""


def parse_sections(
    kind: type[S],
    text: str,
    *,
    where: str,
    expected: str,
    overrides: Iterable[str] = (),
    context: Mapping[str, Any] | None = None,
) -> S:
    """Read and check a document of sections; `expected` names the keys that it needs.

    overrides: as in load_job. context: of the validation. Raises JobError in one line.
    """
    document = parse_mapping(text, where=where, expected=expected, error=JobError)
    for override in overrides:
        _apply_override(document, override)
    return check_sections(kind, document, where=f"{where}: ", context=context)


def check_sections(
    kind: type[S],
    document: Mapping[str, Any],
    *,
    where: str,
    context: Mapping[str, Any] | None = None,
) -> S:
    """Check a mapping of sections; `where` comes before the key in messages. Raises JobError."""
    try:
        return kind.model_validate(document, context=context)
    except ValidationError as error:
        raise JobError(f"{where}{_describe(error, kind)}") from error


def _apply_override(document: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise JobError(f"--set {override}: write it as key.subkey=value")
    value = parse_value(text, where=f"--set {override}", error=JobError)
    *parents, last = key.split(".")
    target: Any = document
    for parent in parents:
        target = target.setdefault(parent, {}) if isinstance(target, dict) else None
    if not isinstance(target, dict):
        raise JobError(
            f"--set {override}: {'.'.join(parents)} is not a mapping in the job; a list is given "
            "whole, as in --set 'report=[a, b]'"
        )
    target[last] = value


def _describe(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first problem in one line; unknown keys first, because they explain missing keys."""
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    location = written_parts(first)
    field = ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        return f"{field}: unknown key; {nearest(location[-1], _known_keys(kind, location[:-1]))}"
    message = problem_text(first)
    value = first.get("input")
    if isinstance(value, str | int | float | None) and not message.startswith(str(value)):
        return f"{field}: {value}: {message}"
    return f"{field}: {message}" if field else message


def _known_keys(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Keys of the section at `location`, found by walking the annotations of `kind`."""
    section = kind
    for part in location:
        if isinstance(part, str) and part in section.model_fields:
            found = _section_in(section.model_fields[part].annotation)
            if found is None:
                return []
            section = found
    return list(section.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, dict, Union, types.UnionType, Annotated):
        for argument in get_args(annotation):
            found = _section_in(argument)
            if found is not None:
                return found
    return None


# The place of the ready-made files that ship with evomerge.


def shipped_folder(kind: Literal["search_spaces", "evals"]) -> Path:
    """The folder of ready-made files that ships with evomerge: in the wheel, or the checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "_shipped" / kind
    return shipped if shipped.is_dir() else package.parent / kind
