"""Spaces over two sources, by hand and by hypothesis."""

import numpy as np
from hypothesis import strategies as st

from evomerge.sources import Structure
from evomerge.space import SearchSpace, build_space
from tests.space.structures import gpt2, hybrid, llama, opt, with_vision

BASE, ONE, TWO = "models/base", "models/arithmetic", "models/japanese"

METHODS = {
    "linear": ("weight",),
    "slerp": ("t",),
    "task_arithmetic": ("weight", "lambda"),
    "ties": ("weight", "density", "lambda"),
    "dare_linear": ("weight", "density", "lambda"),
    "dare_ties": ("weight", "density", "lambda"),
    "breadcrumbs_ties": ("weight", "density", "gamma", "lambda"),
    "della": ("weight", "density", "lambda"),
    "nuslerp": ("weight",),
    "multislerp": ("weight",),
    "nearswap": ("t",),
    "sce": ("select_topk",),
    "ramplus_tl": ("r", "alpha"),
}
PER_MODEL = ("weight", "density", "gamma")
"""Those of the parameters above that each model has its own of."""
STRUCTURES = [llama(4), llama(1), llama(7), opt(3), gpt2(5), with_vision(3), hybrid(6)]


def build(
    document, structure: Structure | None = None, sources=(ONE, TWO), seed=7, statistics=None
) -> SearchSpace:
    return build_space(
        document,
        base=BASE,
        sources=sources,
        structure=structure or llama(),
        out_dtype="bfloat16",
        seed=seed,
        statistics=statistics,
    )


def depth_of(structure: Structure, tensor: str) -> float:
    layer = structure.layer_of(tensor)
    if layer is None:
        return 0.0
    return layer / (structure.depth - 1) if structure.depth > 1 else 1.0


@st.composite
def spaces(draw):
    structure = draw(st.sampled_from(STRUCTURES))
    method = draw(st.sampled_from(sorted(METHODS)))
    parameters, grains = {}, {}
    for name in METHODS[method]:
        low = draw(st.floats(0.05, 0.5))
        high = draw(st.floats(0.6, 1.0))
        knots = st.integers(2, structure.depth).map(lambda k: {"knots": k})
        options = [st.just("all"), st.just("each")]
        options.append(st.integers(1, structure.depth).map(lambda k: {"groups_of": k}))
        if structure.depth > 1:
            options.append(knots)
        layers = draw(st.one_of(options))
        parameters[name] = {
            "low": low,
            "high": high,
            "scale": draw(st.sampled_from(["linear", "log"])),
            "layers": layers,
            "components": draw(st.sampled_from(["all", ["attention", "mlp", "rest"]])),
        }
        if name in PER_MODEL:
            parameters[name]["per"] = draw(st.sampled_from(["source", "all"]))
        grains[name] = "knots" if isinstance(layers, dict) and "knots" in layers else "steps"
    space = build({"method": method, "parameters": parameters}, structure)
    seed = draw(st.integers(0, 2**32 - 1))
    genome = np.random.default_rng(seed).random(len(space.genes))
    return structure, space, genome, grains
