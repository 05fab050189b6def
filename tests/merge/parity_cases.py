"""Documents for comparisons with mergekit: every method, and its special cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.merge.conftest import Document, Family

Cases = Mapping[str, Document]

# No simple fractions: with those, sums of bfloat16 values land exactly between two others.
WEIGHTS = (0.36787944, 0.51328571, -0.22817391)
POSITIVE = (0.36787944, 0.51328571, 0.22817391)
DENSITIES = (0.41, 0.67, 0.13)


def experts(family: Family, count: int = 3, **parameters: object) -> list[Document]:
    """Models with parameters of their own: a list gives each its value."""
    return [
        {
            "model": model,
            "parameters": {
                name: values[i] if isinstance(values, (list, tuple)) else values
                for name, values in parameters.items()
            },
        }
        for i, model in enumerate(family.experts[:count])
    ]


def with_filters(values: list[float], other: float) -> list[Document]:
    return [
        {"filter": "attn", "value": values},
        {"filter": "mlp.down", "value": 0.91},
        {"value": other},
    ]


def varied(last: float) -> list[object]:
    """Values of three models: a gradient over depth, filters with one, a number."""
    return [[0.15, 0.91, 0.33], with_filters([0.61, 0.27], 0.47), last]


def usual(family: Family, method: str) -> Document:
    """Gradients, filters and unequal values, in every parameter that can have them."""
    weights = {"models": experts(family, weight=varied(-0.22817391))}
    positive = {"models": experts(family, weight=varied(0.22817391))}
    densities = experts(family, weight=varied(-0.22817391), density=varied(0.13))
    base = {"base_model": family.base}
    plain = [{"model": model} for model in family.experts]
    one = {**base, "models": plain[:1]}
    task_vectors = {**base, "models": densities, "parameters": {"lambda": [0.7, 1.3]}}
    gammas = experts(family, weight=varied(-0.2281), density=varied(0.13), gamma=[0.1, 0.03, 0.07])
    outliers = {**task_vectors, "models": gammas}
    documents: Cases = {
        "linear": weights,
        "slerp": {**one, "parameters": {"t": with_filters([0.9, 0.1], 0.43)}},
        "nuslerp": {**base, "models": experts(family, 2, weight=varied(0.0))},
        "multislerp": {**base, **positive},
        "karcher": {"models": plain},
        "task_arithmetic": {**task_vectors, "models": weights["models"]},
        "ties": task_vectors,
        "breadcrumbs": outliers,
        "breadcrumbs_ties": outliers,
        "model_stock": {**base, "models": plain},
        "nearswap": {**one, "parameters": {"t": with_filters([0.001, 0.03], 0.007)}},
        "sce": {**base, "models": plain, "parameters": {"select_topk": [0.31, 0.83]}},
        "arcee_fusion": one,
        "ram": {**base, "models": plain, "parameters": {"epsilon": 0.021}},
        "ramplus_tl": {
            **base,
            "models": plain,
            "parameters": {"epsilon": 0.021, "r": [0.1, 0.7], "alpha": [0.9, 0.3]},
        },
        "passthrough": {"models": experts(family, 1, scale=[with_filters([0.7, -1.3], 1.1)])},
    }
    return {"merge_method": method, "out_dtype": "float32", **documents[method]}


def linear_cases(family: Family) -> Cases:
    weighted = experts(family, weight=WEIGHTS)
    return {
        "weights": {"models": weighted},
        "not normalized": {"models": weighted, "parameters": {"normalize": False}},
        "base listed": {
            "base_model": family.base,
            "models": [{"model": family.base, "parameters": {"weight": 0.77}}, *weighted],
        },
        "base not listed takes the recipe's weight": {
            "base_model": family.base,
            "models": weighted,
            "parameters": {"weight": 0.29},
        },
        "a filter that matches nothing falls to the recipe": {
            "models": experts(
                family,
                weight=[[{"filter": "mlp", "value": 0.9}], 0.6, [{"filter": "?", "value": 7}]],
            ),
            "parameters": {"weight": [{"filter": "q_proj", "value": [0.2, 0.6]}, {"value": 0.33}]},
        },
    }


def slerp_cases(family: Family) -> Cases:
    one, listed = [{"model": family.experts[0]}], [{"model": family.base}]
    t = {"t": 0.36787944}
    cases: Cases = {
        "t": {"models": one, "parameters": t},
        "base listed first": {"models": [*listed, *one], "parameters": t},
        "base listed last": {"models": [*one, *listed], "parameters": t},
        "gradient": {"models": one, "parameters": {"t": [0.0, 0.21, 1.0]}},
        "beyond the other": {"models": one, "parameters": {"t": 1.4}},
    }
    return {name: {"base_model": family.base, **case} for name, case in cases.items()}


def nuslerp_cases(family: Family) -> Cases:
    two = {"models": experts(family, 2, weight=POSITIVE)}
    based = {"base_model": family.base, **two}
    rows = {"parameters": {"nuslerp_flatten": False}}
    columns = {"parameters": {"nuslerp_flatten": False, "nuslerp_row_wise": True}}
    listed = [{"model": family.base, "parameters": {"weight": 0.9}}, *two["models"]]
    return {
        "whole": two,
        "rows": {**two, **rows},
        "columns": {**two, **columns},
        "rows from the base": {**based, **rows},
        "columns from the base": {**based, **columns},
        "base listed": {**based, "models": listed},
        "weights that cancel": {"models": experts(family, 2, weight=[0.4, -0.4])},
        "a negative weight": {"models": experts(family, 2, weight=[0.9, -0.25])},
    }


def multislerp_cases(family: Family) -> Cases:
    three = {"models": experts(family, weight=POSITIVE)}
    return {
        "no base": three,
        "not normalized": {**three, "parameters": {"normalize_weights": False}},
        "one model": {"models": three["models"][:1]},
        "one model and a base": {"models": three["models"][:1], "base_model": family.base},
        "a large eps": {**three, "base_model": family.base, "parameters": {"eps": 0.01}},
        "a negative weight": {
            "models": experts(family, weight=[0.7, 0.6, -0.2]),
            "base_model": family.base,
        },
    }


def karcher_cases(family: Family) -> Cases:
    plain = [{"model": model} for model in family.experts]
    return {
        "base not listed": {"models": plain, "base_model": family.base},
        "base listed": {
            "models": [*plain[:2], {"model": family.base}],
            "base_model": family.base,
        },
        "one step": {"models": plain, "parameters": {"max_iter": 1}},
        "one model": {"models": plain[:1]},
        "a large tol": {"models": plain, "parameters": {"tol": 0.03}},
    }


def model_stock_cases(family: Family) -> Cases:
    based = {"base_model": family.base, "models": [{"model": m} for m in family.experts]}
    return {
        "two models": {**based, "models": based["models"][:2]},
        "by filters": {**based, "parameters": {"filter_wise": True}},
    }


def task_vector_cases(family: Family) -> Cases:
    weighted = experts(family, weight=WEIGHTS, density=DENSITIES)
    listed = {"model": family.base, "parameters": {"weight": 0.9, "density": 0.5}}
    cases: Cases = {
        "weights": {"models": weighted},
        "one model": {"models": weighted[:1]},
        "lambda": {"models": weighted, "parameters": {"lambda": 1.37}},
        "normalized": {"models": weighted, "parameters": {"normalize": True}},
        "not normalized": {"models": weighted, "parameters": {"normalize": False}},
        "base listed": {"models": [listed, *weighted]},
        "mask in int8": {"models": weighted, "parameters": {"int8_mask": True}},
        "rescaled": {"models": weighted, "parameters": {"rescale": True}},
        "nothing kept of one": {"models": experts(family, 2, weight=[0.5, 0.3], density=[0, 0.4])},
        "all kept": {"models": experts(family, weight=WEIGHTS)},
        "weights that cancel": {
            "models": experts(family, 2, weight=[0.3, -0.3], density=0.5),
            "parameters": {"normalize": True},
        },
    }
    return {name: {"base_model": family.base, **case} for name, case in cases.items()}


def breadcrumbs_cases(family: Family) -> Cases:
    return {
        **task_vector_cases(family),
        "more outliers than would leave enough": {
            "base_model": family.base,
            "models": experts(family, weight=WEIGHTS, density=[0.9, 0.6, 0.95], gamma=0.3),
        },
        "no outliers": {
            "base_model": family.base,
            "models": experts(family, weight=WEIGHTS, density=DENSITIES, gamma=0.0),
        },
    }


def sce_cases(family: Family) -> Cases:
    based = {"base_model": family.base, "models": [{"model": m} for m in family.experts]}
    return {
        "all selected": based,
        "nothing selected": {**based, "parameters": {"select_topk": 0.0}},
        "one model": {**based, "models": based["models"][:1]},
        "one model, half selected": {
            **based,
            "models": based["models"][:1],
            "parameters": {"select_topk": 0.5},
        },
        "mask in int8": {**based, "parameters": {"select_topk": 0.27, "int8_mask": True}},
    }


def ram_cases(family: Family) -> Cases:
    based = {"base_model": family.base, "models": [{"model": m} for m in family.experts]}
    return {
        "defaults": based,
        "nothing active": {**based, "parameters": {"epsilon": 1.0}},
        "one model": {**based, "models": based["models"][:1]},
    }


CASES: Mapping[str, Callable[[Family], Cases]] = {
    "linear": linear_cases,
    "slerp": slerp_cases,
    "nuslerp": nuslerp_cases,
    "multislerp": multislerp_cases,
    "karcher": karcher_cases,
    "model_stock": model_stock_cases,
    "task_arithmetic": task_vector_cases,
    "ties": task_vector_cases,
    "breadcrumbs": breadcrumbs_cases,
    "breadcrumbs_ties": breadcrumbs_cases,
    "sce": sce_cases,
    "ram": ram_cases,
    "ramplus_tl": ram_cases,
}
NAMES = [
    (method, case)
    for method, cases in CASES.items()
    for case in cases(Family("b", ("1", "2", "3"), {}))
]
"""Cases are made of a family; their names need none."""
