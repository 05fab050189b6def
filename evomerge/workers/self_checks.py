"""Which candidates are checked against plain transformers, and how one is.

A model by itself is held to its own folder, as transformers loads it: configuration, weights, head
and end tokens. A merge has no folder, so it is held to its live model read the plain way. One of
each kind of live model is checked, before the first of its kind is scored.
"""

from __future__ import annotations

import gc
import weakref

from evomerge.candidate import Candidate
from evomerge.evaluate.engines.base import Unscorable
from evomerge.evaluate.engines.plain_model import load_plain
from evomerge.evaluate.self_check import SelfCheck, check_engine, choose_items, expect
from evomerge.merge.forward_settings import pass_key
from evomerge.preparation import Preparation
from evomerge.recipe import Recipe
from evomerge.sources import Checkpoint
from evomerge.workers.live_models import LiveModels


def kind_of(recipe: Recipe, preparation: Preparation) -> str:
    """The same for recipes whose live models are of one kind; one check serves them all."""
    alone = preparation.alone_in(recipe)
    if alone is not None:
        return f"alone {pass_key(alone.source.config)}"
    if recipe.route is not None:
        return "route"
    return "merge" if recipe.slices is None and recipe.modules is None else "layers"


def check_candidate(
    candidate: Candidate, preparation: Preparation, models: LiveModels, *, device: str
) -> SelfCheck | None:
    """Check the live model of a candidate; None where it has no score, or nothing to be held to.

    Raises SelfCheckError where the engine does not score as plain transformers does.
    """
    alone = preparation.alone_in(candidate.recipe)
    suite = preparation.suite if alone is None else alone.suite
    items = choose_items(suite)
    expected = None
    if alone is not None and isinstance(alone.source, Checkpoint):
        models.release()  # memory holds one model at a time
        reference = load_plain(
            alone.source.folder,
            dtype=preparation.out_dtype,
            device=device,
            tokenizer=alone.tokenizer,
            trust_remote_code=preparation.job.models.trust_remote_code,
        )
        expected = expect(reference, suite, items)
        model = weakref.ref(reference.model)
        del reference
        if model() is not None:  # its parts hold each other; collecting takes half a second
            gc.collect()
    try:
        engine = models.hold(candidate.recipe)
        if expected is None:
            plain = engine.plain()
            if plain is None:
                return None
            expected = expect(plain, suite, items)
        return check_engine(engine, expected, suite, label=candidate.label)
    except Unscorable:
        return None
