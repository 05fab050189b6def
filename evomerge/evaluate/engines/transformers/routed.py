"""The in-process engine for routes: layers of several models around the first one's embeddings.

Each model's layers are loaded once; a route is put together of them in milliseconds, without a copy
of a weight. Log-likelihoods begin at the deepest states that an earlier route has left. Numbers are
those of `TransformersEngine` for the model that the route makes, up to rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from evomerge.errors import RecipeError
from evomerge.evaluate.engines.base import Continuation, LogLikelihood
from evomerge.evaluate.engines.live_model import build_model
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.engines.transformers.key_values import TrunkCache
from evomerge.evaluate.engines.transformers.routed_layers import RoutedLayers
from evomerge.evaluate.engines.transformers.token_tree import Pass, Plan
from evomerge.evaluate.engines.transformers.tree_passes import PlacedPass, score_tree
from evomerge.evaluate.engines.weight_loader import WeightLoader
from evomerge.recipe import DType, Recipe
from evomerge.route import Hop, PrefixStates, RoutedModel, check_route, hops_of
from evomerge.sources import Source
from evomerge.vocabulary import TokenSettings, config_folder


class RoutedEngine(TransformersEngine):
    """One live model on one device, and the layers of every other model that a route has named.

    first: the model that gives all routes their embeddings, final norm and head; routes begin with
    one of its layers. prefix_bytes: memory for hidden states, kept on the device for later routes.
    The rest as of TransformersEngine. A reference means the same weights as long as the engine
    lives.
    Raises SourceError if no model can be built, or its layers cannot be moved.
    """

    def __init__(
        self,
        first: Source,
        *,
        tokenizer: PreTrainedTokenizerBase,
        dtype: DType,
        device: str = "cpu",
        batch_size: int | Literal["auto"] = "auto",
        trust_remote_code: bool = False,
        settings: TokenSettings | None = None,
        prefix_bytes: int = 0,
    ) -> None:
        folder = config_folder(first)
        super().__init__(
            folder,
            tokenizer=tokenizer,
            dtype=dtype,
            device=device,
            batch_size=batch_size,
            trust_remote_code=trust_remote_code,
            settings=settings,
            config=first.config,
        )
        build = partial(
            build_model,
            folder,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            settings=settings,
        )
        if self._wanted is not None:
            self._wanted.keep_last_layer()
        self._first = first
        self._layers = RoutedLayers(
            first, self.model, self._loader, build=build, device=self.device
        )
        self._routed = RoutedModel(
            self.model, stack=self._layers.list_name, settings=self._layers.settings_of
        )
        self._routed.add(first.reference, self._layers.own)
        self._prefixes = PrefixStates(limit_bytes=prefix_bytes)
        self._depth = 0  # of the route; 0 if the live model is no route
        self._holds_first = False

    def follow(self, recipe: Recipe, sources: Mapping[str, Source]) -> None:
        """Make the recipe's route the live model's layers.

        sources: opened models by reference, also stages. The layers of each are loaded when a route
        names it for the first time. Raises RecipeError, SourceError.
        """
        hops = hops_of(recipe)
        used = {hop.model: sources[hop.model] for hop in hops}
        if used[hops[0].model].reference != self._first.reference:
            raise RecipeError(
                f"route.0.model: {hops[0].model} is not {self._first.reference}, which gives the "
                "live model its embeddings; begin the route with a layer of that model"
            )
        check_route(recipe, {name: source.structure for name, source in used.items()})
        if not self._holds_first:
            names = self._first.structure.shapes
            super().load((name, self._first.tensor(name)) for name in names)
            self._holds_first = True
        for name, source in used.items():
            if name not in self._routed:
                self._routed.add(name, self._layers.load(name, source))
        self._routed.follow(hops)
        self._prefixes.follow(hops)
        self._depth = len(hops)

    def expect(self, recipes: Sequence[Recipe]) -> None:
        """Announce the recipes that come next, on the same items; no score depends on it.

        A recipe that was not announced means that other items come.
        """
        self._prefixes.expect([hops_of(recipe) for recipe in recipes if recipe.route is not None])

    def load(self, stream: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Become the first model with other weights, until the next route; see Engine.load."""
        self._holds_first = False
        first = self._first
        self._routed.follow([Hop(first.reference, layer) for layer in range(first.structure.depth)])
        self._prefixes.follow(())
        self._depth = 0
        super().load(stream)

    def _score(self, padded: NDArray[np.int64], *, keep: int) -> torch.Tensor:
        batch = hashlib.blake2b(padded.tobytes() + repr(padded.shape).encode()).digest()
        start, states = self._prefixes.deepest(batch)
        with self._passing(batch, start, states):
            return super()._score(padded, keep=keep)

    def _score_plan(
        self, requests: Sequence[Continuation], owners: Sequence[Sequence[int]], plan: Plan
    ) -> list[LogLikelihood]:
        """Score a plan; a trunk and the passes that read it begin at one hop.

        The trunk has no keys before that hop.
        """
        beginnings: dict[Pass, tuple[bytes, int, torch.Tensor | None]] = {}
        for group in _groups(plan):
            start, states = self._prefixes.deepest_of_all(list(group.values()))
            for tree_pass, batch in group.items():
                beginnings[tree_pass] = batch, start, states.get(batch)

        def run(placed: PlacedPass, cache: TrunkCache) -> torch.Tensor:
            with self._passing(*beginnings[placed.tree_pass]):
                return self._run_pass(placed, cache)

        return score_tree(requests, owners, plan, run, device=self.device)

    @contextmanager
    def _passing(self, batch: bytes, start: int, states: torch.Tensor | None) -> Iterator[None]:
        """Within, a pass over a batch begins at hop `start`; states for later routes are kept."""
        watchers = {
            depth: partial(self._prefixes.keep, depth, batch)
            for depth in self._prefixes.wanted
            if depth > start
        }
        with self._routed.passing(start, states, watchers):
            yield
        self.hops += self._depth
        self.shared_hops += start


def check_routable(first: Source, *, trust_remote_code: bool, settings: TokenSettings) -> None:
    """Raise SourceError, in one line, for a model whose layers routes cannot move.

    No memory is allocated, so this can run before a search has a folder.
    """
    build = partial(
        build_model,
        config_folder(first),
        dtype="float32",
        trust_remote_code=trust_remote_code,
        settings=settings,
    )
    nowhere = torch.device("meta")
    model = build(config=first.config, device=nowhere)
    RoutedLayers(first, model, WeightLoader(model), build=build, device=nowhere)


def _groups(plan: Plan) -> Iterator[dict[Pass, bytes]]:
    """Groups of passes that depend on each other, with a digest of each pass.

    The digest is of all that is in the pass and in the passes of its group before it. So passes of
    two plans with the same digest are the same.
    """
    group: dict[Pass, bytes] = {}
    hasher = hashlib.blake2b()
    for tree_pass in plan.passes:
        if tree_pass.past == 0:
            if group:
                yield group
            group, hasher = {}, hashlib.blake2b()
        hasher.update(repr((tree_pass.past, tree_pass.trunk, tree_pass.ids.shape)).encode())
        for cells in (tree_pass.ids, tree_pass.depths, tree_pass.ends):
            hasher.update(cells.tobytes())
        group[tree_pass] = hasher.digest()
    yield group
