"""The inputs of a recipe: whole models, slices of their layers, modules of either, or a route."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from evomerge.recipe.settings import Parameters

# How recipes name models: a folder or a hub id, then an optional `@revision` and `+adapter`.


def _as_text(written: object) -> object:
    """Turn mergekit's long form of a reference (for a path with a space) into the short form."""
    if not isinstance(written, Mapping) or "model" not in written:
        return written
    unknown_key = next((key for key in written if key not in ("model", "lora")), None)
    if unknown_key is not None:
        raise ValueError(f"{unknown_key} is not supported; name the model alone")
    parts = [written["model"], *([written["lora"]] if written.get("lora") else [])]
    return "+".join(_path_as_text(part) for part in parts)


def _path_as_text(written: object) -> str:
    if isinstance(written, Mapping):
        revision = written.get("revision")
        return f"{written.get('path')}@{revision}" if revision else str(written.get("path"))
    return str(written)


def _without_control_characters(written: str) -> str:
    if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in written):
        raise ValueError(
            "has a line break or another control character, which a model's name must not have; "
            "rename the folder"
        )
    return written


PlainName = Annotated[str, AfterValidator(_without_control_characters)]
"""The name of a model as it is written: a folder or a hub id."""

Reference = Annotated[PlainName, BeforeValidator(_as_text)]
"""The field of a recipe that names a model."""


_STRICT = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class RecipeModel(BaseModel):
    """One model of a merge, with its own parameters."""

    model_config = _STRICT

    model: Reference
    parameters: Parameters = Field(default_factory=dict)


class SliceSource(BaseModel):
    """Layers `layer_range[0]` to `layer_range[1] - 1` of a model, with their own parameters."""

    model_config = _STRICT

    model: Reference
    layer_range: tuple[int, int]
    parameters: Parameters = Field(default_factory=dict)

    @field_validator("layer_range")
    @classmethod
    def _some_layers(cls, layers: tuple[int, int]) -> tuple[int, int]:
        return some_layers(layers)

    @property
    def count(self) -> int:
        """How many layers it takes."""
        return self.layer_range[1] - self.layer_range[0]


class Slice(BaseModel):
    """Layers of the result; each is merged from the layers at the same place in all sources."""

    model_config = _STRICT

    sources: tuple[SliceSource, ...]
    base_model: Reference | None = None
    parameters: Parameters = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _no_residual_weight(cls, document: object) -> object:
        if isinstance(document, dict) and document.get("residual_weight") is not None:
            raise ValueError("residual_weight changes nothing in mergekit; remove it")
        return document

    @field_validator("sources")
    @classmethod
    def _sources_fit(cls, sources: tuple[SliceSource, ...]) -> tuple[SliceSource, ...]:
        if not sources:
            raise ValueError("name at least one model and its layer_range")
        refuse_duplicates(entry.model for entry in sources)
        first = sources[0]
        for entry in sources:
            if entry.count != first.count:
                raise ValueError(
                    f"{entry.model} gives {entry.count} layers and {first.model} {first.count}; "
                    "give equal numbers"
                )
        return sources

    @property
    def count(self) -> int:
        """How many layers of the result it makes."""
        return self.sources[0].count


class Stretch(BaseModel):
    """Consecutive layers of one model that a route passes through, in order.

    layers: the first and one past the last. scale: multiplies the residual stream before the first
    of these layers.
    """

    model_config = _STRICT

    model: Reference
    layers: tuple[int, int]
    scale: float = Field(default=1.0, allow_inf_nan=False)

    @field_validator("layers")
    @classmethod
    def _some_layers(cls, layers: tuple[int, int]) -> tuple[int, int]:
        return some_layers(layers)

    @field_validator("scale")
    @classmethod
    def _not_zero(cls, scale: float) -> float:
        if scale == 0.0:
            raise ValueError("0 erases all layers before it; give another number")
        return scale


class Module(BaseModel):
    """A part of the network (an encoder, a vision tower), merged from whole models or slices."""

    model_config = _STRICT

    models: tuple[RecipeModel, ...] = ()
    slices: tuple[Slice, ...] | None = None
    parameters: Parameters = Field(default_factory=dict)

    @field_validator("models")
    @classmethod
    def _each_once(cls, models: tuple[RecipeModel, ...]) -> tuple[RecipeModel, ...]:
        refuse_duplicates(entry.model for entry in models)
        return models

    @model_validator(mode="after")
    def _one_of_both(self) -> Module:
        if bool(self.models) == bool(self.slices):
            raise ValueError("give either models or slices")
        return self


def some_layers(layers: tuple[int, int]) -> tuple[int, int]:
    """The range unchanged. Raises ValueError when it contains no layers."""
    first, end = layers
    if not 0 <= first < end:
        raise ValueError(
            f"[{first}, {end}] contains no layers; give the first and one past the last, from 0"
        )
    return layers


def refuse_duplicates(models: Iterable[str]) -> None:
    """Raise ValueError with the first model that is listed twice."""
    seen: set[str] = set()
    for model in models:
        if model in seen:
            raise ValueError(f"{model} is listed twice; list each model once")
        seen.add(model)
