"""The recipe as a typed value, and its mergekit YAML document."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evomerge.recipe.inputs import Module, RecipeModel, Reference, Slice, Stretch, refuse_duplicates
from evomerge.recipe.settings import Parameters, Scalar, resolve_in, without_empty
from evomerge.recipe.tokenizer import TokenizerSpec

DType = Literal["float32", "bfloat16", "float16"]


class Recipe(BaseModel):
    """A whole merge by `merge_method`, in float32, rounded once to `out_dtype`.

    Exactly one of four fields gives the parts to merge: `models` (whole models), `slices` (of their
    layers), `modules` (parts of the network, each of models or slices) or `route` (layers in the
    order in which a token passes through them; mergekit has slices only). Model references are
    local folders or hub ids, with an optional `@revision`, or names of `stages`. Stages are merges
    that this merge uses as models; each stage may use the stages before it. `evomerge` is our own
    block: `seed` (of the random masks) is read from it, the rest is kept unchanged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    merge_method: str
    base_model: Reference | None = None
    models: tuple[RecipeModel, ...] = ()
    slices: tuple[Slice, ...] | None = None
    modules: dict[str, Module] | None = None
    route: tuple[Stretch, ...] | None = None
    parameters: Parameters = Field(default_factory=dict)
    dtype: Literal["float32"] = "float32"
    out_dtype: DType | None = None
    tokenizer_source: Reference | None = None
    tokenizer: TokenizerSpec | None = None
    chat_template: str | None = None
    evomerge: dict[str, Any] = Field(default_factory=dict)
    stages: dict[str, Recipe] = Field(default_factory=dict)

    @field_validator("models")
    @classmethod
    def _some_models_each_once(cls, models: tuple[RecipeModel, ...]) -> tuple[RecipeModel, ...]:
        if not models:
            raise ValueError("name at least one model")
        refuse_duplicates(entry.model for entry in models)
        return models

    @field_validator("slices", "modules", "route")
    @classmethod
    def _not_empty(cls, parts: Any) -> Any:
        if parts is not None and not parts:
            raise ValueError("is empty; write the merge or remove the key")
        return parts

    @model_validator(mode="after")
    def _one_of_four(self) -> Recipe:
        present = [key for key in ("models", "slices", "modules", "route") if getattr(self, key)]
        if not present:
            raise ValueError("models: missing; name the models to merge, or slices, or modules")
        if len(present) > 1:
            raise ValueError(f"{present[1]}: the recipe has {present[0]} already; keep one of them")
        if self.route is not None and self.merge_method != "passthrough":
            raise ValueError(
                f"merge_method: {self.merge_method} does not merge routes; write passthrough"
            )
        if self.tokenizer_source is not None and self.tokenizer is not None:
            raise ValueError("tokenizer_source: the recipe has tokenizer already; keep one of them")
        return self

    @model_validator(mode="after")
    def _whole_seed(self) -> Recipe:
        seed = self.evomerge.get("seed", 0)
        if type(seed) is not int or seed < 0:  # a switch is an int too
            raise ValueError(
                f"evomerge.seed: {'nothing' if seed is None else seed} is not a whole number from "
                "0; write one, or remove the key"
            )
        return self

    @model_validator(mode="after")
    def _stages_in_order(self) -> Recipe:
        known: set[str] = set()
        for name, stage in self.stages.items():
            if stage.stages:
                raise ValueError(
                    f"stages.{name}.stages: cannot be nested; put them before this stage"
                )
            ahead = next(
                (
                    reference
                    for reference in stage.named
                    if reference in self.stages and reference not in known
                ),
                None,
            )
            if ahead is not None:
                raise ValueError(f"stages.{name}: names {ahead}, which does not come before it")
            known.add(name)
        return self

    @property
    def seed(self) -> int:
        """Seed of every random mask of this recipe."""
        return int(self.evomerge.get("seed", 0))

    @property
    def references(self) -> tuple[str, ...]:
        """Every model that the recipe merges, each once, the base first; a stage by its name."""
        first = [self.base_model] if self.base_model else []
        return tuple(dict.fromkeys([*first, *_models_in(self)]))

    @property
    def named(self) -> tuple[str, ...]:
        """Every model of `references`, then the model named for its tokenizer, if any."""
        tokenizer_source = (
            self.tokenizer.source if self.tokenizer is not None else self.tokenizer_source
        )
        added = [] if tokenizer_source in (None, "base", "union") else [str(tokenizer_source)]
        return tuple(dict.fromkeys([*self.references, *added]))

    @property
    def used_stages(self) -> dict[str, Recipe]:
        """The stages that this merge uses, directly or through others, each after those it uses."""
        wanted = set(self.named)
        used: list[tuple[str, Recipe]] = []
        for name, stage in reversed(self.stages.items()):
            if name in wanted:
                used.append((name, stage))
                wanted.update(stage.named)
        return dict(reversed(used))

    @property
    def alone(self) -> str | None:
        """The model that this recipe returns unchanged; None for a merge.

        One model with a weight other than 1 counts as a merge. So does one model with a tokenizer,
        a chat template or generation settings in the recipe.
        """
        changes = (self.base_model, self.tokenizer_source, self.tokenizer, self.chat_template)
        if self.merge_method != "linear" or len(self.models) != 1 or any(changes):
            return None
        [entry] = self.models
        plain = dict(entry.parameters) == {"weight": 1.0}
        normal = set(self.parameters) <= {"normalize"} and "generation" not in self.evomerge
        return entry.model if plain and normal and entry.model not in self.stages else None

    def without_unused(self) -> Recipe:
        """The same merge with only the stages that it uses."""
        return self.model_copy(update={"stages": self.used_stages})

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Every model with files of its own: those of the stages in order, then the recipe's."""
        merged = [name for stage in self.used_stages.values() for name in stage.references]
        return tuple(
            name for name in dict.fromkeys([*merged, *self.references]) if name not in self.stages
        )

    def setting_of(
        self, name: str, *, model: str | None, tensor_name: str, depth: float
    ) -> Scalar | None:
        """Parameter `name` for one tensor of a recipe over `models`.

        The model's own scope comes first, then the recipe's.
        """
        own = [entry.parameters for entry in self.models if model and entry.model == model]
        return resolve_in([*own, self.parameters], name, tensor_name=tensor_name, depth=depth)

    def with_block(self, **facts: Any) -> Recipe:
        """The same merge with `facts` added to the `evomerge:` block."""
        return self.model_copy(update={"evomerge": {**self.evomerge, **facts}})

    def to_yaml(self) -> str:
        """The document as mergekit reads it. Floats are written so that they read back equal.

        A recipe with stages is written as several documents for mergekit-multi: the stages first,
        each with its `name`. Unused stages are left out.
        """
        return self._text

    @functools.cached_property
    def _text(self) -> str:
        # Kept: a search asks for the text of a candidate six times, and writing takes milliseconds.
        used = self.used_stages.items()
        documents = [{"name": name, **stage._document()} for name, stage in used]
        text: str = yaml.dump_all(
            [*documents, self._document()],
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=True,
            width=100,
        )
        return text

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Recipe:
        """As pydantic's, without the text that is kept of the recipe before."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("_text", None)
        return copied

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = without_empty(
            self.model_dump(mode="json", exclude={"evomerge", "tokenizer", "stages"})
        )
        if not self.models:
            del document["models"]
        if self.out_dtype is None:
            del document["dtype"]  # alone, dtype would mean the storage dtype
        for stretch in document.get("route", ()):
            if stretch["scale"] == 1.0:
                del stretch["scale"]
        for module in document.get("modules", {}).values():
            if not module["models"]:
                del module["models"]
        if self.tokenizer is not None:
            document["tokenizer"] = self.tokenizer.model_dump(mode="json", exclude_none=True)
            if not self.tokenizer.tokens:
                del document["tokenizer"]["tokens"]
        if self.evomerge:
            document["evomerge"] = self.model_dump(mode="json", include={"evomerge"})["evomerge"]
        return document


def _models_in(part: Recipe | Module) -> Iterator[str]:
    yield from (entry.model for entry in part.models)
    for piece in part.slices or ():
        yield from [piece.base_model] if piece.base_model else []
        yield from (source.model for source in piece.sources)
    if isinstance(part, Recipe):
        yield from (stretch.model for stretch in part.route or ())
        for module in (part.modules or {}).values():
            yield from _models_in(module)


class _Dumper(yaml.SafeDumper):
    """Writes a gradient on one line, and floats always with a point, as YAML 1.1 needs."""


def _represent_list(dumper: _Dumper, values: list[Any]) -> yaml.Node:
    flow = all(isinstance(value, (int, float, str)) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=flow)


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    # YAML 1.1 reads these signs as line breaks; PyYAML's default quotes would lose them.
    style = '"' if any(sign in text for sign in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(str, _represent_text)
