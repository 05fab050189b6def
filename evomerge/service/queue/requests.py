"""What the request of each kind of job holds, checked and completed.

    search       a JobSpec
    grid         a GridSpec
    check        job: a JobSpec; within, timing: as `evomerge.check`
    evaluation   job: a JobSpec; model: a reference, or recipe: a recipe; split: its items
    calibration  models, text and options as `evomerge.calibrate`
    export       of the job's parent, a search: trial, point, verify, as_adapter, rank

In all of them `job:ID` in the place of a model means what the export ID wrote, and in the place of
statistics what the calibration ID wrote.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from evomerge.documents import DEEPEST, is_deeper
from evomerge.grid import GridSpec
from evomerge.job import (
    BudgetSpec,
    Device,
    EvaluationSpec,
    JobSpec,
    ModelsSpec,
    Section,
    check_sections,
)
from evomerge.recipe import read_recipe
from evomerge.service.queue.gpus import check_gpus
from evomerge.service.queue.places import Places
from evomerge.service.settings import Limits, ServiceSettings
from evomerge.service.store.job import Kind
from evomerge.service.store.refusals import Refusal

_LARGEST = 2**20
"""Characters of a request as JSON."""

OwnOutput = Callable[[str, str, Literal["export", "calibration"]], str]
"""(job id, field, its kind) -> the folder that this job wrote. Raises Refusal."""


class CheckRequest(Section):
    """What a check is asked for."""

    job: dict[str, Any]
    within: float = Field(default=0.05, gt=0.0, lt=0.5)
    timing: bool = True


class EvaluationRequest(Section):
    """What an evaluation is asked for: one of model and recipe."""

    job: dict[str, Any]
    model: str | None = Field(default=None, min_length=1)
    recipe: dict[str, Any] | None = None
    split: Literal["search", "validation", "test"] = "test"


class CalibrationRequest(Section):
    """What a calibration is asked for; see `evomerge.calibrate`."""

    models: tuple[str, ...] = Field(min_length=1, max_length=16)
    text: str = Field(min_length=1)
    fisher: bool = True
    inputs: bool = True
    sequences: int = Field(default=128, ge=1, le=10**6)
    tokens: int = Field(default=512, ge=1, le=10**6)
    seed: int = Field(default=0, ge=0, lt=2**32)
    batch: int = Field(default=4, ge=1, le=10**4)
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Device = "auto"
    trust_remote_code: bool = False


class ExportRequest(Section):
    """What an export is asked for; see `evomerge.export`."""

    trial: str | None = Field(default=None, max_length=200)
    point: str | None = Field(default=None, max_length=1000)
    verify: bool = False
    as_adapter: bool = False
    rank: Annotated[int, Field(ge=1, le=2**20)] | None = None


def complete(
    kind: Kind,
    request: Mapping[str, Any],
    settings: ServiceSettings,
    places: Places,
    own_output: OwnOutput,
) -> tuple[dict[str, Any], str]:
    """The request with its defaults and resolved folders, and a name for the job.

    Raises Refusal for what the operator does not allow, JobError for what no job may be.
    """
    completed, name = _completed(kind, request, settings, places, own_output)
    check_gpus(kind, completed, settings.limits.gpus)
    return completed, name


def _completed(
    kind: Kind,
    request: Mapping[str, Any],
    settings: ServiceSettings,
    places: Places,
    own_output: OwnOutput,
) -> tuple[dict[str, Any], str]:
    _check_size(request)
    checks = _Checks(settings=settings, places=places, own_output=own_output)
    if kind == "search":
        job = checks.job(request, "")
        return job, str(job["name"])
    if kind == "grid":
        grid = checks.grid(request)
        return grid, str(grid["name"])
    if kind == "check":
        check = _read(CheckRequest, request)
        job = checks.job(check.job, "job.")
        return {**check.model_dump(mode="json"), "job": job}, f"check of {job['name']}"
    if kind == "evaluation":
        return checks.evaluation(_read(EvaluationRequest, request))
    if kind == "calibration":
        return checks.calibration(_read(CalibrationRequest, request))
    export = _read(ExportRequest, request)
    if export.trial is not None and export.point is not None:
        raise Refusal(
            "`trial` names a candidate already",
            field="point",
            value=export.point,
            mend="give one of the two",
        )
    if export.trial is not None and re.fullmatch(r"g-?\d{1,9}-i\d{1,9}", export.trial) is None:
        raise Refusal(
            "not a candidate",
            field="trial",
            value=export.trial,
            mend="name one as /candidates lists them, like g0012-i003",
        )
    if export.rank is not None and not export.as_adapter:
        raise Refusal(
            "it is the rank of an adapter", field="rank", value=export.rank, mend="set as_adapter"
        )
    return export.model_dump(mode="json"), "export"


class _Checks:
    """The checks of one request."""

    def __init__(self, *, settings: ServiceSettings, places: Places, own_output: OwnOutput) -> None:
        self._settings = settings
        self._places = places
        self._own_output = own_output

    def job(self, document: Mapping[str, Any], inside: str) -> dict[str, Any]:
        """A JobSpec in plain values; inside: what comes before its keys in messages."""
        job = _read(JobSpec, document, inside)
        changed = job.model_copy(
            update={
                "models": self._models(job.models, inside),
                "evaluation": self._evaluation(job.evaluation, inside),
            }
        )
        tasks = [scored.task for scored in job.scored] + [*job.all_tasks, *job.report]
        _check_task_names(tasks, inside)
        self._check_storage(job.storage, inside)
        _check_budget(job.budget, self._settings.limits, f"{inside}budget")
        spaces = {
            f"stages.{n}.search_space": stage.search_space for n, stage in enumerate(job.stages)
        }
        for field, space in {"search_space": job.search_space, **spaces}.items():
            self._check_space(space, inside + field)
        # Read again: a resolved folder may be listed twice now.
        return _plain(_read(JobSpec, _plain(changed), inside))

    def grid(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """A GridSpec in plain values."""
        grid = _read(GridSpec, document)
        models = self._models(grid.models, "")
        renamed = dict(zip(grid.models.sources, models.sources, strict=True))
        held_in = tuple(
            task.model_copy(update={"expert": renamed.get(task.expert, task.expert)})
            for task in grid.held_in
        )
        changed = grid.model_copy(
            update={
                "models": models,
                "held_in": held_in,
                "evaluation": self._evaluation(grid.evaluation, ""),
            }
        )
        _check_task_names([task.task for task in (*grid.held_in, *grid.held_out)], "")
        self._check_storage(grid.storage, "")
        for place, method in enumerate(grid.methods):
            if method.search_space is not None:
                self._check_space(method.search_space, f"methods.{place}.search_space")
            if method.budget is not None:
                _check_budget(method.budget, self._settings.limits, f"methods.{place}.budget")
            if method.parameters is not None:
                self._check_texts(method.parameters, f"methods.{place}.parameters")
        return _plain(_read(GridSpec, _plain(changed)))

    def evaluation(self, asked: EvaluationRequest) -> tuple[dict[str, Any], str]:
        """The request of an evaluation, and its name."""
        job = self.job(asked.job, "job.")
        if (asked.model is None) == (asked.recipe is None):
            raise Refusal("not one of the two", field="model, recipe", mend="give either of them")
        changed: dict[str, Any] = {"job": job}
        if asked.model is not None:
            changed["model"] = self._model(asked.model, "model")
            name = os.path.basename(asked.model.rstrip("/"))
        else:
            changed["recipe"] = self._recipe(asked.recipe or {}, "recipe")
            name = "a recipe"
        return {**asked.model_dump(mode="json"), **changed}, f"{name} on {job['name']}"

    def calibration(self, asked: CalibrationRequest) -> tuple[dict[str, Any], str]:
        """The request of a calibration, and its name."""
        self._check_model_code(asked.trust_remote_code, "trust_remote_code")
        models = [self._model(each, f"models.{n}") for n, each in enumerate(asked.models)]
        text = self._places.file(asked.text, "text")
        changed = {"models": models, "text": text}
        name = f"calibration of {len(models)} model{'s' if len(models) > 1 else ''}"
        return {**asked.model_dump(mode="json"), **changed}, name

    def _models(self, models: ModelsSpec, inside: str) -> ModelsSpec:
        self._check_model_code(models.trust_remote_code, f"{inside}models.trust_remote_code")
        base = self._model(models.base, f"{inside}models.base")
        sources = tuple(
            self._model(source, f"{inside}models.sources.{place}")
            for place, source in enumerate(models.sources)
        )
        renamed = dict(zip(models.sources, sources, strict=True))
        statistics = models.statistics
        if statistics is not None:
            field = f"{inside}models.statistics"
            found = _own_job(statistics)
            statistics = (
                self._places.statistics(statistics, field)
                if found is None
                else self._own_output(found, field, "calibration")
            )
        return models.model_copy(
            update={
                "base": base,
                "sources": sources,
                "tokenizer": renamed.get(models.tokenizer, models.tokenizer),
                "statistics": statistics,
            }
        )

    def _model(self, reference: str, field: str) -> str:
        found = _own_job(reference)
        if found is not None:
            return self._own_output(found, field, "export")
        return self._places.model(reference, field)

    def _check_model_code(self, trusted: bool, field: str) -> None:
        if trusted and not self._settings.trust_model_code:
            raise Refusal(
                "code of models may not run on this service",
                field=field,
                value=trusted,
                mend="leave it out, or ask the operator for --trust-model-code",
            )

    def _evaluation(self, evaluation: EvaluationSpec, inside: str) -> EvaluationSpec:
        folders = tuple(
            self._places.task_folder(folder, f"{inside}evaluation.task_folders.{place}")
            for place, folder in enumerate(evaluation.task_folders)
        )
        return evaluation.model_copy(update={"task_folders": folders})

    def _check_storage(self, storage: str, inside: str) -> None:
        if storage != "auto":
            raise Refusal(
                "the service keeps records itself",
                field=f"{inside}storage",
                value=storage,
                mend="leave it out",
            )

    def _check_space(self, space: str | Mapping[str, Any] | None, field: str) -> None:
        if isinstance(space, str) and ("/" in space or space.endswith((".yaml", ".yml"))):
            raise Refusal(
                "a path on the server", field=field, value=space, mend="give the space itself"
            )
        if isinstance(space, Mapping):
            start = space.get("start_from")
            if isinstance(start, str):
                raise Refusal(
                    "a path on the server",
                    field=f"{field}.start_from",
                    value=start,
                    mend="give the recipe itself",
                )
            self._check_texts(space, field)

    def _recipe(self, recipe: Mapping[str, Any], field: str) -> dict[str, Any]:
        read_recipe(json.dumps(recipe), where=field)
        self._check_texts(recipe, field)
        return dict(recipe)

    def _check_texts(self, value: Any, field: str) -> None:
        """Refuse every text within a value that could be a path or a model, and may not be used."""
        for where, text in _texts(value, field):
            if where.endswith(".chat_template") and "{" in text:
                continue
            if "/" in text or text.startswith((".", "~")) or os.path.lexists(text):
                self._places.model(text, where)


def _own_job(reference: str) -> str | None:
    found = re.fullmatch(r"job:(j[a-z2-7]{15})", reference)
    return None if found is None else found[1]


def _texts(value: Any, field: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield f"{field}.{key}", str(key)
            yield from _texts(each, f"{field}.{key}")
    elif isinstance(value, list | tuple):
        for place, each in enumerate(value):
            yield from _texts(each, f"{field}.{place}")


def _check_task_names(names: list[str], inside: str) -> None:
    for name in names:
        if name.startswith(("/", ".", "~")) or ".." in name or "\0" in name:
            raise Refusal(
                "not the name of a task",
                field=f"{inside}objectives",
                value=name,
                mend="name a task, and its folder in evaluation.task_folders",
            )


def _check_budget(budget: BudgetSpec, limits: Limits, field: str) -> None:
    for unit, most in (("hours", limits.hours), ("items", limits.items)):
        given = getattr(budget, unit)
        if most is None:
            continue
        if given is None:
            raise Refusal(
                f"a job may take {most:g} {unit} on this service",
                field=f"{field}.{unit}",
                mend=f"give {most:g} or fewer",
            )
        if given > most:
            raise Refusal(
                f"above {most:g}, the most on this service",
                field=f"{field}.{unit}",
                value=given,
                mend=f"give {most:g} or fewer",
            )


def _check_size(request: Mapping[str, Any]) -> None:
    if is_deeper(request):
        raise Refusal(
            f"nested more than {DEEPEST} levels deep", field="request", mend="write it flatter"
        )
    try:
        size = len(json.dumps(request, allow_nan=False))
    except (ValueError, TypeError) as error:
        raise Refusal(
            "not plain values", field="request", mend="give finite numbers, texts, lists, mappings"
        ) from error
    if size > _LARGEST:
        raise Refusal(f"{size} characters", field="request", mend=f"give {_LARGEST} or fewer")
    for field, text in _texts(request, ""):
        if any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in text):
            raise Refusal(
                "has characters that are no text",
                field=field.removeprefix("."),
                value=text,
                mend="leave them out",
            )


def _read(kind: type[Any], document: Mapping[str, Any], inside: str = "") -> Any:
    """Raises JobError in one line: field, value, what, and the mend."""
    return check_sections(kind, document, where=inside)


def _plain(section: Section) -> dict[str, Any]:
    return section.model_dump(mode="json")
