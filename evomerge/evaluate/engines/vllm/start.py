"""Starts vLLM in this process, without output, with settings that make answers repeat bit for bit.

vLLM reads its settings from the environment, writes to the terminal and seeds every random
generator. This file deals with all of that.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import tempfile
import warnings
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedConfig

from evomerge.errors import JobError, SourceError, one_line
from evomerge.evaluate.seeds import stock_seeds
from evomerge.recipe import DType

SERVED = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Model classes that were tested: they answer as transformers does, also after a change of weights.

vLLM serves more. Some of them (with experts, Gemma 3) gave other answers once weights had changed.
"""

_CACHE_BYTES = {"cpu": 2**30, "cuda": 8 * 2**30}
"""Memory for keys and values. The size is fixed, so evictions depend on the requests alone."""

_ROWS = {"cpu": 64, "cuda": 256}
_PASS_TOKENS = {"cpu": 1024, "cuda": 8192}
"""Most requests in a forward pass, unless a job says how many, and most tokens of all of them."""

_GPU_SHARE = 0.5
"""Share of a GPU's memory that must be free when vLLM starts; sources of the merge may hold the
rest.
"""

_FORCED = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # weights reach the live model without a copy
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # room for the token after a full context
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # all platforms have version 1, and it was tested
    "VLLM_NO_USAGE_STATS": "1",
}
_UNLESS_SET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # workers of one machine would share a core
}


def check_served(architecture: str, *, device: str, where: str) -> None:
    """Raise, in one line, if vLLM cannot serve a model class here.

    architecture: as config.json names it. device: "cpu", "cuda". where: the model, for the message.
    Raises JobError for the device, SourceError for the model.
    """
    if architecture not in SERVED:
        raise SourceError(
            f"{where}: a {architecture} is not among the models that vllm is known to score "
            f"correctly here ({', '.join(SERVED)}); set compute.engine to transformers"
        )
    with _quietly():
        from vllm.platforms import current_platform

    kind = str(current_platform.device_type)
    # vLLM always runs on the first GPU of its process.
    if device not in (kind, f"{kind}:0"):
        raise JobError(
            f"compute.device: {device}, but the installed vllm runs on {kind}; set "
            f"compute.device to {kind}, or compute.engine to transformers"
        )


def vllm_version() -> str:
    """The version of the installed vLLM, from whichever package it comes."""
    with _quietly():
        from vllm.version import __version__

    return str(__version__)


def start_vllm(
    config: PreTrainedConfig,
    *,
    dtype: DType,
    device: str,
    rows: int | None,
    longest_tokens: int,
    where: str,
) -> Any:
    """A `LLMEngine` of vLLM with random weights for a model's configuration.

    device: "cpu" or "cuda"; it chooses sizes only, because an installed vLLM runs on one kind.
    rows: most requests of a forward pass; None for the default. longest_tokens: of a request with
    its answer. where: the model, for the message.
    Raises SourceError, in one line, if vLLM cannot build it.
    """
    kind = torch.device(device).type
    rows = rows or _ROWS[kind]
    with _quietly(), tempfile.TemporaryDirectory(prefix="evomerge-") as folder:
        # Some modules keep the error of an optional import, and with it all frames below. In this
        # thread they would keep our frames, and their models would never be freed.
        with ThreadPoolExecutor(max_workers=1) as thread:
            engine_args, llm_engine = thread.submit(_import_vllm).result()
        config.save_pretrained(folder)
        settings = engine_args(
            model=folder,
            model_impl="vllm",
            skip_tokenizer_init=True,
            generation_config="vllm",
            load_format="dummy",
            dtype=dtype,
            # A captured graph with weights that change has not been tested.
            enforce_eager=True,
            async_scheduling=False,
            max_model_len=longest_tokens,
            max_num_seqs=rows,
            max_num_batched_tokens=max(rows, _PASS_TOKENS[kind]),
            kv_cache_memory_bytes=_CACHE_BYTES[kind],
            gpu_memory_utilization=_GPU_SHARE,
            enable_prefix_caching=True,
            disable_log_stats=True,
            seed=0,
        )
        try:
            live = llm_engine.from_engine_args(settings)
        except (ValueError, RuntimeError, NotImplementedError, AssertionError) as error:
            raise SourceError(
                f"{where}: vllm cannot run this model here ({one_line(error)}); set compute.engine "
                "to transformers"
            ) from error
        finally:
            gc.unfreeze()  # vLLM hides its objects from the collector, so they would never be freed
        # It would shut down what all live models of this process share.
        live.engine_core._finalizer.detach()
        atexit.register(_end, weakref.ref(live))
        [modules] = live.apply_model(_modules_of)
        weakref.finalize(live, _forget, modules).atexit = False
        return live


def _import_vllm() -> tuple[Any, Any]:
    """The classes of vLLM's settings and of its engine."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    return EngineArgs, LLMEngine


def _modules_of(model: torch.nn.Module) -> tuple[torch.nn.Module, ...]:
    """The modules of one model alone; live models share their rotary embeddings."""
    from vllm.model_executor.layers.rotary_embedding import _ROPE_DICT

    shared = set(_ROPE_DICT.values())
    return tuple(module for module in model.modules() if module not in shared)


def _forget(modules: Sequence[torch.nn.Module]) -> None:
    """Free the layers of a live model that is gone, and their memory for keys and values.

    vLLM keeps a note for each layer to change its weights. The note outlives the model and keeps
    the layer alive.
    """
    from vllm.model_executor.model_loader.reload.layerwise import LAYERWISE_INFO

    for module in modules:
        note = LAYERWISE_INFO.pop(module, None)
        if note is not None:
            note.restore_metadata = {}, {}


def _end(reference: weakref.ref[Any]) -> None:
    """Shut down a model that is alive at the end of the process, or libraries complain."""
    live = reference()
    if live is not None:
        live.engine_core.engine_core.shutdown()


_UNREADABLE = "llvmlite.binding.ffi"
"""A module of Numba. vLLM inspects the contents of all modules, and an object in this one claims to
have every attribute.
"""


@contextmanager
def _quietly() -> Iterator[None]:
    """Within, vLLM can be imported or started without output and without lasting changes.

    C++ libraries write too, so both streams are redirected by their file descriptors.
    """
    os.environ.update(_FORCED)
    for name, value in _UNLESS_SET.items():
        os.environ.setdefault(name, value)
    set_num_threads = torch.set_num_threads
    unreadable = sys.modules.pop(_UNREADABLE, None)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {stream: os.dup(stream) for stream in (1, 2)}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in saved:
        os.dup2(nowhere, stream)
    os.close(nowhere)
    try:
        with warnings.catch_warnings(), stock_seeds():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, copy in saved.items():
            os.dup2(copy, stream)
            os.close(copy)
        if unreadable is not None:
            sys.modules[_UNREADABLE] = unreadable
        # On a CPU vLLM replaces it to protect a binding to cores, which is turned off above.
        torch.set_num_threads = set_num_threads
