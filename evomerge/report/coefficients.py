"""A recipe's coefficients: figures over depth, and a table of those that do not vary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from evomerge.job import ModelsSpec
from evomerge.recipe import Recipe
from evomerge.report.figures import Figure, layout_of, spec_of, spread_of, titled
from evomerge.search import BASE, parent_labels
from evomerge.sources import Structure
from evomerge.space import component_of

# A recipe's coefficients in effect, by parameter, model, component and layer.
#
# The recipe resolves every value, tensor by tensor, as for the merge engine. So this works for
# recipes of any search space.


_COMPONENTS = {"attention": "attention", "mlp": "MLP"}
"""Component of a search space -> its name for people."""

_NORMS = ("norm", "ln_", "ln1", "ln2")
"""Words in the names of norms, which spaces count to the rest of a layer."""

_NAMES_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One model's values of a parameter over depth.

    model: its reference; None for a parameter of the whole recipe. values: (depth,), None for a
    layer without a value.
    """

    model: str | None
    values: tuple[float | None, ...]

    @property
    def varies(self) -> bool:
        """Whether layers differ."""
        return len(set(self.values)) > 1


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One parameter in one part of every layer."""

    parameter: str
    component: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, kw_only=True)
class Outer:
    """One parameter for tensors outside the layers; values in the order of `models`."""

    parameter: str
    tensors: tuple[str, ...]
    models: tuple[str | None, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """All numbers of a recipe. fixed: parameters with one value for the whole merge."""

    panels: tuple[Panel, ...]
    outer: tuple[Outer, ...]
    fixed: tuple[tuple[str, str], ...]


def coefficients_of(recipe: Recipe, structure: Structure) -> Coefficients:
    """Resolve every numeric parameter of a recipe over a checkpoint's tensors."""
    suffixes = _suffixes(structure)
    panels: list[Panel] = []
    outer: list[Outer] = []
    fixed: dict[str, str] = {}
    for parameter, models in _parameters(recipe).items():
        words = [value for m in models for value in _words(recipe, parameter, m, structure)]
        if words:
            fixed[parameter] = ", ".join(dict.fromkeys(words))
        if models == (None,) and isinstance(number := recipe.parameters[parameter], float):
            fixed[parameter] = f"{number:g}"
            continue
        groups: dict[tuple[Curve, ...], list[str]] = {}
        for suffix in suffixes:
            curves = tuple(_curve(recipe, parameter, m, suffix, structure) for m in models)
            known = tuple(c for c in curves if any(v is not None for v in c.values))
            if known:
                groups.setdefault(known, []).append(suffix)
        named = [(_component(members, suffixes), curves) for curves, members in groups.items()]
        for name, curves in sorted(named, key=lambda entry: _rank(entry[0])):
            panels.append(Panel(parameter=parameter, component=name, curves=curves))
        outer += _outer(recipe, parameter, models, structure)
    return Coefficients(panels=tuple(panels), outer=tuple(outer), fixed=tuple(fixed.items()))


def _parameters(recipe: Recipe) -> dict[str, tuple[str | None, ...]]:
    """Parameter -> the models that have it, or None alone for the recipe's own."""
    own = dict.fromkeys(name for entry in recipe.models for name in entry.parameters)
    everyone = tuple(entry.model for entry in recipe.models)
    found: dict[str, tuple[str | None, ...]] = {}
    for name in own:
        # A value of the recipe's own scope holds for the models that give none themselves.
        shared = name in recipe.parameters
        having = tuple(e.model for e in recipe.models if name in e.parameters)
        found[name] = everyone if shared else having
    return {**found, **{name: (None,) for name in recipe.parameters if name not in found}}


def _suffixes(structure: Structure) -> tuple[str, ...]:
    """The part after the layer's number in the names of tensors, over all layers."""
    names = {
        name: f"{structure.layer_prefix}{structure.layer_of(name)}."
        for name in structure.shapes
        if structure.layer_of(name) is not None
    }
    return tuple(dict.fromkeys(name.removeprefix(prefix) for name, prefix in names.items()))


def _curve(
    recipe: Recipe, parameter: str, model: str | None, suffix: str, structure: Structure
) -> Curve:
    layers = range(structure.depth)
    last = structure.depth - 1
    values = (
        recipe.setting_of(
            parameter,
            model=model,
            tensor_name=f"{structure.layer_prefix}{layer}.{suffix}",
            depth=layer / last if last else 1.0,
        )
        for layer in layers
    )
    return Curve(model=model, values=tuple(map(_number, values)))


def _outer(
    recipe: Recipe, parameter: str, models: Sequence[str | None], structure: Structure
) -> list[Outer]:
    """Tensors outside the layers, together where all their values are the same."""
    groups: dict[tuple[float | None, ...], list[str]] = {}
    for name in structure.outer:
        settings = (
            recipe.setting_of(parameter, model=model, tensor_name=name, depth=0.0)
            for model in models
        )
        values = tuple(map(_number, settings))
        if any(value is not None for value in values):
            groups.setdefault(values, []).append(name)
    return [
        Outer(parameter=parameter, tensors=tuple(names), models=tuple(models), values=values)
        for values, names in groups.items()
    ]


def _words(
    recipe: Recipe, parameter: str, model: str | None, structure: Structure
) -> Iterable[str]:
    """Values that are not numbers: switches and names."""
    for name in structure.shapes:
        value = recipe.setting_of(parameter, model=model, tensor_name=name, depth=0.0)
        if isinstance(value, (bool, str)):
            yield str(value).lower() if isinstance(value, bool) else value
            return


def _number(value: bool | float | str | None) -> float | None:
    return None if isinstance(value, (bool, str)) or value is None else float(value)


def _component(members: Sequence[str], every: Sequence[str]) -> str:
    """A name for these parts of a layer: whole components by name, others one by one."""
    if len(members) == len(every):
        return "all parts of a layer"
    whole = dict.fromkeys(map(_class_of, members))
    if len(members) == sum(_class_of(suffix) in whole for suffix in every):
        return " and ".join(whole)
    names = [suffix.removesuffix(".weight") for suffix in members]
    more = len(names) - _NAMES_SHOWN
    shown = names if more <= 0 else [*names[:_NAMES_SHOWN], f"{more} more"]
    return ", ".join(shown)


def _rank(component: str) -> int:
    """Attention and MLP before the small parts, as people think of a layer."""
    return 0 if "attention" in component else 1 if "MLP" in component else 2


def _class_of(suffix: str) -> str:
    module = suffix.partition(".")[0]
    if any(word in module for word in _NORMS):
        return "norms"
    return _COMPONENTS.get(component_of(module), module)


_MARKS = (
    ("circle", "●"),
    ("square", "■"),
    ("diamond", "◆"),
    ("triangle-up", "▲"),
    ("triangle-down", "▼"),
    ("cross", "✚"),
    ("x", "✖"),
    ("star", "★"),
)
"""A mark for each colour of the page (--c1 to --c8): plotly's name for it, and its glyph."""

_HEIGHT = 230  # CSS pixels
_MOST_MARKED = 64
"""Layers; with more of them the marks would touch."""


@dataclass(frozen=True, kw_only=True)
class ModelMark:
    """A model's name and mark; `reference` is empty for values of the whole merge."""

    name: str
    reference: str
    colour: str
    glyph: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A parameter that does not vary over depth; values in the order of the marks."""

    parameter: str
    where: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class CoefficientView:
    """A recipe's numbers for the page; `fixed` applies to the whole merge."""

    method: str
    fixed: tuple[tuple[str, str], ...]
    marks: tuple[ModelMark, ...]
    figures: tuple[Figure, ...]
    rows: tuple[Row, ...]


def show_coefficients(recipe: Recipe, structure: Structure, job: ModelsSpec) -> CoefficientView:
    """A figure for each parameter and component that varies over depth, rows for the rest."""
    found = coefficients_of(recipe, structure)
    models = _models(recipe, found)
    by_parameter: dict[str, list[Panel]] = defaultdict(list)
    for panel in found.panels:
        by_parameter[panel.parameter].append(panel)
    figures: list[Figure] = []
    rows: list[Row] = []
    for panels in by_parameter.values():
        if any(curve.varies for panel in panels for curve in panel.curves):
            figures += [coefficient_figure(panel, models, panels) for panel in panels]
        else:
            rows += [_flat_row(panel, models) for panel in panels]
    rows += [_outer_row(outer, models) for outer in found.outer]
    names: dict[str | None, str] = {
        None: "the whole merge",
        job.base: BASE,
        **dict(zip(job.sources, parent_labels(job.sources), strict=True)),
    }
    marks = tuple(
        ModelMark(
            name=names.get(model) or str(model),
            reference=model or "",
            colour=_colour(place),
            glyph=_MARKS[place % len(_MARKS)][1],
        )
        for place, model in enumerate(models)
    )
    return CoefficientView(
        method=recipe.merge_method,
        fixed=found.fixed,
        marks=marks,
        figures=tuple(figures),
        rows=tuple(rows),
    )


def coefficient_figure(
    panel: Panel, models: Sequence[str | None], peers: Sequence[Panel]
) -> Figure:
    """One parameter over depth, a line for each model.

    models: all models of the recipe in the order of their colours. peers: the panels of the same
    parameter; they share the axis of values.
    """
    depth = len(panel.curves[0].values)
    traces = [
        go.Scatter(
            x=list(range(depth)),
            y=list(curve.values),
            mode="lines+markers" if depth <= _MOST_MARKED else "lines",
            line={"width": 2, "color": _colour(models.index(curve.model))},
            marker={"size": 6, "symbol": _MARKS[models.index(curve.model) % len(_MARKS)][0]},
            hovertemplate="layer %{x}: %{y:.3f}<extra></extra>",
        )
        for curve in panel.curves
    ]
    values = [v for peer in peers for curve in peer.curves for v in curve.values if v is not None]
    layout = layout_of(_HEIGHT, margin={"l": 52, "r": 12, "t": 8, "b": 46})
    layout["xaxis"] |= titled("layer") | {
        "range": [-0.5, depth - 0.5],
        "nticks": 8,
        "tickformat": "d",
    }
    layout["yaxis"] |= titled(panel.parameter) | {
        "range": list(spread_of(values)),
        "nticks": 6,
    }
    return Figure(
        title=f"{panel.parameter}: {panel.component}",
        description=f"{panel.parameter} of {panel.component} over {depth} layers",
        height=_HEIGHT,
        spec=spec_of(traces, layout),
    )


def _models(recipe: Recipe, found: Coefficients) -> list[str | None]:
    """Models that have numbers of their own, in the order of the recipe; None for the recipe."""
    having: set[str | None] = {c.model for panel in found.panels for c in panel.curves}
    having |= {model for outer in found.outer for model in outer.models}
    ordered: list[str | None] = [entry.model for entry in recipe.models]
    return [model for model in [*ordered, None] if model in having]


def _colour(place: int) -> str:
    return f"var(--c{place % len(_MARKS) + 1})"


def _flat_row(panel: Panel, models: Sequence[str | None]) -> Row:
    values = {curve.model: curve.values[0] for curve in panel.curves}
    return Row(
        parameter=panel.parameter,
        where=f"every layer: {panel.component}",
        values=tuple(values.get(model) for model in models),
    )


def _outer_row(outer: Outer, models: Sequence[str | None]) -> Row:
    values = dict(zip(outer.models, outer.values, strict=True))
    return Row(
        parameter=outer.parameter,
        where=", ".join(outer.tensors),
        values=tuple(values.get(model) for model in models),
    )
