"""Files beside a model's weights that belong to it; links out of its folder are refused.

Examples are processors, tokenizers, pooling, chat templates, code and terms of use: all files that
no rule here excludes.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from evomerge.errors import SourceError

MODULES = "modules.json"
"""Lists the folders that sentence-transformers reads beside a model: pooling, dense layers."""

LARGEST_BYTES = 10**8
"""A larger file that holds no weights is assumed not to belong to the model."""

_DEEPEST = 3
"""How many levels of folders are searched."""

_ENDINGS = (".json", ".jinja", ".model", ".safetensors", ".txt", ".tiktoken", ".py")
"""Endings of files that a model is read from; a folder with such a name is refused."""

_HIDDEN = (".*", "*/.*")
_CARDS = (
    *("README*", "readme*", "MODEL_CARD*", "model_card*", "modelcard*"),
    *("*.png", "*.jpg", "*.jpeg", "*.gif", "*.webp", "*.svg", "*.mp4", "*.pdf", "*.ipynb"),
)
"""Not copied: the merge has its own card, and these describe another model."""

_DATA = ("*.pkl", "*.pickle", "*.joblib", "*.npz", "*.npy", "*.pt", "*.pth")
"""Formats that may hold more than a copy of the weights, for example SetFit's head."""

_OTHER_FORMATS = (
    *("*.bin", "*.ckpt", *_DATA),
    *("*.gguf", "*.ggml", "*.llamafile", "*.onnx", "*.onnx_data*", "*.onnx.data", "*.ort"),
    *("*.h5", "*.hdf5", "*.msgpack", "*.tflite", "*.pb", "*.ot", "*.nemo", "*.pdparams"),
    *("*.mlmodel", "*.mlpackage/*", "*.mlmodelc/*", "*.engine", "*.plan", "*.trt", "*.mindir"),
    *("*.zip", "*.tar", "*.tgz", "*.gz", "*.bz2", "*.xz", "*.zst", "*.7z"),
    *("*.parquet", "*.arrow", "*.pyc", "__pycache__/*", "*/__pycache__/*"),
    *("onnx/*", "openvino/*", "openvino_*", "coreml/*", "gguf/*", "original/*", "metal/*"),
)
_TRAINING = (
    *("optimizer*", "scheduler.*", "scaler.*", "rng_state*", "training_args.*", "trainer_state.*"),
    *("trainer_log.*", "*_results.json", "*events.out.tfevents*", "*.log", "latest"),
    *("runs/*", "logs/*", "wandb/*", "checkpoint-*/*", "global_step*/*"),
)
_OF_MERGES = ("manifest.json", "recipe.yaml", "mergekit_config.yml", "mergekit_config.yaml")
"""Files about how the model itself was merged."""

_COPIES = ("consolidated*", "pytorch_model*", "model.pt", "model.pth", "original/*")
"""Other copies of the weights, or their original form."""

_NOT_ITS_OWN = (*_HIDDEN, *_OTHER_FORMATS, *_TRAINING, *_OF_MERGES)

NOT_FETCHED = (
    *_NOT_ITS_OWN,
    *(pattern for pattern in _CARDS if pattern.startswith("*.")),
    # Weights in folders belong to modules, with names that begin with a number, or to other models.
    *("[!0-9]*/*.safetensors", "[0-9][!_]*/*.safetensors"),
)
"""Patterns of files that are not downloaded from the hub."""


@dataclass(frozen=True, kw_only=True)
class Companions:
    """The files beside a model's weights, by their path in its folder.

    left_out: in words, files that were left out but may belong to the model.
    """

    files: Mapping[str, Path]
    left_out: tuple[str, ...] = ()


def find_companions(folder: Path, named: str) -> Companions:
    """The files beside the weights of the model in a folder; none where it holds no model.

    named: the start of messages. Raises SourceError for a link that leads out of the folder, and
    for anything that is not a file. A snapshot in the hub's cache may link to the blobs of its own
    repository.
    """
    if not any((folder / name).exists() for name in ("config.json", "adapter_config.json")):
        return Companions(files={})
    roots, modules = _roots(folder), _modules(folder)
    files: dict[str, Path] = {}
    left_out: list[str] = []
    for directory, folders, names in os.walk(folder):
        place = Path(directory)
        folders[:] = [
            name
            for name in sorted(folders)
            if _is_looked_into(place / name, folder, modules, roots, named)
        ]
        for name in sorted(names):
            path = place / name
            shown = path.relative_to(folder).as_posix()
            weights = name.endswith((".safetensors", ".bin"))
            of_module = weights and _within(shown, modules)
            if name.endswith(".bin") and of_module:
                left_out.append(f"{shown} (weights that can run code when read)")
            if _matches(shown, _DATA) and not _matches(shown, (*_HIDDEN, *_TRAINING, *_COPIES)):
                left_out.append(f"{shown} (of a format that is not copied)")
            if _matches(shown, (*_NOT_ITS_OWN, *_CARDS)) or (weights and not of_module):
                continue
            if path.is_symlink() and _matches(f"{shown}/", _NOT_ITS_OWN):
                continue  # a link to a missing folder
            check_file(path, named, roots=roots, shown=shown)
            size = path.stat().st_size
            if size > LARGEST_BYTES and not of_module:
                left_out.append(f"{shown} ({size / 1e6:,.0f} MB, more than a model keeps there)")
            else:
                files[shown] = path
    return Companions(files=files, left_out=tuple(left_out))


def check_file(
    path: Path, named: str, *, roots: Iterable[Path] | None = None, shown: str | None = None
) -> None:
    """Refuse all but files, and links that lead nowhere or out of `roots`, if these are given.

    Reading a pipe or a device would never end; a link could copy any file of this machine.
    """
    shown = shown or path.name
    try:
        real = Path(os.path.realpath(path, strict=True))
        mode = real.stat().st_mode
    except OSError as error:
        raise SourceError(
            f"{named}: {shown} cannot be followed to a file ({error.strerror}); put the file in "
            "its place, or remove it"
        ) from error
    if roots is not None and not any(real.is_relative_to(root) for root in roots):
        raise SourceError(
            f"{named}: {shown} is a link to {real}, outside the model's folder; put a copy of the "
            "file in its place, or remove it"
        )
    if not stat.S_ISREG(mode):
        raise SourceError(
            f"{named}: {shown} is {_kind(mode)} and not a file; put the file in its place"
        )


def _kind(mode: int) -> str:
    """What is there in place of a file."""
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket or device"


def _roots(folder: Path) -> tuple[Path, ...]:
    """Where a folder's files may be: in it, and for a snapshot in the blobs of its repository."""
    real = Path(os.path.realpath(folder))
    blobs = real.parent.parent / "blobs"
    of_hub = real.parent.name == "snapshots" and os.path.realpath(blobs) == str(blobs)
    return (real, blobs) if of_hub else (real,)


def _is_looked_into(
    path: Path, folder: Path, modules: Iterable[str], roots: Iterable[Path], named: str
) -> bool:
    shown = path.relative_to(folder).as_posix()
    if shown.endswith(_ENDINGS):
        check_file(path, named, shown=shown)
    if _matches(f"{shown}/", _NOT_ITS_OWN) or shown.count("/") >= _DEEPEST:
        return False
    if _within(f"{shown}/", modules):
        return not _is_linked(path, shown, roots, named)
    if any((path / name).exists() for name in ("config.json", "adapter_config.json")):
        weights = ("*.safetensors", "*.bin", "*.safetensors.index.json")
        if any(any(path.glob(pattern)) for pattern in weights):
            return False  # a model of its own
    return not _is_linked(path, shown, roots, named)


def _is_linked(path: Path, shown: str, roots: Iterable[Path], named: str) -> bool:
    """Whether a folder is a link to another folder of the model, which is searched itself."""
    if not path.is_symlink():
        return False
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(root) for root in roots):
        raise SourceError(
            f"{named}: {shown} is a link to {real}, outside the model's folder; put a copy of it "
            "in its place, or remove it"
        )
    return True


def _modules(folder: Path) -> tuple[str, ...]:
    """The folders of the modules that a sentence-transformers model names, each ending in /."""
    path = folder / MODULES
    if path.is_symlink() and not any(
        Path(os.path.realpath(path)).is_relative_to(root) for root in _roots(folder)
    ):
        return ()  # find_companions refuses it later
    try:
        stated = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else ()
        paths = [str(module["path"]).strip("/") for module in stated]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ()
    return tuple(f"{path}/" for path in paths if path)


def _within(shown: str, modules: Iterable[str]) -> bool:
    return any(shown.startswith(module) for module in modules)


def _matches(shown: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(shown, pattern) for pattern in patterns)
