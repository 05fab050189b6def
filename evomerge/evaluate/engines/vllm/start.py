"""Starts vLLM in this process: quietly, with settings under which answers repeat bit for bit.

vLLM reads its settings from the environment, writes to the terminal and seeds every generator; all
of that is kept to this file.
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
"""Classes of models whose answers were held to those of transformers after changes of weights.

vLLM serves more. Of some (with experts, Gemma 3) it answered otherwise once weights had changed.
"""

_CACHE_BYTES = {"cpu": 2**30, "cuda": 8 * 2**30}
"""Keys and values of requests; a fixed size, so that what is evicted follows from requests."""

_ROWS = {"cpu": 64, "cuda": 256}
_PASS_TOKENS = {"cpu": 1024, "cuda": 8192}
"""Requests, and tokens of all of them, in a forward pass, unless a job says how many requests."""

_GPU_SHARE = 0.5
"""Of a GPU's memory, what must be free when vLLM starts; sources of the merge may hold the rest."""

_FORCED = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # weights reach the live model without a copy
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # room for the token after a full context
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # the one that all platforms have, and that was tried
    "VLLM_NO_USAGE_STATS": "1",
}
_UNLESS_SET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # workers of one machine would share a core
}


def check_served(architecture: str, *, device: str, where: str) -> None:
    """Raise in one line where models of a class cannot be served here.

    architecture: what config.json names. device: "cpu", "cuda". where: the model, for the message.
    Raises JobError of the device, SourceError of the model.
    """
    if architecture not in SERVED:
        raise SourceError(
            f"{where}: a {architecture} is not among the models that vllm is known to score "
            f"rightly here ({', '.join(SERVED)}); set compute.engine to transformers"
        )
    with _quietly():
        from vllm.platforms import current_platform

    kind = str(current_platform.device_type)
    # Its own first GPU is the only one that a process hands to it.
    if device not in (kind, f"{kind}:0"):
        raise JobError(
            f"compute.device: {device}, and the vllm that is installed runs on {kind}; set "
            f"compute.device to {kind}, or compute.engine to transformers"
        )


def vllm_version() -> str:
    """The version of the vLLM that is installed, whichever package of the index it came from."""
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

    device: "cpu" or "cuda", for sizes; vLLM knows one only. rows: most requests of a forward pass;
    None for the usual. longest_tokens: of a request with its answer. where: the model, for the
    message.
    Raises SourceError, in one line, where vLLM cannot build it.
    """
    kind = torch.device(device).type
    rows = rows or _ROWS[kind]
    with _quietly(), tempfile.TemporaryDirectory(prefix="evomerge-") as folder:
        # Some modules keep the error of an import that they do without, and with it all frames
        # below: in this thread, ours, whose models would never be freed.
        with ThreadPoolExecutor(max_workers=1) as elsewhere:
            engine_args, llm_engine = elsewhere.submit(_import_vllm).result()
        config.save_pretrained(folder)
        settings = engine_args(
            model=folder,
            model_impl="vllm",
            skip_tokenizer_init=True,
            generation_config="vllm",
            load_format="dummy",
            dtype=dtype,
            # Weights change under a captured graph; that has not been tried.
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
            gc.unfreeze()  # vLLM hides what it made from the collector, which then never frees it
        # Where one ends, it would take down what all live models of this process share.
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
    """The layers that are a model's own; live models share their rotary embeddings."""
    from vllm.model_executor.layers.rotary_embedding import _ROPE_DICT

    shared = set(_ROPE_DICT.values())
    return tuple(module for module in model.modules() if module not in shared)


def _forget(modules: Sequence[torch.nn.Module]) -> None:
    """Let layers go whose live model is gone, with the memory for keys and values that they hold.

    What vLLM notes for changes of weights outlives a model: each note holds the layer it is of.
    """
    from vllm.model_executor.model_loader.reload.layerwise import LAYERWISE_INFO

    for module in modules:
        note = LAYERWISE_INFO.pop(module, None)
        if note is not None:
            note.restore_metadata = {}, {}


def _end(found: weakref.ref[Any]) -> None:
    """Shut down what is still alive as the process ends; libraries complain of what is left."""
    live = found()
    if live is not None:
        live.engine_core.engine_core.shutdown()


_UNREADABLE = "llvmlite.binding.ffi"
"""Of Numba. vLLM looks into all that modules hold, and what this one holds has every attribute."""


@contextmanager
def _quietly() -> Iterator[None]:
    """Let vLLM be imported or started with nothing of it on the terminal, nor left behind.

    What it writes comes from libraries in C++ too, so both streams are turned away as the system
    knows them.
    """
    os.environ.update(_FORCED)
    for name, value in _UNLESS_SET.items():
        os.environ.setdefault(name, value)
    set_num_threads = torch.set_num_threads
    unreadable = sys.modules.pop(_UNREADABLE, None)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {stream: os.dup(stream) for stream in (1, 2)}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in kept:
        os.dup2(nowhere, stream)
    os.close(nowhere)
    try:
        with warnings.catch_warnings(), stock_seeds():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, copy in kept.items():
            os.dup2(copy, stream)
            os.close(copy)
        if unreadable is not None:
            sys.modules[_UNREADABLE] = unreadable
        # On a CPU vLLM replaces it, so that nobody undoes a binding that was turned off above.
        torch.set_num_threads = set_num_threads
