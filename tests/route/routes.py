"""Routes over tiny models of many architectures, and the same models built in the plain way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from evomerge.evaluate.engines.transformers.routed import RoutedEngine
from evomerge.merge.engine import MergeEngine
from evomerge.merge.settings.config import merged_config
from evomerge.recipe import Recipe
from evomerge.route import Hop, stretches_of
from evomerge.sources import Source, open_source
from tests.architectures import load_whole, save_architecture, save_expert, write_tensors
from tests.checkpoints import word_tokenizer

WINDOW = 6
"""Positions that a sliding layer sees; every sequence of the tests is longer."""

_SLIDES, _SEES_ALL = "sliding_attention", "full_attention"
WINDOWS: Mapping[str, Mapping[str, object]] = {
    "mistral": {"sliding_window": WINDOW},
    "gemma2": {"sliding_window": WINDOW, "layer_types": [_SLIDES, _SEES_ALL, _SLIDES]},
    "gemma3": {"sliding_window": WINDOW, "layer_types": [_SLIDES, _SEES_ALL, _SLIDES]},
    "qwen3": {
        "sliding_window": WINDOW,
        "use_sliding_window": True,
        "layer_types": [_SEES_ALL, _SLIDES, _SEES_ALL],
    },
}
"""Architecture -> settings with which some of its layers slide."""


@dataclass(frozen=True)
class Models:
    """Two sources of one architecture, by the names that routes use: base and expert."""

    kind: str
    folder: Path
    sources: Mapping[str, Source]

    def engine(self, **options: object) -> RoutedEngine:
        """An engine around the base."""
        options = {"dtype": "float32", "tokenizer": word_tokenizer(), **options}
        return RoutedEngine(self.sources["base"], **options)  # type: ignore[arg-type]

    def plain(self, hops: Sequence[Hop]) -> PreTrainedModel:
        """The route's model, built as slices on disk and loaded by transformers; scales hooked."""
        slices = [
            {"sources": [{"model": hop.model, "layer_range": [hop.layer, hop.layer + 1]}]}
            for hop in hops
        ]
        recipe = Recipe.model_validate({"merge_method": "passthrough", "slices": slices})
        merge = MergeEngine(self.sources)
        folder = self.folder / f"plain-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        write_tensors(folder, dict(merge.execute(recipe)))
        config = merged_config(recipe, merge.plan(recipe), self.sources)
        (folder / "config.json").write_text(json.dumps(config))
        model = load_whole(folder, self.kind).eval()
        layers = [
            module
            for name, module in model.named_modules()
            if name.rpartition(".")[2].isdecimal() and name.count(".") == 2
        ]
        assert len(layers) == len(hops)
        for layer, hop in zip(layers, hops, strict=True):
            layer.register_forward_pre_hook(
                lambda _, given, scale=hop.scale: (given[0] * scale, *given[1:])
            )
        return model


def models(
    kind: str,
    folder: Path,
    *,
    base: Mapping[str, object] | None = None,
    expert: Mapping[str, object] | None = None,
) -> Models:
    """Save two models, with these settings in their configurations."""
    base = WINDOWS.get(kind, {}) if base is None else base
    first = save_architecture(folder / "base", kind)
    change_config(first, base)
    second = save_expert(folder / "expert", of=first, seed=1, scale=0.1)
    change_config(second, expert or {})
    sources = {
        name: open_source(str(path), where="test")
        for name, path in {"base": first, "expert": second}.items()
    }
    return Models(kind, folder, sources)


def change_config(folder: Path, settings: Mapping[str, object]) -> None:
    """Say something else in a config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def recipe_of(hops: Sequence[Hop]) -> Recipe:
    """The recipe of a route."""
    return Recipe(merge_method="passthrough", route=stretches_of(hops))


def route(*hops: tuple[str, int] | tuple[str, int, float]) -> tuple[Hop, ...]:
    """Hops from (model, layer) and (model, layer, scale)."""
    return tuple(Hop(*hop) for hop in hops)


def logits_of(model: torch.nn.Module, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits of rows of one length, without a cache."""
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor(tokens), use_cache=False).logits
    return found
