"""Attention, MLP and the rest: the tensors of each component, and how a recipe filters them.

The names of a checkpoint's tensors decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from evomerge.recipe import Condition, Gradient, Setting
from evomerge.sources import Structure
from evomerge.space.base import Component

ATTENTION = (
    "self_attn",
    "attn",
    "attention",
    "self_attention",
    "linear_attn",
    "mamba",
    "mixer",
    "mamba_decoder",
    "temporal_block",
    "conv",
    "multi_head_attention",
    "rel_attn",
)
"""Names in checkpoints of the part of a layer that mixes tokens."""

MLP = (
    *("mlp", "mlps", "mlp_block", "shared_mlp", "feed_forward", "ffn", "ff", "fc1", "fc2"),
    *("block_sparse_moe", "moe"),
)
"""Names in checkpoints of the part of a layer that works on each token alone."""


@dataclass(frozen=True)
class Components:
    """The tensors of a structure by component."""

    structure: Structure

    @cached_property
    def of(self) -> dict[str, Component]:
        """tensor name -> "attention", "mlp", "rest" (of the layers) or "outer"."""
        return {name: self._component(name) for name in self.structure.shapes}

    @cached_property
    def filters(self) -> dict[Component, tuple[str, ...]]:
        """Component -> substrings of tensor names that select it inside the layers."""
        modules: dict[Component, dict[str, None]] = {"attention": {}, "mlp": {}}
        for name, component in self.of.items():
            if component in modules:
                modules[component][f".{self._module(name)}."] = None
        return {component: tuple(found) for component, found in modules.items()}

    @cached_property
    def depths(self) -> dict[str, float]:
        """tensor name -> its position over depth, in [0, 1], as recipes resolve gradients."""
        last = self.structure.depth - 1
        layers = {name: self.structure.layer_of(name) for name in self.of}
        return {
            name: 0.0 if layer is None else layer / last if last else 1.0
            for name, layer in layers.items()
        }

    def layers(self, component: Component) -> tuple[int, ...]:
        """Layers that have tensors of a component ("all": any), ascending."""
        found = {
            self.structure.layer_of(name)
            for name, own in self.of.items()
            if own != "outer" and component in ("all", own)
        }
        return tuple(sorted(layer for layer in found if layer is not None))

    def setting(
        self,
        *,
        attention: float | Gradient | None,
        mlp: float | Gradient | None,
        layers: float | Gradient,
        outer: float,
    ) -> Setting:
        """One parameter as conditions on tensor names; the first match decides.

        attention, mlp: their values; None when they share that of `layers`, the rest of the layers.
        Tensors outside the layers come first, by their full names, if a later filter would catch
        them. Otherwise they come last, without a filter.
        """
        chosen: list[tuple[str, float | Gradient]] = []
        if attention is not None:
            chosen += [(found, attention) for found in self.filters["attention"]]
        if mlp is not None:
            chosen += [(found, mlp) for found in self.filters["mlp"]]
        if layers != outer:
            chosen.append((self.structure.layer_prefix, layers))
        if not chosen:
            return outer
        caught = [
            name for name in self.structure.outer if any(found in name for found, _ in chosen)
        ]
        conditions = [*((name, outer) for name in caught), *chosen, (None, outer)]
        return tuple(Condition(filter=found, value=value) for found, value in conditions)

    def _component(self, name: str) -> Component:
        if self.structure.layer_of(name) is None:
            return "outer"
        return component_of(self._module(name))

    def _module(self, name: str) -> str:
        """The first part of a layer tensor's name after the number of the layer."""
        _number, _, rest = name[len(self.structure.layer_prefix) :].partition(".")
        return rest.partition(".")[0]


def component_of(module: str) -> Component:
    """The component of a module in a layer, by its name: "attention", "mlp" or "rest"."""
    return "attention" if module in ATTENTION else "mlp" if module in MLP else "rest"


def absent(components: Components, wanted: Sequence[Component]) -> Component | None:
    """The first of `wanted` that no tensor belongs to; None when there is none."""
    present = set(components.of.values()) | {"all"}
    if "outer" in present:
        present.add("rest")
    return next((component for component in wanted if component not in present), None)
