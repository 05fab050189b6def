"""Data-flow spaces over tiny models, by hand and by hypothesis."""

import numpy as np
from hypothesis import strategies as st

from evomerge.recipe import Recipe, Stretch
from evomerge.route import Hop, hops_of, stretches_of
from evomerge.space import SearchSpace
from tests.space.building import ONE, TWO, build
from tests.space.structures import llama

HOP = {"per": "hop", "low": 0.5, "high": 2.0}
PAIR = {**HOP, "per": "pair"}

NAMES = ("models/x", "models/y", "models/z")


def routes(depth=4, sources=(ONE, TWO), **keys) -> SearchSpace:
    return build({"routes": keys}, llama(depth), sources=sources)


def layers_of(recipe: Recipe) -> list[tuple[str, int]]:
    return [(hop.model, hop.layer) for hop in hops_of(recipe)]


def through(*hops, **fields) -> Recipe:
    """A recipe of a route, its hops given as (model, layer) or (model, layer, scale)."""
    stretches = stretches_of([Hop(*hop) for hop in hops])
    return Recipe(merge_method="passthrough", route=stretches, **fields)


def own_route(model: str, depth: int) -> tuple[Stretch, ...]:
    return (Stretch(model=model, layers=(0, depth)),)


def at(space: SearchSpace, **values: float) -> np.ndarray:
    """The start with the genes named otherwise: `in_1_japanese_00` is in.1.japanese.00."""
    genome = space.start.copy()
    names = [gene.name.replace(".", "_") for gene in space.genes]
    for name, value in values.items():
        genome[names.index(name)] = value
    return genome


@st.composite
def route_spaces(draw):
    """(depth, keys of `routes`, space, genome); the genome has many ties."""
    depth = draw(st.integers(2, 5))
    sources = NAMES[: draw(st.integers(1, 3))]
    repeats = draw(st.integers(1, 3))
    total = depth * len(sources) * repeats
    keys: dict = {"repeats": repeats, "conditional": draw(st.booleans())}
    kind = draw(st.sampled_from(["none", "hop", "pair"]))
    if kind == "none":
        keys["scales"] = "none"
    else:
        keys["scales"] = {
            "per": kind,
            "low": draw(st.floats(0.01, 1.0)),
            "high": draw(st.floats(1.01, 10.0)),
            "scale": draw(st.sampled_from(["linear", "log"])),
        }
    # Without scales, some layer must be free to come or go.
    spare = 0 if kind != "none" or total == 2 else 1
    if draw(st.booleans()):
        keys["max_layers"] = draw(st.integers(2 + spare, total + 3))
    if draw(st.booleans()):
        most = min(keys.get("max_layers", total), total - spare)
        keys["min_layers"] = draw(st.integers(1, most))
    if kind == "none" and total == 2:
        keys["repeats"] = 2
        keys.pop("max_layers", None)
        keys.pop("min_layers", None)
    space = routes(depth, sources, **keys)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    genome = random.random(len(space.genes))
    coarse = random.random(len(genome)) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    genome[coarse] = np.round(genome[coarse] * 4.0) / 4.0
    return depth, keys, space, genome
