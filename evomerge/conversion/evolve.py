"""The configuration of mergekit-evolve (mergekit 0.1.5, mergekit/evo) as a job.

Its search begins with equal weights and density 1; the job's search space starts there too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evomerge.conversion.document import ConvertedJob
from evomerge.errors import JobError
from evomerge.problem_words import problem_text, written_parts
from evomerge.recipe import Reference
from evomerge.sources import open_source
from evomerge.space import component_of, rule_of

GENOME = "genome"
"""The key that a configuration of mergekit-evolve has, and no other file of mergekit."""

_CANDIDATES = 100
"""Evaluations of mergekit-evolve if its --max-fevals is not given."""

_NORMALIZED = ("ties", "dare_ties", "linear")
"""Methods that it normalises if the file does not say it."""

_STRICT = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class _Genome(BaseModel):
    """The models, and which of their numbers are searched."""

    model_config = _STRICT

    models: tuple[Reference, ...] = Field(min_length=1)
    merge_method: Literal["linear", "task_arithmetic", "ties", "dare_ties", "slerp"]
    base_model: Reference | None = None
    tokenizer_source: str | None = None
    layer_granularity: int = 0
    normalize: bool | None = None
    allow_negative_weights: bool = False
    filters: tuple[str, ...] | None = None
    smooth: bool = False


class _Task(BaseModel):
    """A task of lm-eval, and its weight in the sum."""

    model_config = _STRICT

    name: str
    weight: float = Field(default=1.0, allow_inf_nan=False)
    metric: str = "acc,none"


class _Evolve(BaseModel):
    """The whole file."""

    model_config = _STRICT

    genome: _Genome
    tasks: tuple[_Task | str, ...] = Field(min_length=1)
    limit: int | None = None
    num_fewshot: int | None = None
    shuffle: bool = False
    random_init: bool = False
    apply_chat_template: bool = True
    fewshot_as_multiturn: bool = True


def convert_evolve(document: Mapping[str, Any], *, where: str) -> ConvertedJob:
    """The job of a configuration. Raises InputError in one line."""
    try:
        evolve = _Evolve.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in written_parts(first))
        message = ": ".join(part for part in (field, problem_text(first)) if part)
        raise JobError(f"{where}: {message}") from error
    notes: list[str] = []
    genome = evolve.genome
    base, sources, include_base = _models(genome, notes, where)
    models: dict[str, Any] = {"base": base, "sources": sources}
    models.update(tokenizer_of(genome.tokenizer_source, base, sources, notes))
    space = _space(genome, base, [base, *sources] if include_base else sources, notes, where)
    if include_base:
        space["include_base"] = True
    return ConvertedJob(
        models=models,
        space=space,
        objectives=tuple(_objectives(evolve.tasks, notes)),
        evaluation=_evaluation(evolve, notes),
        compute={"dtype": "bfloat16"},  # the only one of mergekit-evolve
        candidates=_CANDIDATES,
        notes=tuple(notes),
    )


def tokenizer_of(
    wanted: str | None, base: str, sources: Sequence[str], notes: list[str]
) -> dict[str, str]:
    """The entry of a job's models for a tokenizer_source; a note if there is none."""
    if wanted in (None, "base", base):
        return {}
    if wanted == "union" or wanted in sources:
        return {"tokenizer": str(wanted)}
    notes.append(
        f"tokenizer_source: {wanted} is neither the base nor a source of the job, which takes the "
        "base's tokenizer"
    )
    return {}


def _models(genome: _Genome, notes: list[str], where: str) -> tuple[str, list[str], bool]:
    """Base, sources, and whether an average includes the base."""
    models = list(dict.fromkeys(genome.models))
    method, base = genome.merge_method, genome.base_model
    if method == "slerp":
        if base is not None and base not in models and len(models) == 2:
            return base, models, False
        if len(models) < 2:
            raise JobError(f"{where}: genome.models: slerp takes two models; name two")
        if models[2:]:
            notes.append(
                f"genome.models: slerp is between the first two here; {', '.join(models[2:])} left "
                "out (mergekit-evolve takes the two with the highest weights)"
            )
        if base is not None and base not in models[:2]:
            notes.append(f"genome.base_model: {base} has no part in this slerp")
        return models[0], [models[1]], False
    if method == "linear":
        if base is not None and base not in models:
            notes.append(f"genome.base_model: {base} has no weight; it is only the job's base")
            return base, models, False
        if len(models) < 2:
            raise JobError(f"{where}: genome.models: a search needs two models; name two")
        first = models[0] if base is None else base
        notes.append(f"genome.models: {first} is the base of the job, with a weight like the rest")
        return first, [model for model in models if model != first], True
    if base is None:
        raise JobError(f"{where}: genome.base_model: missing; {method} needs it")
    if base in models:
        notes.append(f"genome.models: {base} is the base, so it has no weight")
    sources = [model for model in models if model != base]
    if not sources:
        raise JobError(f"{where}: genome.models: only the base is named; name the experts")
    return base, sources, False


def _space(
    genome: _Genome, base: str, weighed: Sequence[str], notes: list[str], where: str
) -> dict[str, Any]:
    method = genome.merge_method
    parameters: dict[str, Any] = {}
    lowest = -1.0 if genome.allow_negative_weights else 0.0
    if method == "slerp":
        if genome.smooth or genome.filters:
            key = "smooth" if genome.smooth else "filters"
            raise JobError(
                f"{where}: genome.{key}: mergekit-evolve has no slerp with it; remove it"
            )
        parameters["t"] = {"low": 0.0, "high": 1.0, "start": 0.5}
        if genome.allow_negative_weights:
            notes.append("genome.allow_negative_weights: t stays between the two models")
    else:
        # The base's task vector is 0, so that it counts among the equal shares all the same.
        share = 1.0 / len(dict.fromkeys(genome.models))
        if method == "linear":
            if genome.allow_negative_weights:
                notes.append("genome.allow_negative_weights: an average has weights from 0 here")
            parameters["weight"] = {"low": 0.0, "high": 1.0, "start": share}
        else:
            parameters["weight"] = {"low": lowest, "high": max(1.5, share), "start": share}
    if "density" in rule_of(method).parameters:
        parameters["density"] = {"low": 0.1, "high": 1.0, "start": 1.0}
    normalize = genome.normalize
    if "normalize" in rule_of(method).parameters:
        parameters["normalize"] = method in _NORMALIZED if normalize is None else normalize
    elif normalize is not None:
        notes.append(f"genome.normalize: {method} has no such parameter")
    return {
        "method": method,
        "layers": _layers(genome, base, notes, where),
        "components": _components(genome.filters, notes),
        "parameters": parameters,
    }


def _layers(genome: _Genome, base: str, notes: list[str], where: str) -> Any:
    size = genome.layer_granularity
    if size < 1:
        if genome.smooth:
            notes.append("genome.smooth: without layer_granularity there is one value for all")
        return "all"
    depth = open_source(base, where=f"{where}: genome").structure.depth
    if depth % size:
        raise JobError(
            f"{where}: genome.layer_granularity: {size} does not divide the {depth} layers of "
            f"{base}, as mergekit-evolve demands; give a divisor"
        )
    if size == depth:
        return "all"
    if genome.smooth:
        return {"knots": depth // size}
    return "each" if size == 1 else {"groups_of": size}


def _components(filters: Iterable[str] | None, notes: list[str]) -> Any:
    wanted = list(dict.fromkeys(filters or ()))
    if not wanted:
        return "all"
    found = {name: component_of(name.strip(".")) for name in wanted}
    unknown = [name for name, component in found.items() if component == "rest"]
    if unknown:
        notes.append(
            f"genome.filters: {', '.join(unknown)}: a job tells attention, mlp and the rest apart, "
            "no other parts"
        )
    if len(unknown) == len(wanted):
        return "all"
    if set(found.values()) != {"attention", "mlp"} or unknown:
        notes.append(
            f"genome.filters: [{', '.join(wanted)}] became values for attention, mlp and the rest "
            "each"
        )
    return ["attention", "mlp", "rest"]


def _objectives(tasks: Iterable[_Task | str], notes: list[str]) -> Iterable[dict[str, Any]]:
    for entry in tasks:
        task = _Task(name=entry) if isinstance(entry, str) else entry
        if task.weight < 0.0:
            notes.append(
                f"tasks: {task.name} has weight {task.weight:g}; here the task says itself which "
                f"way is better, so it became {-task.weight:g}"
            )
        yield {
            "task": task.name,
            "metric": task.metric.removesuffix(",none"),
            "weight": abs(task.weight),
        }


def _evaluation(evolve: _Evolve, notes: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"apply_chat_template": evolve.apply_chat_template}
    if evolve.num_fewshot is not None:
        found["num_fewshot"] = evolve.num_fewshot
    if evolve.limit is not None:
        found["items_per_generation"] = max(1, math.ceil(evolve.limit * len(evolve.tasks)))
        notes.append(
            f"limit: {evolve.limit} items of each task became as many in all; every generation "
            "draws its own, where mergekit-evolve takes the first"
        )
    if evolve.shuffle:
        notes.append("shuffle: items are drawn by the job's seed")
    if evolve.random_init:
        notes.append("random_init: the search starts at equal weights, not at random ones")
    if evolve.fewshot_as_multiturn != evolve.apply_chat_template:
        notes.append("fewshot_as_multiturn: follows apply_chat_template, as in the lm_eval command")
    return found
