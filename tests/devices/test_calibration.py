"""Statistics over a device: the CPU's, and copied from it once, however long the text is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evomerge.calibrate import Calibration, calibrate
from tests.devices.rehearsal import Rehearsal
from tests.devices.scenes import Family, calibrated


@pytest.mark.parametrize("kind", ["fisher", "inputs"])
def test_sums_grow_on_the_device(
    kind: str, family: Family, device: Rehearsal, tmp_path: Path
) -> None:
    kinds = {"fisher": kind == "fisher", "inputs": kind == "inputs"}
    copies = []
    for sequences in (2, 4):
        folder = tmp_path / f"{sequences}"
        with device.counting() as counts:
            for _ in calibrated(family, folder, sequences, **kinds):
                pass
        copies.append((counts.downloads, counts.waits - sequences))
    assert copies[0] == copies[1]
    # transformers looks once a pass whether rows are packed; that is all that waits in one.
    plain = Calibration(sequences=4, tokens=12, batch=1, device="cpu", **kinds)  # type: ignore[arg-type]
    text = family.statistics.parent / "text.txt"
    [written] = calibrate([family.base.reference], text, tmp_path, plain, lambda *_: None)
    found = load_file(tmp_path / "4" / written.path.name)
    for name, expected in load_file(written.path).items():
        atol = 1e-5 * float(expected.abs().max())
        assert torch.allclose(found[name], expected, rtol=1e-3, atol=atol), name


def test_sums_without_room_are_pages_of_the_file(family: Family, tmp_path: Path) -> None:
    with Rehearsal(memory_bytes=0) as device, device.counting() as counts:
        for _ in calibrated(family, tmp_path / "streamed", 2, fisher=False):
            pass
    assert counts.downloads > 2 * 8  # of each sequence, those of each of two layers
    found = [load_file(path) for path in sorted((tmp_path / "streamed").iterdir())]
    with Rehearsal():
        for _ in calibrated(family, tmp_path / "kept", 2, fisher=False):
            pass
    kept = [load_file(path) for path in sorted((tmp_path / "kept").iterdir())]
    for one, other in zip(found, kept, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert torch.allclose(one[name], other[name], rtol=1e-5, atol=1e-6)
