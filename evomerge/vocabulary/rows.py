"""Where each row of an embedding over the vocabulary of the result comes from.

A model's own row is found by its token. For a token that a model lacks, the rules are those of
mergekit: take the row that the recipe gives; else the row of the only model that has the token;
else the row of the base; else the mean over the models that have it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import RecipeError
from evomerge.recipe import ModelToken, TokenSpec, ZeroToken
from evomerge.vocabulary.tokenizers import Tokens

ABSENT = -1
"""The row of a token that a model lacks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fill:
    """Rows of the result for models that have no row of their own.

    ids: (k,) int64, rows of the result. donors: m models; no donor gives zeros, several donors give
    their mean. rows: (k, m) int64, the donors' rows.
    """

    donors: tuple[str, ...]
    ids: NDArray[np.int64]
    rows: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class RowPlan:
    """Rows of the result, for every model.

    count: number of rows. own: model -> (count,) int64, its row for each row of the result, or
    ABSENT. fills: the rows to use where it is ABSENT. spare: rows without a token.
    """

    count: int
    own: Mapping[str, NDArray[np.int64]]
    fills: tuple[Fill, ...]
    spare: NDArray[np.int64]


def plan_rows(
    output: Mapping[str, int],
    models: Mapping[str, Tokens],
    *,
    base: str | None,
    stated: Mapping[str, TokenSpec],
    multiple_of: int = 1,
) -> RowPlan:
    """Plan the rows of `output`, token -> row, over models by reference.

    base: the model that gives its row for a token that others lack. stated: the recipe's rules for
    single tokens. multiple_of: the number of rows is rounded up to a multiple of it. Raises
    RecipeError if the recipe states a row that does not exist.
    """
    used = max(output.values()) + 1
    count = -(-used // multiple_of) * multiple_of
    own = {name: np.full(count, ABSENT, dtype=np.int64) for name in models}
    entries_of: dict[tuple[str, ...], list[tuple[int, list[int]]]] = defaultdict(list)
    for token, place in output.items():
        rows = {
            name: row
            for name, tokens in models.items()
            if (row := tokens.ids.get(token)) is not None
        }
        spec = stated.get(token)
        if spec is None or not spec.force:
            for name, row in rows.items():
                own[name][place] = row
            if len(rows) == len(models):
                continue
        donors = _default(rows, base) if spec is None else _as_stated(token, spec, models)
        entries_of[tuple(donors)].append((place, list(donors.values())))
    fills = [
        Fill(
            donors=donors,
            ids=np.array([place for place, _ in entries], dtype=np.int64),
            rows=np.array([rows for _, rows in entries], dtype=np.int64).reshape(len(entries), -1),
        )
        for donors, entries in entries_of.items()
    ]
    spare = np.setdiff1d(np.arange(count), np.fromiter(output.values(), dtype=np.int64))
    return RowPlan(count=count, own=own, fills=tuple(fills), spare=spare)


def _default(rows: Mapping[str, int], base: str | None) -> Mapping[str, int]:
    """The models that give their row to the others -> that row; empty where no model has one."""
    return {base: rows[base]} if base is not None and base in rows else rows


def _as_stated(token: str, spec: TokenSpec, models: Mapping[str, Tokens]) -> Mapping[str, int]:
    source = spec.source
    if isinstance(source, ZeroToken):
        return {}
    where = f"tokenizer.tokens.{token}.source"
    model = source.model if isinstance(source, ModelToken) else source
    if model not in models:
        raise RecipeError(
            f"{where}: {model} is not among the merged models; name one of {', '.join(models)}"
        )
    known = models[model]
    if isinstance(source, ModelToken) and source.token_id is not None:
        if source.token_id >= known.rows:
            raise RecipeError(
                f"{where}: {model} has no row {source.token_id}; give one below {known.rows}"
            )
        return {model: source.token_id}
    wanted = token
    if isinstance(source, ModelToken):
        assert source.token is not None
        wanted = source.token
    if wanted not in known.ids:
        raise RecipeError(
            f"{where}: {model} has no token {wanted!r}; name a model that has it, or "
            "{kind: model_token, model: ..., token: ...} with a token that it has"
        )
    return {model: known.ids[wanted]}
