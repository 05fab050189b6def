"""Memory of a worker on a device, disk of a search, and bytes that a candidate moves.

All of it comes from the headers of the models' files and from the job.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.check.memory import BYTES, parameters_of, weight_files
from evomerge.sources import ITEM_BYTES, Source, setting
from evomerge.space import DataFlowSpace
from evomerge.workers import PreparedJob

CONTEXT_BYTES = 10**9
"""What a process takes of a GPU before it holds anything; an assumption."""

PROCESS_BYTES = 2 * 10**9
"""What a worker takes of the machine's memory beside models, for Python, torch and tasks; an
assumption."""

RESIDENT_SHARE = 0.4
"""Of a GPU's memory that is free beside the live model, tensors of the sources may take so much."""

_RECORD_ITEM_BYTES = 16
"""Bytes on disk of one item's result, measured on the demo's record, rounded up."""

_ACTIVATIONS = 24
"""Values a token and hidden unit that a pass holds at once, generously."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes of a job on any device.

    parameters: of one merge. active_parameters: those that a token passes in the layers; fewer
    where a model has experts. head_parameters: of the head. layers: of the merge. tensors: of it.
    live_bytes: models that a worker holds: one merge, or all models for routes. merge_bytes: the
    largest tensor of all models at once, in float32. texts_bytes: states and logits of the longest
    text alone. state_bytes: keys and values of one token. prefix_bytes: of states that routes
    share. sources_bytes: what a merge reads. written_bytes: what it writes. files_bytes,
    statistics_bytes: on disk now. cache_bytes: most bytes of results kept beside the run.
    export_bytes: the winner as a checkpoint. routes: whether the search is over routes.
    dtype: of the merge.
    """

    parameters: int
    active_parameters: int
    head_parameters: int
    layers: int
    tensors: int
    hidden: int
    live_bytes: int
    merge_bytes: int
    texts_bytes: int
    state_bytes: int
    prefix_bytes: int
    sources_bytes: int
    written_bytes: int
    files_bytes: int
    statistics_bytes: int
    cache_bytes: int
    export_bytes: int
    routes: bool
    dtype: str

    @property
    def device_bytes(self) -> int:
        """The least that a worker needs on a GPU."""
        return (
            self.live_bytes
            + self.merge_bytes
            + self.texts_bytes
            + self.prefix_bytes
            + CONTEXT_BYTES
        )

    @property
    def host_bytes(self) -> int:
        """The least that a worker needs of the machine's memory if the model is on a GPU."""
        return PROCESS_BYTES + self.merge_bytes

    def resident_bytes(self, memory_bytes: float) -> int:
        """Bytes of the sources that stay on a GPU with so much memory for one worker."""
        free = memory_bytes - self.live_bytes - CONTEXT_BYTES
        return 0 if self.routes else max(0, min(self.sources_bytes, int(RESIDENT_SHARE * free)))

    def record_bytes(self, items: int) -> int:
        """Bytes of the record of a search that scores so many items."""
        return 4 * 10**6 + items * _RECORD_ITEM_BYTES


def footprint_of(preparation: PreparedJob) -> Footprint:
    """The footprint of a prepared job; only headers have been read."""
    sources = list(preparation.sources.values())
    lead, dtype = preparation.lead, preparation.out_dtype
    size = BYTES[dtype]
    searches_routes = isinstance(preparation.space, DataFlowSpace)
    routes = searches_routes or any(_is_routes(s.search_space) for s in preparation.job.searches)
    one = parameters_of(lead) * size
    shapes = preparation.structure.shapes
    largest = max(map(math.prod, shapes.values()), default=0)
    hidden = _number(lead.config, "hidden_size", 1)
    heads = _number(lead.config, "num_attention_heads", 1)
    pairs = _number(lead.config, "num_key_value_heads", heads)
    width = _number(lead.config, "head_dim", hidden // max(1, heads))
    state = 2 * lead.structure.depth * pairs * width * size
    vocabulary = _number(lead.config, "vocab_size", 1)
    longest = preparation.longest_tokens
    stored = sum(_stored_bytes(source) for source in sources)
    compute = preparation.job.compute
    return Footprint(
        parameters=parameters_of(lead),
        active_parameters=_active(lead),
        head_parameters=vocabulary * hidden,
        layers=lead.structure.depth,
        tensors=len(shapes),
        hidden=hidden,
        live_bytes=max(one, sum(parameters_of(s) * size for s in sources)) if routes else one,
        merge_bytes=largest * 4 * (len(sources) + 1),
        texts_bytes=longest * (state + _ACTIVATIONS * hidden * size) + 4 * vocabulary * 64,
        state_bytes=state,
        prefix_bytes=int(compute.prefix_gb * 10**9) if routes else 0,
        sources_bytes=0 if searches_routes else stored,
        written_bytes=0 if searches_routes else one,
        files_bytes=weight_files(sources),
        statistics_bytes=_folder_bytes(preparation.job.models.statistics),
        cache_bytes=int(compute.cache_gb * 10**9),
        export_bytes=one,
        routes=routes,
        dtype=dtype,
    )


def _is_routes(space: object) -> bool:
    return isinstance(space, Mapping) and "routes" in space


def _active(source: Source) -> int:
    """Parameters of the layers that one token passes."""
    structure = source.structure
    left_out = structure.repeated | structure.ignored
    experts = _number(source.config, "num_experts", 0) or _number(
        source.config, "num_local_experts", _number(source.config, "n_routed_experts", 0)
    )
    share = _number(source.config, "num_experts_per_tok", experts) / experts if experts else 1.0
    total = 0.0
    for name, shape in structure.shapes.items():
        if name in left_out or structure.stack_of(name) is not structure.stacks[0]:
            continue
        total += math.prod(shape) * (share if ".experts." in name else 1.0)
    return round(total)


def _number(config: Mapping[str, Any], key: str, otherwise: int) -> int:
    value = setting(config, key)
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _stored_bytes(source: Source) -> int:
    structure = source.structure
    return sum(
        math.prod(shape) * ITEM_BYTES.get(structure.dtypes[name], 4)
        for name, shape in structure.shapes.items()
        if name not in structure.ignored
    )


def _folder_bytes(folder: str | None) -> int:
    return 0 if folder is None else _sum_of(Path(os.path.expanduser(folder)).glob("*.safetensors"))


def _sum_of(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)
