"""What the tests of calibration share: live models of tiny checkpoints, and words to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.calibrate import Calibration, Written, calibrate
from evomerge.calibrate.live_source import LiveSource
from evomerge.sources import open_source
from tests.architectures import ROWS
from tests.checkpoints import WORDS


def live(folder: Path) -> LiveSource:
    source = open_source(str(folder), where="test")
    return LiveSource(source, dtype="float32", device=torch.device("cpu"), trust_remote_code=False)


def token_ids(*shape: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(3, ROWS, size=shape)


def write_words(file: Path, *, count: int, seed: int = 0) -> Path:
    """A text of so many words of the tiny tokenizer's vocabulary."""
    drawn = np.random.default_rng(seed).choice(WORDS[4:], size=count)
    file.write_text(" ".join(drawn), encoding="utf-8")
    return file


def run(models: list[Path], text: Path, out: Path, **options: object) -> list[Written]:
    calibration = Calibration(**{"sequences": 4, "tokens": 12, **options})  # type: ignore[arg-type]
    references = [str(model) for model in models]
    return list(calibrate(references, text, out, calibration, lambda label, done, count: None))
