#!/usr/bin/env python3
"""What a candidate asks of a GPU, counted without one: a rehearsal.

Tiny models go the whole way over a device that computes on the CPU and counts: copies, times that
the host waits, kernels, memory. Then models of real size, of which only shapes exist: the most
bytes that a merge of three sources holds on the device, of two and of three layers, continued in
a line to all layers. Times are not measured.

    python benchmarks/device_rehearsal.py             counts and bytes
    python benchmarks/device_rehearsal.py --counts    counts alone
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from machine import machine

sys.path.insert(0, str(Path(__file__).parent.parent))

from evomerge.evaluate.engines import live_model
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.merge.engine import MergeEngine
from evomerge.merge.methods.registry import METHODS
from evomerge.merge.tensor_cache import TensorCache
from evomerge.sources import Stack, Structure
from tests.checkpoints import word_tokenizer
from tests.devices.rehearsal import Rehearsal
from tests.devices.scenes import (
    calibrated,
    changed,
    choices,
    engine_of,
    make_family,
    merge_by,
    merged_tensors,
    routed_engine,
    routes,
    scoring,
)
from tests.devices.tensors import Counts

_COLUMNS = "copies to the device | copies from it | waits | kernels | allocations"


def _row(label: str, counts: Counts) -> str:
    numbers = (
        counts.uploads,
        counts.downloads,
        counts.waits,
        counts.launches,
        counts.allocations,
    )
    return f"| {label} | " + " | ".join(str(number) for number in numbers) + " |"


def _header(first: str) -> None:
    print(f"\n| {first} | {_COLUMNS} |\n|---|" + "---:|" * 5)


def count(folder: Path) -> None:
    """Print what the parts of a candidate ask."""
    family = make_family(folder)
    with Rehearsal() as device:
        engine = engine_of(family, "cuda")
        print(f"\nA merge of {merged_tensors('linear', family)} tensors into the live model, later")
        print("candidates; the first one's waits are for what is computed once.")
        _header("method")
        firsts = {}
        for method in METHODS:
            firsts[method], later = merge_by(method, family, device, engine)
            print(_row(f"{method} (first: {firsts[method].waits} waits)", later), flush=True)
        _header("scoring")
        for label, scene in scoring(family, engine).items():
            scene()
            with device.counting() as counts:
                scene()
            print(_row(label, counts), flush=True)
        penalised = scoring(family, engine, penalty=1.2)
        for label in ("4 answers of 8 tokens", "32 answers of 8 tokens"):
            with device.counting() as counts:
                penalised[label]()
            print(_row(f"{label}, repetitions penalised", counts), flush=True)
        padded = engine_of(family, "cuda", batch_size=8)
        padded.load((name, family.base.tensor(name)) for name in family.base.structure.shapes)
        for label, scene in scoring(family, padded).items():
            with device.counting() as counts:
                scene()
            print(_row(f"{label}, batches of 8 rows", counts), flush=True)
        routed = routed_engine(family, "cuda")
        routed.prepare(longest_tokens=32, longest_scored=3)
        both = routes(family)
        routed.expect(both)
        for label, recipe in zip(("a route", "a route that begins alike"), both, strict=True):
            with device.counting() as counts:
                routed.follow(recipe, family.sources)
                routed.loglikelihood(choices(128))
            print(_row(f"{label}, 128 choices", counts), flush=True)
        _header("calibration")
        for kind in ("fisher", "inputs"):
            for sequences in (2, 8):
                kinds = {"fisher": kind == "fisher", "inputs": kind == "inputs"}
                with device.counting() as counts:
                    for _ in calibrated(family, folder / f"{kind}{sequences}", sequences, **kinds):
                        pass
                print(_row(f"{kind}, {sequences} sequences", counts), flush=True)


@dataclass(frozen=True, kw_only=True)
class Size:
    """The dimensions of a model with grouped heads of 128."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    groups: int
    vocabulary: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor."""
        hidden, inner, narrow = self.hidden, self.intermediate, 128 * self.groups
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, hidden)
        }
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            shapes |= {
                prefix + "input_layernorm.weight": (hidden,),
                prefix + "mlp.down_proj.weight": (hidden, inner),
                prefix + "mlp.gate_proj.weight": (inner, hidden),
                prefix + "mlp.up_proj.weight": (inner, hidden),
                prefix + "post_attention_layernorm.weight": (hidden,),
                prefix + "self_attn.k_proj.weight": (narrow, hidden),
                prefix + "self_attn.o_proj.weight": (hidden, hidden),
                prefix + "self_attn.q_proj.weight": (hidden, hidden),
                prefix + "self_attn.v_proj.weight": (narrow, hidden),
            }
        return {
            **shapes,
            "model.norm.weight": (hidden,),
            "lm_head.weight": (self.vocabulary, hidden),
        }

    def config(self) -> dict[str, Any]:
        """What config.json would say."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.groups,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 4096,
            "dtype": "bfloat16",
            "bos_token_id": 1,
            "eos_token_id": 2,
        }


SIZES = {
    "7B": Size(hidden=4096, intermediate=11008, layers=32, heads=32, groups=32, vocabulary=32000),
    "32B": Size(hidden=5120, intermediate=27648, layers=64, heads=40, groups=8, vocabulary=152064),
    "70B": Size(hidden=8192, intermediate=28672, layers=80, heads=64, groups=8, vocabulary=128256),
}


@dataclass(frozen=True)
class ShapeSource:
    """A model of which only shapes exist."""

    reference: str
    structure: Structure
    config: dict[str, Any]
    folder: Path = Path()
    revision: str | None = None
    files: dict[str, Path] = field(default_factory=dict)

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor without values."""
        return torch.empty(self.structure.shapes[name], dtype=torch.bfloat16, device="meta")

    def as_stored(self, name: str) -> bool:
        """It is."""
        return True

    def prefetch(self, name: str) -> None:
        """Nothing: there is no file."""

    def sha256(self) -> dict[str, str]:
        """Of no file."""
        return {}


def _sources(size: Size) -> dict[str, ShapeSource]:
    structure = Structure(
        architecture="LlamaForCausalLM",
        shapes=size.shapes(),
        dtype="bfloat16",
        tied=False,
        stacks=(Stack("model.layers.", size.layers),),
    )
    names = ("base", "one", "two", "three")
    return {name: ShapeSource(name, structure, size.config()) for name in names}


_METHODS = ("linear", "slerp", "ties", "dare_ties")
_ROOMY = 2**50


def peak_bytes(size: Size, method: str, *, resident: bool) -> int:
    """Most bytes on the device during the first merge, with what it makes once."""
    from tests.merge.memory_sources import document_of

    sources = _sources(size)
    document = document_of(method, base="base", experts=["one", "two", "three"])
    with Rehearsal(computed=False, memory_bytes=_ROOMY if resident else 0) as device:
        merge = MergeEngine(sources, cache=TensorCache(limit_bytes=0), device="cuda")
        live = {
            name: torch.empty(shape, dtype=torch.bfloat16, device="cuda")
            for name, shape in size.shapes().items()
        }
        with device.counting() as counts:
            for _ in merge.execute(changed(document, 0), into=live.get):
                pass
        return counts.peak_bytes


def scored_bytes(size: Size, folder: Path) -> int:
    """Most bytes on the device while 128 choices are scored, 8,192 tokens a pass."""
    with (
        Rehearsal(computed=False, memory_bytes=_ROOMY) as device,
        # It looks for values that were not computed, and none are.
        mock.patch.object(live_model, "_copy_buffers", return_value=None),
    ):
        engine = TransformersEngine(
            folder,
            tokenizer=word_tokenizer(),
            dtype="bfloat16",
            device="cuda",
            config=size.config(),
        )
        engine._tokens = 2**13, 2**13
        with device.counting() as counts:
            engine.loglikelihood(choices(128, shared=200))
        return counts.peak_bytes


def _of_all_layers(size: Size, weigh: Callable[[Size], int]) -> str:
    """In GB; every layer adds the same."""
    two, three = (weigh(replace(size, layers=layers)) for layers in (2, 3))
    return f"{(two + (size.layers - 2) * (three - two)) / 1e9:.1f}"


def _model_bytes(size: Size) -> int:
    return sum(2 * torch.Size(shape).numel() for shape in size.shapes().values())


def weigh(folder: Path) -> None:
    """Print the most bytes on the device, by shapes alone."""
    methods = " | ".join(_METHODS)
    print(f"\n| model | sources | live model GB | {methods} | 128 choices |")
    print("|---|---|---:|" + "---:|" * (len(_METHODS) + 1))
    for label, size in SIZES.items():
        live = _of_all_layers(size, _model_bytes)
        for resident in (True, False):
            cells = [
                _of_all_layers(size, partial(peak_bytes, method=method, resident=resident))
                for method in _METHODS
            ]
            scored = "" if resident else _of_all_layers(size, partial(scored_bytes, folder=folder))
            where = "kept on the device" if resident else "copied each time"
            print(f"| {label} | {where} | {live} |", " | ".join([*cells, scored]), "|", flush=True)


def main() -> None:
    """Count, weigh and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", action="store_true", help="leave out models of real size")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(f"No GPU: a rehearsal on {machine()}")
    with tempfile.TemporaryDirectory() as scratch:
        count(Path(scratch))
        if not chosen.counts:
            weigh(Path(scratch))


if __name__ == "__main__":
    main()
