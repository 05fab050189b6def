"""XᵀX of the inputs of every linear layer of a causal language model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers.pytorch_utils import Conv1D

from evomerge.calibrate.live_source import LiveSource
from evomerge.calibrate.totals import Totals
from evomerge.devices import upload
from evomerge.errors import InputError

Seen = Callable[[str, torch.Tensor], None]
"""(tensor name, its inputs (..., in)) -> None"""


@dataclass(frozen=True, kw_only=True)
class LinearLayers:
    """The linear layers of a model, by the checkpoint's names of their weights.

    sizes: weight -> its number of inputs. shared: weight -> another one that gets the very same
    inputs (queries, keys and values); such a weight is not in `sizes`. transposed: weights that are
    stored (in, out), as GPT-2's are.
    """

    modules: Mapping[str, nn.Module]
    sizes: Mapping[str, int]
    shared: Mapping[str, str]
    transposed: frozenset[str]


def find_linear_layers(live: LiveSource, sequence: NDArray[np.int64]) -> LinearLayers:
    """The linear layers of a model, and which of them share their inputs.

    sequence: (tokens,); it is read to see which inputs are the same. Embeddings that are also the
    head are left out, and so are weights that a model holds fused: a fused stack of experts is no
    linear layer to the model.
    """
    modules = _linear_modules(live)
    shared: dict[str, str] = {}
    last: tuple[str, torch.Tensor] | None = None

    def see(name: str, inputs: torch.Tensor) -> None:
        nonlocal last
        if last is not None and last[1] is inputs:
            shared[name] = last[0]
        else:
            last = name, inputs

    with _watching(modules, see):
        _read(live, sequence[None])
    transposed = {name for name, module in modules.items() if isinstance(module, Conv1D)}
    shapes = {part.name: part.shape for parts in live.parts.values() for part in parts}
    sizes = {
        name: shapes[name][0 if name in transposed else 1] for name in modules if name not in shared
    }
    return LinearLayers(
        modules=modules, sizes=sizes, shared=shared, transposed=frozenset(transposed)
    )


def _linear_modules(live: LiveSource) -> dict[str, nn.Module]:
    parameters = {id(parameter): name for name, parameter in live.model.named_parameters()}
    looked_up = {
        id(module.weight) for module in live.model.modules() if isinstance(module, nn.Embedding)
    }
    modules: dict[str, nn.Module] = {}
    for module in live.model.modules():
        if not isinstance(module, (nn.Linear, Conv1D)) or id(module.weight) in looked_up:
            continue
        parts = live.parts.get(parameters.get(id(module.weight), ""), ())
        if len(parts) == 1 and parts[0].shape == tuple(module.weight.shape):
            modules[parts[0].name] = module
    return modules


def add_inputs(
    live: LiveSource,
    layers: LinearLayers,
    sequences: NDArray[np.int64],
    into: Mapping[str, torch.Tensor],
    advance: Callable[[int], None],
    *,
    batch: int,
) -> None:
    """Add XᵀX / (tokens of the text) of each of `layers.sizes` to `into`, zeros (in, in).

    sequences: (sequences, tokens) token ids, read `batch` at a time. X holds a row for every token
    that reaches the layer; a layer that no token reaches gets zeros. Products and sums are float32.
    advance: called with how many more sequences are done.

    Memory beside the model: the activations of one batch, one XᵀX, and `into`, which may be pages
    of a file. On a GPU, sums for which it has room stay there meanwhile. Raises InputError if they
    are not finite.
    """

    totals = Totals(into, live.model.device)

    def see(name: str, inputs: torch.Tensor) -> None:
        if name in into:
            rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
            total = totals.of(name)
            if rows.device == total.device:
                total.addmm_(rows.T, rows)
            else:
                totals.add(name, rows.T @ rows)

    with _watching(layers.modules, see):
        for start in range(0, len(sequences), batch):
            part = sequences[start : start + batch]
            _read(live, part)
            advance(len(part))
    totals.finish()
    for total in into.values():
        total.div_(sequences.size)
        if not bool(torch.isfinite(total.diagonal()).all()):
            raise InputError(
                f"{live.source.reference}: its layers' inputs on the text are not finite; try "
                "--dtype float32, or mend the model"
            )


def _read(live: LiveSource, sequences: NDArray[np.int64]) -> None:
    with torch.inference_mode():
        live.model(input_ids=upload(sequences, live.model.device), use_cache=False)


@contextlib.contextmanager
def _watching(modules: Mapping[str, nn.Module], see: Seen) -> Iterator[None]:
    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda module, arguments: see(name, arguments[0])

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
