"""A merge as one PEFT LoRA adapter on disk: its factors, its configuration, its facts.

All modules get one rank r and lora_alpha = r, and the sources' scales and weights are multiplied
into the factors. So every reader scales them by 1, also one that knows no rank_pattern, no
alpha_pattern and no rsLoRA; modules of a lower rank are filled up with zeros. Tensors are float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evomerge.deferred import torch
from evomerge.errors import MergeError, RecipeError
from evomerge.export.adapter_facts import AdapterFacts
from evomerge.export.adapter_plan import AdapterPlan, Row, not_held
from evomerge.export.folder import write_json
from evomerge.export.low_rank import LowRank, cut, join, nearest
from evomerge.export.peft_modules import Place
from evomerge.export.shards import Weights, write_file
from evomerge.merge import TensorPlan, check_finite
from evomerge.sources import ADAPTER_CONFIG, not_finite

WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FACTORS = {
    "linear": ("lora_A.weight", "lora_B.weight"),
    "embedding": ("lora_embedding_A", "lora_embedding_B"),
}

_LAST_BITS = 4
"""Float32 roundings of a value within which it counts as unchanged."""

_TASKS = {
    "AutoModelForCausalLM.from_pretrained": "CAUSAL_LM",
    "AutoModelForSeq2SeqLM.from_pretrained": "SEQ_2_SEQ_LM",
}
"""What loads a model -> PEFT's task; for other tasks PEFT would add heads of its own."""


@dataclass(kw_only=True)
class _Changes:
    """What an adapter holds. low: module -> place, factors. whole: parameter -> tensor."""

    low: dict[str, tuple[Place, LowRank]] = field(default_factory=dict)
    whole: dict[str, tuple[Place, torch.Tensor]] = field(default_factory=dict)


def write_adapter(plan: AdapterPlan, folder: Path, *, base: str, loader: str) -> Weights:
    """Write the adapter into an existing folder.

    base: public name of the base. loader: the call that loads the base. Raises RecipeError where
    nothing changes or a change does not fit, MergeError for a tensor that is not finite.
    """
    changes = _changes(plan)
    if not changes.low and not changes.whole:
        raise RecipeError(
            f"--as-adapter: nothing of {plan.base.reference} changes, so an adapter would be "
            "empty; use that model"
        )
    if not changes.low:
        _add_zeros(plan, changes)
    rank = max(1, *(factors.rank for _, factors in changes.low.values()))
    tensors: dict[str, torch.Tensor] = {}
    for module, (place, factors) in changes.low.items():
        assert place.kind is not None
        first, second = (
            (factors.left.T, factors.right.T) if place.transposed else (factors.right, factors.left)
        )
        down, up = _FACTORS[place.kind]
        tensors[f"{_PREFIX}{module}.{down}"] = _filled(first, rank, dim=0)
        tensors[f"{_PREFIX}{module}.{up}"] = _filled(second, rank, dim=1)
    saved, biases = _whole(plan, changes, tensors)
    weights = write_file(folder, WEIGHTS, tensors)
    write_json(folder, ADAPTER_CONFIG, _config(plan, changes, rank, saved, biases, loader))
    return replace(weights, adapter=_facts(plan, changes, rank, (*saved, *biases), base))


def _filled(factor: torch.Tensor, rank: int, *, dim: int) -> torch.Tensor:
    """A factor with rows or columns of zeros up to the rank."""
    shape = list(factor.shape)
    shape[dim] = rank
    filled = torch.zeros(shape)
    filled.narrow(dim, 0, factor.shape[dim]).copy_(factor)
    return filled


def _changes(plan: AdapterPlan) -> _Changes:
    changes = _Changes()
    for row in plan.rows:
        if row.terms == ():
            continue
        if row.factored and row.place.low_rank:
            assert row.terms is not None
            parts = [
                (count * change.scale, change.left, change.right)
                for count, change in row.terms
                if change.left is not None and change.right is not None
            ]
            joined = join(parts, row.tensor.shape)
            _check_size(plan, row, joined)
            joined = joined if plan.rank is None else cut(joined, plan.rank)
            changes.low[row.place.module] = row.place, joined
        else:
            _add_merged(plan, row, changes)
    return changes


def _check_size(plan: AdapterPlan, row: Row, joined: LowRank) -> None:
    """Raise MergeError for factors whose numbers, or whose product's, are too large for float32."""
    if joined.wanted <= torch.finfo(torch.float32).max:
        return
    _merged(plan, row.tensor)  # the message says which model or weight it comes from
    if not_finite(joined.left) or not_finite(joined.left @ joined.right):
        raise MergeError(
            f"{row.stored}: the change is too large for LoRA factors in float32; use other merge "
            "weights"
        )


def _add_zeros(plan: AdapterPlan, changes: _Changes) -> None:
    """Add factors of rank 0 for one linear layer, because PEFT loads no adapter without any."""
    whole = {place.module for place, _ in changes.whole.values()}
    row = next(
        (row for row in plan.rows if row.place.kind == "linear" and row.place.module not in whole),
        None,
    )
    if row is None:
        raise RecipeError(
            f"--as-adapter: {plan.base.reference} has no linear layer for LoRA factors; export a "
            "checkpoint, without --as-adapter"
        )
    changes.low[row.place.module] = row.place, join([], row.tensor.shape)


def _add_merged(plan: AdapterPlan, row: Row, changes: _Changes) -> None:
    """Add what a merged tensor changes: its nearest factors, or the whole."""
    merged = _merged(plan, row.tensor)
    stored = plan.base.tensor(row.stored).to(merged.dtype)
    if _equal(merged, stored):
        return
    if row.place.kind is None or not merged.is_floating_point():
        raise RecipeError(not_held(row.stored, row.place))
    if row.place.low_rank and row.terms is None:
        assert plan.rank is not None, "without a rank every row has terms"
        factors = nearest(merged - stored, plan.rank)
        changes.low[row.place.module] = row.place, factors
    else:
        changes.whole[row.place.parameter] = row.place, merged


def _equal(merged: torch.Tensor, stored: torch.Tensor) -> bool:
    """Whether nothing changed but the last bits: averages of equal numbers may round."""
    if not merged.is_floating_point():
        return torch.equal(merged, stored)
    bound = stored.abs().mul_(_LAST_BITS * torch.finfo(torch.float32).eps)
    return bool(((merged - stored).abs() <= bound).all())


def _merged(plan: AdapterPlan, tensor: TensorPlan) -> torch.Tensor:
    """A merged tensor in float32; one that is not floating point as it is."""
    recipe = plan.recipe.model_copy(update={"out_dtype": "float32"})
    merged = plan.engine.merge_tensor(recipe, tensor)
    if merged.is_floating_point():
        check_finite(tensor.name, merged, plan.merge, plan.sources)
    return merged


def _whole(
    plan: AdapterPlan, changes: _Changes, tensors: dict[str, torch.Tensor]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Add tensors that are stored whole. Returns the modules to save, and the single biases."""
    stored = {row.place.parameter: row.stored for row in plan.rows}
    saved = plan.modules.named_alike(
        place.module
        for place, _ in changes.whole.values()
        if place.kind != "bias" and place.module not in changes.low
    )
    biases = []
    for module in saved:
        for name in plan.modules.tensors_of(module):
            parameter = f"{module}.{name}"
            if parameter in changes.whole:
                place, tensor = changes.whole[parameter]
                for other in place.shared:
                    tensors[f"{_PREFIX}{other}.{name}"] = tensor
            else:
                tensor = plan.base.tensor(stored[parameter]).float()
            tensors[f"{_PREFIX}{parameter}"] = tensor.contiguous()
    for parameter, (place, tensor) in changes.whole.items():
        if place.module in saved:
            continue
        # PEFT keeps the bias of a module with factors in the layer that it wraps.
        layer = ".base_layer" if place.module in changes.low else ""
        leaf = parameter.rpartition(".")[2]
        tensors[f"{_PREFIX}{place.module}{layer}.{leaf}"] = tensor.contiguous()
        biases.append(parameter)
    return tuple(saved), tuple(biases)


def _config(
    plan: AdapterPlan,
    changes: _Changes,
    rank: int,
    saved: tuple[str, ...],
    biases: tuple[str, ...],
    loader: str,
) -> Mapping[str, Any]:
    """The configuration in PEFT's own keys."""
    shared = [name for place, _ in changes.whole.values() for name in place.shared]
    reference = plan.base.reference
    return {
        "peft_type": "LORA",
        "task_type": _TASKS.get(loader),
        "base_model_name_or_path": (
            reference.partition("@")[0] if plan.base.revision else reference
        ),
        "revision": plan.base.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "target_modules": plan.modules.shortest(changes.low),
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_rslora": False,
        "use_dora": False,
        "bias": "all" if biases else "none",
        "modules_to_save": [*saved, *shared] or None,
        **({"ensure_weight_tying": True} if shared else {}),
        "fan_in_fan_out": any(
            place.kind == "linear" and place.transposed for place, _ in changes.low.values()
        ),
        "init_lora_weights": True,
    }


def _facts(
    plan: AdapterPlan, changes: _Changes, rank: int, whole: tuple[str, ...], base: str
) -> AdapterFacts:
    found = {module: factors for module, (_, factors) in changes.low.items()}
    exact = all(row.terms is not None for row in plan.rows) and not any(
        factors.missed for factors in found.values()
    )
    wanted = math.hypot(*(factors.wanted for factors in found.values()))
    missed = math.hypot(*(factors.missed for factors in found.values()))
    return AdapterFacts(
        base=base,
        rank=rank,
        modules=len(found),
        whole=whole,
        exact=exact,
        error=missed / wanted if wanted else 0.0,
        errors={} if exact else {module: factors.error for module, factors in found.items()},
        wanted_rank=plan.rank,
    )
