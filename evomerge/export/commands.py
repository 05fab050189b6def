"""Commands and code that load an exported folder with stock tools, by what its files say.

The model card names the task and the library of a merge; this reads them there, so nothing has to
be known of the model's class again, and folders of every age have it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.documents import parse_mapping
from evomerge.errors import RunError
from evomerge.export.use import Use, use_stated

_CARD_BYTES = 2**20
_CONFIG_BYTES = 2**24
_CARD = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)

_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes for --max-lora-rank."""

_GENERATES = ("text-generation", "text2text-generation")
_SERVED = ("text-generation", "image-text-to-text")
_READS_TEXT = (
    *_GENERATES,
    "text-classification",
    "token-classification",
    "question-answering",
    "fill-mask",
    "feature-extraction",
)


@dataclass(frozen=True, kw_only=True)
class Command:
    """tool: what runs it. text: lines of Python or of a shell, to be copied."""

    tool: str
    text: str


@dataclass(frozen=True, kw_only=True)
class _Base:
    """The model below an adapter. revision: None for a folder, whose place only its user knows."""

    name: str
    revision: str | None

    @property
    def model(self) -> str:
        return self.name if self.revision else "BASE"

    @property
    def remark(self) -> str:
        """A comment of Python and of shells, which have the same sign; empty for a hub id."""
        return "" if self.revision else f"# BASE: your folder of {_line(self.name)}\n"


def adapter_code(loader: str, base: str, folder: str) -> str:
    """Python that loads an adapter. base: arguments of the loader. folder: an expression."""
    return (
        f"from peft import PeftModel\nfrom transformers import {loader.partition('.')[0]}\n\n"
        f"model = PeftModel.from_pretrained({loader}({base}), {folder})"
    )


def commands_of(folder: Path, called: str) -> tuple[Command, ...]:
    """The commands for an exported folder; none where its card does not say what it is.

    Args:
        folder: The folder, which evomerge wrote.
        called: What it is called where the commands run.
    """
    use = _use(folder)
    if use is None:
        return ()
    if not (folder / "adapter_config.json").is_file():
        return tuple(_of_model(folder, called, use))
    config = _json(folder / "adapter_config.json")
    stated = _json(folder / "manifest.json").get("adapter")
    if not isinstance(stated, dict) or not config:
        return ()
    return tuple(_of_adapter(called, use, config, stated))


def _of_model(folder: Path, called: str, use: Use) -> Iterator[Command]:
    trusted = bool(_json(folder / "config.json").get("auto_map"))
    name = _python(called)
    if use.library == "sentence-transformers":
        options = ", trust_remote_code=True" if trusted else ""
        yield Command(
            tool=use.library,
            text=f"from sentence_transformers import {use.loader}\n\n"
            f"model = {use.loader}({name}{options})\n"
            'print(model.encode(["Hello", "Good morning"]).shape)',
        )
        return
    yield Command(
        tool="transformers", text=_transformers(use, f"{name}{_trust(trusted)}", with_model=True)
    )
    quoted = shlex.quote(called)
    if use.task in _SERVED:
        option = " --trust-remote-code" if trusted else ""
        yield Command(tool="vLLM", text=f"vllm serve {quoted}{option}")
    if use.task == "text-generation":
        yield Command(
            tool="llama.cpp",
            text=f"python convert_hf_to_gguf.py {quoted} --outfile merge.gguf\n"
            'llama-cli -m merge.gguf -p "Hello"',
        )


def _of_adapter(
    called: str, use: Use, config: Mapping[str, Any], stated: Mapping[str, Any]
) -> Iterator[Command]:
    revision = config.get("revision")
    name = config.get("base_model_name_or_path") if revision else stated.get("base")
    base = _Base(name=str(name), revision=str(revision) if revision else None)
    given = _python(base.model) + (f", revision={_python(base.revision)}" if base.revision else "")
    loading = adapter_code(use.loader, given, _python(called))
    # An adapter's folder has a tokenizer, and no processor of images or sound.
    reads = use.task in _READS_TEXT
    after = _transformers(use, _python(called), with_model=False) if reads else ""
    yield Command(tool="PEFT", text=f"{base.remark}{loading}\n{after}".rstrip("\n"))
    quoted, below = shlex.quote(called), shlex.quote(base.model)
    rank = next((each for each in _VLLM_RANKS if each >= config.get("r", 0)), None)
    plain = not config.get("modules_to_save") and config.get("bias", "none") == "none"
    if use.task in _SERVED and plain and rank is not None:
        at = f" --revision {shlex.quote(base.revision)}" if base.revision else ""
        yield Command(
            tool="vLLM",
            text=f"{base.remark}vllm serve {below}{at} --enable-lora --max-lora-rank {rank} "
            f"--lora-modules merge={quoted}",
        )
    whole = stated.get("whole") or []
    # The converter takes factors and norms, and refuses other tensors that are stored whole.
    if use.task == "text-generation" and all(
        ".norm" in each or "_layernorm" in each for each in map(str, whole)
    ):
        yield Command(
            tool="llama.cpp",
            text=f"# BASE: your folder of {_line(base.name)}\n"
            "python convert_hf_to_gguf.py BASE --outfile base.gguf\n"
            f"python convert_lora_to_gguf.py {quoted} --base BASE --outfile adapter.gguf\n"
            'llama-cli -m base.gguf --lora adapter.gguf -p "Hello"',
        )


def _transformers(use: Use, given: str, *, with_model: bool) -> str:
    """Python that loads a model, its tokenizer or processor, and uses it where it reads text."""
    reader = "AutoTokenizer" if use.task in _READS_TEXT else "AutoProcessor"
    called = "tokenizer" if reader == "AutoTokenizer" else "processor"
    classes = (use.loader.partition(".")[0], reader) if with_model else (reader,)
    lines = [f"from transformers import {', '.join(sorted(classes))}", ""]
    if with_model:
        lines.append(f"model = {use.loader}({given})")
    lines.append(f"{called} = {reader}.from_pretrained({given})")
    texts = '"Who sang?", "Ana sang."' if use.task == "question-answering" else '"Hello"'
    inputs = f'inputs = tokenizer({texts}, return_tensors="pt")'
    if use.task in _GENERATES:
        lines += [inputs, "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))"]
    elif use.task in _READS_TEXT and use.task != "feature-extraction":
        lines += [inputs, "print(model(**inputs))"]
    return "\n".join(lines)


def _use(folder: Path) -> Use | None:
    """The use that the model card states."""
    found = _CARD.match(_text(folder / "README.md", _CARD_BYTES, whole=False))
    if found is None:
        return None
    try:
        card = parse_mapping(found[1], where="README.md", expected="metadata", error=RunError)
    except RunError:
        return None
    return use_stated(card.get("pipeline_tag"))


def _json(path: Path) -> Mapping[str, Any]:
    """A document of the folder; empty where there is none."""
    try:
        document = json.loads(_text(path, _CONFIG_BYTES, whole=True))
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _text(path: Path, most_bytes: int, *, whole: bool) -> str:
    """The text of a file, or its start; empty where it is missing, or too large to be read."""
    try:
        with path.open("rb") as stream:
            content = stream.read(most_bytes + 1)
    except OSError:
        return ""
    return "" if whole and len(content) > most_bytes else content.decode("utf-8", "replace")


def _trust(trusted: bool) -> str:
    return ", trust_remote_code=True" if trusted else ""


def _python(text: str) -> str:
    """The text as a literal of Python."""
    return json.dumps(text)


def _line(text: str) -> str:
    """The text on one line, so that nothing leaves a comment."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
