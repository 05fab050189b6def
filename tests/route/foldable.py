"""Two models of every architecture that scales are folded into, and the slow reference.

The reference multiplies the stream of a plainly loaded model before each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from evomerge.export.checkpoint import write_checkpoint
from evomerge.recipe import Recipe
from evomerge.route import Hop, stretches_of
from evomerge.sources import Source, Structure, open_source
from tests.architectures import ARCHITECTURES, ROWS

_EPSILONS = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps")

_SLIDES, _SEES_ALL = "sliding_attention", "full_attention"
_WINDOWS = {"sliding_window": 6, "layer_types": [_SLIDES, _SEES_ALL, _SLIDES]}


def like(name: str, kind: str | None = None, **settings: object) -> Callable[[], PreTrainedConfig]:
    """The configuration of a tested architecture, of another kind perhaps, with settings."""

    def configure() -> PreTrainedConfig:
        config = ARCHITECTURES[name][1]()
        if kind is None and not settings:
            return config
        changed = {**config.to_dict(), **settings}
        for own in ("model_type", "architectures", "rope_parameters", "layer_types"):
            if own not in settings:
                changed.pop(own, None)
        return getattr(transformers, kind or type(config).__name__)(**changed)

    return configure


CONFIGS: Mapping[str, Callable[[], PreTrainedConfig]] = {
    "llama": like("llama"),
    "llama, tied": like("llama", tie_word_embeddings=True),
    "llama with biases": like("llama", attention_bias=True, mlp_bias=True),
    "mistral": like("mistral", sliding_window=6),
    "qwen2": like("qwen2", use_sliding_window=True, **_WINDOWS),
    "qwen3": like("qwen3"),
    "qwen3_moe": like("qwen3_moe"),
    "qwen3_moe with a plain layer": like("qwen3_moe", mlp_only_layers=[1]),
    "smollm3": like("llama", "SmolLM3Config", no_rope_layers=[1, 0, 1]),
    "phi3": like("phi3"),
    "mixtral": like("mixtral"),
    "gpt2": like("gpt2"),
    "gpt_neox": like("gpt_neox"),
    "gpt_neox, one after the other": like("gpt_neox", use_parallel_residual=False),
    "gemma": like("gemma2", "GemmaConfig"),
    "gemma2": like("gemma2", **_WINDOWS),
    "gemma3": like("gemma3", **_WINDOWS),
    "olmo2": like("olmo2"),
    "olmo2 with biases": like("olmo2", attention_bias=True),
    "olmo3": like("olmo2", "Olmo3Config", **_WINDOWS),
}
"""Name -> a configuration of three layers."""


@dataclass(frozen=True)
class Pair:
    """Two opened models, `a` and `b`, of one architecture."""

    folder: Path
    a: Source
    b: Source

    @property
    def sources(self) -> dict[str, Source]:
        return {source.reference: source for source in (self.a, self.b)}

    @property
    def structures(self) -> dict[str, Structure]:
        return {reference: source.structure for reference, source in self.sources.items()}

    def hops(self, *hops: tuple[str, int, float]) -> tuple[Hop, ...]:
        """Hops from (a or b, layer, scale)."""
        return tuple(Hop(getattr(self, name).reference, *rest) for name, *rest in hops)

    def write(self, recipe: Recipe, name: str) -> Path:
        """Execute a recipe into a new folder."""
        folder = self.folder / name
        folder.mkdir()
        write_checkpoint(recipe, self.sources, self.a, folder)
        return folder

    def reference(self, hops: Sequence[Hop], name: str) -> PreTrainedModel:
        """The unscaled Frankenmerge as transformers loads it, with hooks that scale its stream."""
        slices = [
            {"sources": [{"model": hop.model, "layer_range": [hop.layer, hop.layer + 1]}]}
            for hop in hops
        ]
        recipe = Recipe.model_validate({"merge_method": "passthrough", "slices": slices})
        model = load(self.write(recipe, name))
        [layers] = [
            module
            for module in model.modules()
            if isinstance(module, torch.nn.ModuleList) and hasattr(module[0], "mlp")
        ]
        assert len(layers) == len(hops)
        for layer, hop in zip(layers, hops, strict=True):
            layer.register_forward_pre_hook(
                lambda _, given, scale=hop.scale: (given[0] * scale, *given[1:])
            )
        return model


def save_pair(
    folder: Path, config: Callable[[], PreTrainedConfig], *, epsilon: float | None = None
) -> Pair:
    """Save and open two random models. epsilon: of their norms, as configured when not given."""
    opened = []
    for seed, name in enumerate(("a", "b")):
        chosen = config()
        for key in _EPSILONS:
            if epsilon is not None and hasattr(chosen, key):
                setattr(chosen, key, epsilon)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(chosen)
            with torch.no_grad():
                for parameter in model.parameters():
                    # A stream of about the size of real ones; gains and biases all different.
                    size = 1.0 if parameter.shape[0] == ROWS else 0.3
                    parameter.add_(size * torch.randn(parameter.shape))
        model.save_pretrained(folder / name)
        opened.append(open_source(str(folder / name), where="test"))
    return Pair(folder, *opened)


def load(folder: Path) -> PreTrainedModel:
    """As anyone loads it; every tensor has its place, and every place its tensor."""
    model, found = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(found.values()), found
    loaded: PreTrainedModel = model.eval()
    return loaded


def recipe_of(hops: Sequence[Hop], **fields: object) -> Recipe:
    """The recipe of a route."""
    return Recipe.model_validate(
        {"merge_method": "passthrough", "route": stretches_of(hops), **fields}
    )


def logits_of(model: PreTrainedModel) -> torch.Tensor:
    """Logits of four random sequences, (4, 12, vocabulary)."""
    with torch.no_grad():
        found: torch.Tensor = model(tokens(), use_cache=False).logits
    return found


def tokens() -> torch.Tensor:
    """Four random sequences, (4, 12)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, ROWS, (4, 12), generator=generator)
