"""The job: what a user asks for, as one validated value.

The same JobSpec serves the command line, Python callers and services. It checks everything that
can be known without opening a checkpoint or a task; it does not know what those hold.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from evomerge.documents import load_text, parse_mapping, problem_text, written_parts
from evomerge.errors import JobError
from evomerge.recipe import DType

Aggregate = Literal["mean", "geometric", "min"]
Algorithm = Literal["cma_es", "cma_es_threshold", "cat_cma_es", "lra_cma_es", "tpe", "random"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelsSpec(_Section):
    """The base model and the experts fine-tuned from it: local folders or hub ids (`@revision`).

    tokenizer: of the merged models: the base's, that of a source, or the union of all of them.
    statistics: the folder of those that `evomerge calibrate` wrote, for the methods that need them.
    """

    base: str
    sources: tuple[str, ...] = Field(min_length=1, max_length=8)
    tokenizer: str = "base"
    statistics: str | None = None
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> ModelsSpec:
        twice = [name for name in self.sources if self.sources.count(name) > 1]
        if twice:
            raise ValueError(f"sources: {twice[0]} is listed twice; list each model once")
        if self.base in self.sources:
            raise ValueError(f"sources: {self.base} is the base already; list only the experts")
        if self.tokenizer not in ("base", "union", *self.sources):
            raise ValueError(
                f"tokenizer: {self.tokenizer} is neither `base` nor `union` nor one of the "
                "sources; name one of those"
            )
        return self


class ObjectiveSpec(_Section):
    """A metric of an lm-eval task (`metric`, or `metric,filter` as lm-eval prints it)."""

    task: str
    metric: str
    weight: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)


class ConstraintSpec(_Section):
    """A metric that must stay at or above `at_least`, times the score of `of` where it is given."""

    task: str
    metric: str
    at_least: float = Field(allow_inf_nan=False)
    of: Literal["base", "best_source"] | None = None


class SplitSpec(_Section):
    """Shares of each task's items, by item hash; they add up to 1."""

    search: float = Field(default=0.6, gt=0.0, lt=1.0)
    validation: float = Field(default=0.2, gt=0.0, lt=1.0)
    test: float = Field(default=0.2, gt=0.0, lt=1.0)

    @model_validator(mode="after")
    def _adds_up(self) -> SplitSpec:
        total = self.search + self.validation + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(
                f"search + validation + test is {total:g}; make the three shares add up to 1"
            )
        return self


class EvaluationSpec(_Section):
    """How candidates are scored.

    items_per_generation: items drawn for a generation, over all objectives and constraints
    together, evenly by task. items_for_baselines: the same for generation zero.
    """

    split: SplitSpec = SplitSpec()
    items_per_generation: int = Field(default=128, ge=1)
    items_for_baselines: int = Field(default=512, ge=1)
    finalists: int = Field(default=3, ge=0, le=900)
    batch_size: int | Literal["auto"] = "auto"
    task_folders: tuple[str, ...] = ()
    num_fewshot: int | None = Field(default=None, ge=0)
    apply_chat_template: bool = False

    @field_validator("batch_size")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{value} is below 1; give a number of requests, or `auto`")
        return value


class OptimizerSpec(_Section):
    """Who proposes genomes. `sigma` is the first step size in the unit box.

    algorithm: `auto` is the one that measured best for the space: for routes, whose genes are
    mostly switches, another than for coefficients.
    """

    algorithm: Algorithm | Literal["auto"] = "auto"
    seed: int = Field(default=0, ge=0, lt=2**32)
    sigma: float = Field(default=1 / 6, gt=0.0, le=1.0)
    population: int | Literal["auto"] = "auto"

    @field_validator("population")
    @classmethod
    def _at_least_four(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 4:
            raise ValueError(f"{value} is below 4; give 4 or more candidates, or `auto`")
        return value


class BudgetSpec(_Section):
    """When a search ends: the first limit reached. Generations are never cut in half.

    candidates: genomes scored. hours: worker time spent on them. items: items scored by them.
    """

    candidates: int | None = Field(default=None, ge=1)
    hours: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    items: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _some_limit(self) -> BudgetSpec:
        if self.candidates is None and self.hours is None and self.items is None:
            raise ValueError("no limit is given; set candidates, hours or items")
        return self


class ComputeSpec(_Section):
    """Where candidates are built and scored, and the dtype of the merged model."""

    engine: Literal["auto", "transformers"] = "auto"
    device: str = "auto"
    workers: int | Literal["auto"] = "auto"
    gpus_per_worker: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | Literal["auto"] = "auto"
    dtype: DType | Literal["auto"] = "auto"
    cache_gb: float = Field(default=4.0, ge=0.0, allow_inf_nan=False)

    @field_validator("workers")
    @classmethod
    def _some(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{value} is below 1; give a number of workers, or `auto`")
        return value


class JobSpec(_Section):
    """A whole job. See README.md for each field and examples/ for jobs that run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    models: ModelsSpec
    search_space: str | dict[str, Any] = "one_weight_per_model"
    objectives: tuple[ObjectiveSpec, ...] = Field(min_length=1)
    aggregate: Aggregate = "mean"
    report: tuple[str, ...] = ()
    constraints: tuple[ConstraintSpec, ...] = ()
    evaluation: EvaluationSpec = EvaluationSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    budget: BudgetSpec
    compute: ComputeSpec = ComputeSpec()
    storage: str = "auto"

    @field_validator("objectives")
    @classmethod
    def _some_weight(cls, objectives: tuple[ObjectiveSpec, ...]) -> tuple[ObjectiveSpec, ...]:
        if sum(objective.weight for objective in objectives) <= 0.0:
            raise ValueError("the weights sum to 0; give at least one objective a positive weight")
        seen = [(objective.task, objective.metric) for objective in objectives]
        twice = [pair for pair in seen if seen.count(pair) > 1]
        if twice:
            raise ValueError(f"{twice[0][0]}/{twice[0][1]} is listed twice; add up its weights")
        return objectives

    @property
    def search_tasks(self) -> tuple[str, ...]:
        """Tasks that every candidate is scored on, in the order of the job."""
        named = [*(o.task for o in self.objectives), *(c.task for c in self.constraints)]
        return tuple(dict.fromkeys(named))

    @property
    def all_tasks(self) -> tuple[str, ...]:
        """Every task of the job, those that are only reported last."""
        return tuple(dict.fromkeys([*self.search_tasks, *self.report]))

    def fingerprint(self) -> dict[str, str]:
        """sha256 of each part that a resumed search must share with its start.

        Budget, compute (but for the dtype, which changes the models) and the storage's place may
        differ.
        """
        document = self.model_dump(mode="json", exclude={"budget", "compute", "storage"})
        document["compute.dtype"] = self.compute.dtype
        return {
            key: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
            for key, value in document.items()
        }

    def to_yaml(self) -> str:
        """The job as a file that `load_job` reads back equal."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_job(path: Path, *, overrides: Iterable[str] = ()) -> JobSpec:
    """Read and check a job file.

    overrides: `dotted.key=value` pairs, the value read as YAML. Raises JobError in one line.
    """
    text = load_text(path, kind="a job", error=JobError)
    return parse_job(text, where=str(path), overrides=overrides)


def parse_job(text: str, *, where: str, overrides: Iterable[str] = ()) -> JobSpec:
    """The same as load_job for the text of a job; `where` names it in messages."""
    expected = "name, models, objectives and budget"
    document = parse_mapping(text, where=where, expected=expected, error=JobError)
    for override in overrides:
        _apply_override(document, override)
    try:
        return JobSpec.model_validate(document)
    except ValidationError as error:
        raise JobError(f"{where}: {_describe(error)}") from error


def _apply_override(document: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise JobError(f"--set {override}: write it as key.subkey=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise JobError(f"--set {override}: the value is not YAML") from error
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


def _describe(error: ValidationError) -> str:
    """The first problem in one line; unknown keys come first, for they explain missing ones."""
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    location = written_parts(first["loc"])
    field = ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        nearest = difflib.get_close_matches(str(location[-1]), known, n=1)
        mend = f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(known)}"
        return f"{field}: unknown key; {mend}"
    message = problem_text(first)
    value = first.get("input")
    if isinstance(value, (str, int, float)) and str(value) not in message:
        return f"{field}: {value}: {message}"
    return f"{field}: {message}" if field else message


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Keys of the section at `location`, found by walking the annotations of JobSpec."""
    section: type[BaseModel] = JobSpec
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
    if get_origin(annotation) in (tuple, Union, types.UnionType, Annotated):
        for argument in get_args(annotation):
            found = _section_in(argument)
            if found is not None:
                return found
    return None


def shipped_folder(kind: Literal["search_spaces", "evals"]) -> Path:
    """The folder of ready-made files that ships with evomerge: in the wheel, or the checkout."""
    package = Path(__file__).resolve().parent
    shipped = package / "_shipped" / kind
    return shipped if shipped.is_dir() else package.parent / kind
