"""The genes of one parameter: which tensors of which model take their value from which gene.

A track is a series of genes over depth, for one parameter, one model (or all) and one component. It
turns values into the setting that a recipe has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.recipe import Gradient, Setting
from evomerge.space.base import Component, Gene
from evomerge.space.parameters.components import Components
from evomerge.space.parameters.specification import Profile, Searched


@dataclass(frozen=True, kw_only=True)
class Track:
    """A series of genes over depth.

    kept: which values of the profile have a gene. The others affect no tensor (a layer without
        attention), so a recipe has `start` for them.
    first: index of the first gene in the genome.
    """

    component: Component
    profile: Profile
    kept: tuple[int, ...]
    first: int
    start: float

    def setting(self, values: Sequence[float]) -> float | Gradient:
        """The track's part of a recipe. values: of the whole genome."""
        all_values = [self.start] * self.profile.count
        for offset, index in enumerate(self.kept):
            all_values[index] = values[self.first + offset]
        return self.profile.setting(tuple(all_values))


@dataclass(frozen=True, kw_only=True)
class ParameterTracks:
    """All tracks of one parameter of one model. source: None when all models share them."""

    parameter: str
    source: str | None
    searched: Searched
    tracks: tuple[Track, ...]

    @property
    def count(self) -> int:
        """Number of genes."""
        return sum(len(track.kept) for track in self.tracks)

    def setting(self, values: Sequence[float], components: Components) -> Setting:
        """The recipe's setting of this parameter. values: (n,), in the parameters' units."""
        parts = {track.component: track.setting(values) for track in self.tracks}
        # A component without genes is not listed, or it has no tensor and any value will do.
        default = self.searched.start
        elsewhere = self.searched.elsewhere if self.searched.elsewhere is not None else default
        layers = parts.get("all", parts.get("rest", elsewhere))
        outer = parts.get("outer", layers)
        return components.setting(
            attention=None if "all" in parts else parts.get("attention", elsewhere),
            mlp=None if "all" in parts else parts.get("mlp", elsewhere),
            layers=layers,
            outer=outer if isinstance(outer, float) else default,
        )

    def intended(self, components: Components) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The value that each tensor must get, as (matrix, constant).

        matrix: (tensors, genes of this parameter and model). constant: (tensors,). The values of
        the tensors, in the structure's order, are matrix @ values + constant.
        """
        places: dict[Component, tuple[slice, NDArray[np.float64]]] = {}
        before = 0
        for track in self.tracks:
            columns = slice(before, before + len(track.kept))
            places[track.component] = columns, track.profile.basis()[:, list(track.kept)]
            before = columns.stop
        matrix = np.zeros((len(components.of), self.count))
        constant = np.zeros(len(components.of))
        for row, (name, component) in enumerate(components.of.items()):
            own = "rest" if component == "outer" and component not in places else component
            place = places.get(own, places.get("all"))
            if place is None:
                assert self.searched.elsewhere is not None
                constant[row] = self.searched.elsewhere
                continue
            columns, basis = place
            matrix[row, columns] = basis[components.structure.layer_of(name) or 0]
        return matrix, constant


def lay_tracks(
    parameter: str,
    searched: Searched,
    profile: Profile,
    sources: Sequence[str | None],
    components: Components,
    names: Mapping[str, str],
    first: int,
) -> tuple[list[ParameterTracks], list[Gene]]:
    """Make the tracks and genes of one parameter; `first` is the number of the first gene.

    profile: of its layers. sources: the models that have genes of their own, [None] when all share
    them.
    """
    laid: list[ParameterTracks] = []
    genes: list[Gene] = []
    for source in sources:
        tracks: list[Track] = []
        for component in _components_of(searched):
            track = _track(component, searched, profile, components, first + len(genes))
            if track.kept:
                tracks.append(track)
                genes += _genes(parameter, source, track, searched, names)
        laid.append(
            ParameterTracks(
                parameter=parameter, source=source, searched=searched, tracks=tuple(tracks)
            )
        )
    return laid, genes


def _components_of(searched: Searched) -> tuple[Component, ...]:
    """Components with tracks of their own.

    Tensors outside the layers join `all` or `rest`, unless values differ between layers.
    """
    own = searched.parts
    joined = searched.layers == "all" or ("all" not in own and "rest" not in own)
    return own if joined else (*own, "outer")


def _track(
    component: Component, searched: Searched, profile: Profile, components: Components, first: int
) -> Track:
    if component == "outer":
        has_tensors = "outer" in components.of.values()
        return Track(
            component=component,
            profile=Profile(kind="all", depth=profile.depth),
            kept=(0,) if has_tensors else (),
            first=first,
            start=searched.start,
        )
    reached = np.abs(profile.basis()[list(components.layers(component))]).sum(axis=0)
    if profile.kind == "all":
        reached = np.ones(1)  # all tensors of the rest may be outside the layers
    kept = tuple(int(index) for index in np.flatnonzero(reached))
    return Track(component=component, profile=profile, kept=kept, first=first, start=searched.start)


def _genes(
    parameter: str,
    source: str | None,
    track: Track,
    searched: Searched,
    names: Mapping[str, str],
) -> list[Gene]:
    labels, spans = track.profile.labels, track.profile.spans
    component = "" if track.component == "all" else track.component
    genes: list[Gene] = []
    for index in track.kept:
        parts = [parameter, names[source] if source else "", component, labels[index]]
        genes.append(
            Gene(
                name=".".join(part for part in parts if part),
                low=searched.low,
                high=searched.high,
                scale=searched.scale,
                start=searched.start,
                parameter=parameter,
                source=source,
                component=track.component,
                layers=None if track.component == "outer" else spans[index],
            )
        )
    return genes
