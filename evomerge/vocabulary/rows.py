"""Where each row of an embedding over the vocabulary of the result comes from.

A model's own row is taken by its token, wherever it lies there. A token that a model lacks gets, as
in mergekit: the row that the recipe states for it; else that of the only model that has it; else
that of the base; else the mean of those that have it.
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
    """Rows of the result that are given to models without a row of their own.

    ids: (k,) int64, rows of the result. donors: m models; none of them for rows of zeros, the mean
    of several. rows: (k, m) int64, the rows there.
    """

    donors: tuple[str, ...]
    ids: NDArray[np.int64]
    rows: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class RowPlan:
    """Rows of the result, for every model.

    count: how many. own: model -> (count,) int64, its row for each row of the result, or ABSENT.
    fills: what stands where it is absent. spare: rows that are no token's.
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

    base: the model whose row is taken for a token that others lack. stated: what the recipe says
    of single tokens. multiple_of: the number of rows is rounded up to it. Raises RecipeError for a
    row that is stated and is not there.
    """
    used = max(output.values()) + 1
    count = -(-used // multiple_of) * multiple_of
    own = {name: np.full(count, ABSENT, dtype=np.int64) for name in models}
    found: dict[tuple[str, ...], list[tuple[int, list[int]]]] = defaultdict(list)
    for token, place in output.items():
        rows = {name: row for name, of in models.items() if (row := of.ids.get(token)) is not None}
        spec = stated.get(token)
        if spec is None or not spec.force:
            for name, row in rows.items():
                own[name][place] = row
            if len(rows) == len(models):
                continue
        donors = _default(rows, base) if spec is None else _as_stated(token, spec, models)
        found[tuple(donors)].append((place, list(donors.values())))
    fills = [
        Fill(
            donors=donors,
            ids=np.array([place for place, _ in entries], dtype=np.int64),
            rows=np.array([rows for _, rows in entries], dtype=np.int64).reshape(len(entries), -1),
        )
        for donors, entries in found.items()
    ]
    spare = np.setdiff1d(np.arange(count), np.fromiter(output.values(), dtype=np.int64))
    return RowPlan(count=count, own=own, fills=tuple(fills), spare=spare)


def _default(rows: Mapping[str, int], base: str | None) -> Mapping[str, int]:
    """The models whose row is given to the others, with the row; none where no model has one."""
    return {base: rows[base]} if base is not None and base in rows else rows


def _as_stated(token: str, spec: TokenSpec, models: Mapping[str, Tokens]) -> Mapping[str, int]:
    source = spec.source
    if isinstance(source, ZeroToken):
        return {}
    where = f"tokenizer.tokens.{token}.source"
    model = source.model if isinstance(source, ModelToken) else source
    if model not in models:
        raise RecipeError(
            f"{where}: {model} is not among the models merged; name one of {', '.join(models)}"
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
