"""Computes statistics of models on a text, and keeps those that exist already.

Memory holds one model at a time. Statistics of the same weights, text and settings are not computed
again, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.calibrate.fisher import add_fisher, fisher_shapes
from evomerge.calibrate.inputs import add_inputs, find_linear_layers
from evomerge.calibrate.live_source import LiveSource, load_tokenizer
from evomerge.calibrate.tensor_file import new_tensor_file
from evomerge.calibrate.text import Text, cut_sequences, read_text
from evomerge.errors import InputError
from evomerge.evaluate import check_reading, load_plain
from evomerge.merge import FileKind, Header, model_name, read_header, weights_sha256
from evomerge.sources import Checkpoint, Source, context_tokens, open_source

Progress = Callable[[str, int, int], None]
"""(what is being done, sequences done, sequences in all)"""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What statistics are computed, and how.

    fisher, inputs: whether to compute these kinds, see `merge/statistics.py`. sequences: the most
    to read of the text. tokens: of each, at most the model's context. seed: of the draw if the text
    has more. batch: sequences read at once for the inputs; it changes memory and speed alone.
    dtype: of the model; statistics are float32. device: "auto", "cpu", "cuda", "cuda:1". Raises
    InputError for a value out of range.
    """

    fisher: bool = True
    inputs: bool = True
    sequences: int = 128
    tokens: int = 512
    seed: int = 0
    batch: int = 4
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for field, least in (("sequences", 1), ("tokens", 2), ("seed", 0), ("batch", 1)):
            value = getattr(self, field)
            if value < least:
                raise InputError(f"--{field}: {value} is below {least}; give at least {least}")

    @property
    def kinds(self) -> tuple[FileKind, ...]:
        """The files to write for each model."""
        wanted: tuple[tuple[FileKind, bool], ...] = (
            ("fisher", self.fisher),
            ("inputs", self.inputs),
        )
        return tuple(kind for kind, is_wanted in wanted if is_wanted)

    def torch_device(self) -> torch.device:
        """The device to run on. Raises InputError where it cannot be used."""
        usable = torch.cuda.is_available()
        if self.device == "auto":
            return torch.device("cuda" if usable else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise InputError(f"--device: {self.device}: no such device; use auto or cpu") from error
        if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not usable):
            raise InputError(f"--device: {self.device}: not usable here; use auto or cpu")
        return device


_CHECKED_TOKENS = 64
"""Tokens of the text that plain transformers reads too, to check the live model."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A file of statistics that exists now. computed: whether this run has computed it."""

    path: Path
    kind: FileKind
    model: str
    settings: str
    size_bytes: int
    computed: bool

    def line(self) -> str:
        """The line about it for the user."""
        state = "computed" if self.computed else "there already"
        size = f"{self.size_bytes / 1e6:,.1f} MB"
        return f"{self.path}: {self.kind} of {self.model}, {self.settings}, {size}, {state}"


def calibrate(
    references: Sequence[str],
    text_file: Path,
    folder: Path,
    calibration: Calibration,
    progress: Progress,
) -> Iterator[Written]:
    """Compute statistics of models on a text and store them in `folder`, one file at a time.

    references: folders or hub ids; adapters are opened over the model they name, or as
    MODEL+ADAPTER. Memory: one model in `dtype` and what `add_fisher` and `add_inputs` need; the
    statistics are pages of their file. On disk, Fisher diagonals take 4 bytes a parameter, and the
    inputs 4·in² bytes for every group of linear layers that share them. All models are opened
    before the first is read. Raises InputError, SourceError, StorageError in one line.
    """
    text = read_text(text_file)
    device = calibration.torch_device()
    sources = [open_source(reference, where="MODEL") for reference in references]
    for source in sources:
        yield from _calibrate_one(source, text, folder, calibration, device, progress)


def _calibrate_one(
    source: Source,
    text: Text,
    folder: Path,
    calibration: Calibration,
    device: torch.device,
    progress: Progress,
) -> Iterator[Written]:
    trust = calibration.trust_remote_code
    sequences = cut_sequences(
        text,
        load_tokenizer(source, trust_remote_code=trust),
        count=calibration.sequences,
        length=min(calibration.tokens, context_tokens(source.config)),
        seed=calibration.seed,
    )
    count, length = sequences.shape
    digest = weights_sha256(source)
    live: LiveSource | None = None
    for kind in calibration.kinds:
        header = Header(
            kind=kind,
            model=model_name(source),
            weights_sha256=digest,
            text_sha256=text.sha256,
            settings=f"{count} x {length} tokens, seed {calibration.seed}, {calibration.dtype}",
        )
        path = _find_same(folder, header)
        computed = path is None
        if path is None:
            live = live or _build(source, sequences[0], calibration, device)
            path = folder / header.file_name
            _write(live, sequences, path, header, calibration.batch, progress)
        yield Written(
            path=path,
            kind=kind,
            model=source.reference,
            settings=header.settings,
            size_bytes=path.stat().st_size,
            computed=computed,
        )


def _build(
    source: Source, sequence: NDArray[np.int64], calibration: Calibration, device: torch.device
) -> LiveSource:
    """The live source, checked against plain transformers on the beginning of a text.

    sequence: (tokens,). Raises SelfCheckError if they read it differently.
    """
    trust = calibration.trust_remote_code
    text = sequence[:_CHECKED_TOKENS]
    plain: torch.Tensor | None = None
    # Plain transformers would load only an adapter's base.
    if isinstance(source, Checkpoint) and source.unpacked_alike(calibration.dtype):
        # This comes before the live model is built, so that memory holds one model at a time.
        plain = load_plain(
            source.folder, dtype=calibration.dtype, device=device, trust_remote_code=trust
        ).logits(text)
    live = LiveSource(source, dtype=calibration.dtype, device=device, trust_remote_code=trust)
    if plain is not None:
        ids = torch.from_numpy(text.copy())[None].to(device)
        with torch.inference_mode():
            found = live.model(input_ids=ids, use_cache=False).logits[0]
        check_reading(found, plain, text, label=source.reference)
    return live


def _find_same(folder: Path, header: Header) -> Path | None:
    """The file that was computed from the same weights and text in the same way."""
    for path in sorted(folder.glob("*.safetensors")):
        known = read_header(path)
        if known is not None and known.says_the_same_as(header):
            return path
    return None


def _write(
    live: LiveSource,
    sequences: NDArray[np.int64],
    path: Path,
    header: Header,
    batch: int,
    progress: Progress,
) -> None:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(path.name, done, len(sequences))

    if header.kind == "fisher":
        with new_tensor_file(path, fisher_shapes(live), header.to_metadata()) as into:
            add_fisher(live, sequences, into, advance)
        return
    layers = find_linear_layers(live, sequences[0])
    header = replace(header, shared=layers.shared, transposed=layers.transposed)
    shapes = {name: (size, size) for name, size in layers.sizes.items()}
    with new_tensor_file(path, shapes, header.to_metadata()) as into:
        add_inputs(live, layers, sequences, into, advance, batch=batch)
