"""A parameter space laid out over its models: the role of each model, and all genes.

It checks what the YAML form alone cannot show: the number of models and the structure's layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evomerge.errors import JobError
from evomerge.recipe import DType, Recipe, Setting
from evomerge.sources import Structure
from evomerge.space.base import Gene, short_names
from evomerge.space.parameters.components import Components, absent
from evomerge.space.parameters.methods import MethodRule, rule_of
from evomerge.space.parameters.specification import Searched, SpaceSpec, profile_of
from evomerge.space.parameters.tracks import ParameterTracks, lay_tracks


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Models, genes and tracks of a space.

    models: the recipe's models, in its order. base_model: the recipe's base, where it has one.
    base: the job's base, whether or not the recipe uses it. statistics: the folder with the
    statistics of all models, where the method needs them. stages: named merges that the recipes use
    as models. where: the place of the space, for messages.
    """

    spec: SpaceSpec
    base: str
    base_model: str | None
    models: tuple[str, ...]
    components: Components
    tracks: tuple[ParameterTracks, ...]
    genes: tuple[Gene, ...]
    out_dtype: DType
    seed: int
    statistics: str | None = None
    stages: Mapping[str, Recipe]
    where: str

    @property
    def rule(self) -> MethodRule:
        """The rules of the space's merge method."""
        return rule_of(self.spec.method)

    def settings(self, values: Sequence[float]) -> dict[tuple[str, str | None], Setting]:
        """(parameter, model, or None where shared) -> its setting in a recipe.

        values: (n,) of the genes, in their parameters' units.
        """
        return {
            (tracks.parameter, tracks.source): tracks.setting(values, self.components)
            for tracks in self.tracks
        }


def lay_out(
    spec: SpaceSpec,
    *,
    base: str,
    sources: Sequence[str],
    structure: Structure,
    out_dtype: DType,
    seed: int,
    stages: Mapping[str, Recipe],
    where: str,
    statistics: str | None = None,
) -> Layout:
    """Lay a space out over its models. Raises JobError when it does not fit them."""
    rule = rule_of(spec.method)
    if rule.calibrated and statistics is None:
        raise JobError(
            f"models.statistics: missing; {spec.method} needs the folder that "
            "`evomerge calibrate` writes"
        )
    base_model, models = _roles(spec, base, sources, where)
    components = Components(structure)
    names = short_names([base, *sources])
    tracks: list[ParameterTracks] = []
    genes: list[Gene] = []
    for parameter, searched in spec.parameters.items():
        if not isinstance(searched, Searched):
            continue
        shared = searched.per == "all" or rule.parameters[parameter].scope == "recipe"
        place = f"{where}.parameters.{parameter}"
        layers_at = where if searched.layers == spec.layers else place
        profile = profile_of(searched.layers, structure.depth, where=f"{layers_at}.layers")
        missing = absent(components, searched.parts)
        if missing is not None:
            raise JobError(
                f"{place}.components: {missing}: no tensor of {structure.architecture} is known "
                "as that; write components: all"
            )
        new_tracks, new_genes = lay_tracks(
            parameter,
            searched,
            profile,
            [None] if shared else list(models),
            components,
            names,
            first=len(genes),
        )
        tracks += new_tracks
        genes += new_genes
    assert len({gene.name for gene in genes}) == len(genes), "two genes of one name"
    return Layout(
        spec=spec,
        base=base,
        base_model=base_model,
        models=models,
        components=components,
        tracks=tuple(tracks),
        genes=tuple(genes),
        out_dtype=out_dtype,
        seed=seed,
        statistics=statistics if rule.calibrated else None,
        stages=stages,
        where=where,
    )


def _roles(
    spec: SpaceSpec, base: str, sources: Sequence[str], where: str
) -> tuple[str | None, tuple[str, ...]]:
    """(base_model, models) of every recipe of the space."""
    rule = rule_of(spec.method)
    if rule.family == "two_models":
        if len(sources) > 2:
            raise JobError(
                f"{where}.method: {spec.method} merges two models, the job has "
                f"{len(sources)} sources; name two, or use another method"
            )
        first, second = sources if len(sources) == 2 else (base, sources[0])
        return first, (first, second)
    weighed = spec.include_base and rule.base == "weighed"
    subtracted = spec.include_base and rule.base == "subtracted"
    models = (base, *sources) if weighed else tuple(sources)
    _check_number(spec, rule, len(models), where)
    if rule.family == "task_vector":
        return base, models
    weight = spec.parameters.get("weight")
    start = weight.start if isinstance(weight, Searched) else weight
    if start == 0.0:
        raise JobError(
            f"{where}.parameters.weight.start: all weights start at 0, which is no average; "
            "start above 0"
        )
    return (base if subtracted else None), models


def _check_number(spec: SpaceSpec, rule: MethodRule, count: int, where: str) -> None:
    """Raise JobError unless the method takes this number of models; an average needs two."""
    if rule.family == "average" and rule.most != 1 and count < 2:
        mend = "add include_base: true" if rule.base == "weighed" else "name two sources"
        raise JobError(f"{where}.method: {spec.method} over one source is that source; {mend}")
    if count < rule.least or (rule.most is not None and count > rule.most):
        wanted = f"{rule.least} or more" if rule.most is None else f"{rule.most}"
        raise JobError(
            f"{where}.method: {spec.method} takes {wanted} sources, the job has {count}; "
            "use another method"
        )
