"""The recipe: what to merge and how, as a mergekit YAML document and as a typed value.

A recipe says everything that the merge engine needs and nothing about scores. It does not open
checkpoints and does not know the mathematics of the methods.

Its YAML is valid for `mergekit-yaml`; our own facts (the mask seed, hashes of the sources, the
genome, the scores) are under the key `evomerge:`, which mergekit ignores.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from evomerge.documents import load_text, parse_mapping, problem_text, written_parts
from evomerge.errors import RecipeError

Scalar = bool | float | str
"""One value of a parameter."""

Gradient = tuple[float, ...]
"""Values spread evenly over the depth of a slice and interpolated linearly between."""

DType = Literal["float32", "bfloat16", "float16"]


class Condition(BaseModel):
    """A value for the tensors whose name contains `filter` (None or "*": for all)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filter: str | None = None
    value: Scalar | Gradient

    def matches(self, tensor_name: str) -> bool:
        """Whether the value applies to this tensor."""
        return self.filter in (None, "*") or str(self.filter) in tensor_name


Setting = Scalar | Gradient | tuple[Condition, ...]
"""A parameter as written: one value, a gradient over depth, or a list of conditions."""


def resolve(setting: Setting, *, tensor_name: str, depth: float) -> Scalar | None:
    """The value of a setting for one tensor, as mergekit 0.1.5 resolves it.

    `depth` is the tensor's position in its slice, i/(L-1) for layer i of L, 1 when L is 1 and 0 for
    tensors outside the layers. None when no condition matches: the next scope decides.
    """
    if isinstance(setting, tuple):
        if not setting:
            return None
        if isinstance(setting[0], Condition):
            for condition in setting:
                assert isinstance(condition, Condition)
                if condition.matches(tensor_name):
                    return resolve(condition.value, tensor_name=tensor_name, depth=depth)
            return None
        values = [float(value) for value in setting if not isinstance(value, Condition)]
        scaled = depth * (len(values) - 1)
        below = int(scaled)
        above = min(len(values) - 1, below + 1)
        fraction = scaled - below
        return (1 - fraction) * values[below] + fraction * values[above]
    return setting


class RecipeModel(BaseModel):
    """One model of a merge with the parameters that are its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str
    parameters: dict[str, Setting] = Field(default_factory=dict)


class Recipe(BaseModel):
    """A whole merge: `merge_method` over `models`, in float32, rounded once to `out_dtype`.

    Model references are local folders or hub ids, `@revision` allowed. `evomerge` is our own block:
    `seed` (of DARE's masks) is read from it, the rest is carried along untouched.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    merge_method: str
    base_model: str | None = None
    models: tuple[RecipeModel, ...]
    parameters: dict[str, Setting] = Field(default_factory=dict)
    dtype: Literal["float32"] = "float32"
    out_dtype: DType | None = None
    tokenizer_source: str | None = None
    evomerge: dict[str, Any] = Field(default_factory=dict)

    @field_validator("models")
    @classmethod
    def _some_models_each_once(cls, models: tuple[RecipeModel, ...]) -> tuple[RecipeModel, ...]:
        if not models:
            raise ValueError("name at least one model")
        names = [entry.model for entry in models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]} is listed twice; list each model once")
        return models

    @property
    def seed(self) -> int:
        """Seed of every random mask of this recipe."""
        return int(self.evomerge.get("seed", 0))

    @property
    def references(self) -> tuple[str, ...]:
        """Every model the recipe reads, the base first, each once."""
        first = [self.base_model] if self.base_model else []
        return tuple(dict.fromkeys([*first, *(entry.model for entry in self.models)]))

    def setting_of(
        self, name: str, *, model: str | None, tensor_name: str, depth: float
    ) -> Scalar | None:
        """Parameter `name` for one tensor: the model's own scope first, then the recipe's."""
        scopes = [entry.parameters for entry in self.models if model and entry.model == model]
        for scope in [*scopes, self.parameters]:
            if name in scope:
                value = resolve(scope[name], tensor_name=tensor_name, depth=depth)
                if value is not None:
                    return value
        return None

    def with_block(self, **facts: Any) -> Recipe:
        """The same merge with `facts` added to the `evomerge:` block."""
        return self.model_copy(update={"evomerge": {**self.evomerge, **facts}})

    def to_yaml(self) -> str:
        """The document as mergekit reads it; floats are written so that they read back equal."""
        document = self.model_dump(mode="json", exclude_none=True)
        for key in ("parameters", "evomerge"):
            if not document[key]:
                del document[key]
        for entry in document["models"]:
            if not entry["parameters"]:
                del entry["parameters"]
        return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Numbers of a gradient on one line; floats always with a point, as YAML 1.1 wants them."""


def _represent_list(dumper: _Dumper, values: list[Any]) -> yaml.Node:
    flow = all(isinstance(value, (int, float, str)) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=flow)


_Dumper.add_representer(list, _represent_list)

_REFUSED = {
    "slices": "merges by slices of layers",
    "modules": "merges by modules",
    "tokenizer": "a tokenizer block",
    "chat_template": "a chat template",
}


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file; see `read_recipe`."""
    return read_recipe(load_text(path, kind="a recipe", error=RecipeError), where=str(path))


def read_recipe(text: str, *, where: str) -> Recipe:
    """Parse a recipe or any mergekit YAML of the same form.

    `where` names the file in messages. Raises RecipeError with the field and the mend.
    """
    expected = "merge_method and models"
    document = parse_mapping(text, where=where, expected=expected, error=RecipeError)
    for key, meaning in _REFUSED.items():
        if document.get(key) is not None:
            raise RecipeError(f"{where}: {key}: {meaning} is not supported; write it with `models`")
    document = {**document, **_dtypes(document)}
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in written_parts(first["loc"]))
        raise RecipeError(f"{where}: {field}: {problem_text(first)}") from error


def _dtypes(document: Mapping[str, Any]) -> dict[str, Any]:
    """Arithmetic is float32 always; the `dtype` of other people's recipes is what they store."""
    stored = document.get("out_dtype") or document.get("dtype")
    return {"dtype": "float32", "out_dtype": stored}
