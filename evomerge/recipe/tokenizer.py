"""The tokenizer of the result, as a recipe describes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    model_validator,
)

from evomerge.recipe.inputs import Reference

_STRICT = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelToken(BaseModel):
    """The embedding of one token of one model, named by its id or by its text."""

    model_config = _STRICT

    kind: Literal["model_token"] = "model_token"
    model: Reference
    token_id: int | None = Field(default=None, ge=0)
    token: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> ModelToken:
        if (self.token_id is None) == (self.token is None):
            raise ValueError("give either token_id or token")
        return self


class ZeroToken(BaseModel):
    """An embedding of zeros."""

    model_config = _STRICT

    kind: Literal["zero"] = "zero"


def _kind_of(source: object) -> str | None:
    if isinstance(source, (ModelToken, ZeroToken)):
        return source.kind
    if isinstance(source, Mapping):
        kind = source.get("kind", "model" if "model" in source else None)
        return kind if isinstance(kind, str) else None
    return "model" if isinstance(source, str) else None


_TokenSource = Annotated[
    Annotated[Reference, Tag("model")]
    | Annotated[ModelToken, Tag("model_token")]
    | Annotated[ZeroToken, Tag("zero")],
    Discriminator(
        _kind_of,
        custom_error_type="token_source",
        custom_error_message="write a model, {kind: model_token, ...} or {kind: zero}",
    ),
]


class TokenSpec(BaseModel):
    """Where the embedding of one token comes from.

    source: a model (its own token of that text), one token of a model, or zeros. force: whether
    models that have the token get it too.
    """

    model_config = _STRICT

    source: _TokenSource
    force: bool = False


def _none_is_empty(value: object) -> object:
    return {} if value is None else value


class TokenizerSpec(BaseModel):
    """The vocabulary of the result: of all models (`union`), of the `base`, or of one named model.

    tokens: text -> where its embedding comes from. pad_to_multiple_of: rows are added to the
    embedding up to a multiple of this.
    """

    model_config = _STRICT

    source: Reference = "union"
    tokens: Annotated[dict[str, TokenSpec], BeforeValidator(_none_is_empty)] = Field(
        default_factory=dict
    )
    pad_to_multiple_of: PositiveInt | None = None
