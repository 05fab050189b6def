"""Devices that a plan may name: their memory, speed and price, with where each number is from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.errors import InputError

HERE = "CPU"
"""The device that has no data sheet: the processor of this machine, which is measured."""

_MOST = 100_000
_ONE = re.compile(r"(?:(?P<count>\d+)\s*[xX×]\s*)?(?P<name>[A-Za-z][\w.-]*)")


@dataclass(frozen=True, kw_only=True)
class PlannedDevice:
    """A device, by its data sheet.

    memory_bytes: of one. memory_bytes_s: it reads or writes so many of its own memory.
    link_bytes_s: from the machine's memory to the device, one way. operations_s: dtype -> floating
    point operations of matrix products, without sparsity. price: of an hour, in US dollars; an
    assumption.
    """

    name: str
    memory_bytes: int
    memory_bytes_s: float
    link_bytes_s: float
    operations_s: Mapping[str, float]
    price: float
    source: str


def _gpu(
    name: str, *, gb: int, tb_s: float, link_gb_s: float, half: float, full: float, price: float
) -> PlannedDevice:
    """half, full: tera operations in bfloat16 or float16, and in float32 without TF32."""
    return PlannedDevice(
        name=name,
        memory_bytes=gb * 10**9,
        memory_bytes_s=tb_s * 1e12,
        link_bytes_s=link_gb_s * 1e9,
        operations_s={"bfloat16": half * 1e12, "float16": half * 1e12, "float32": full * 1e12},
        price=price,
        source="NVIDIA data sheet",
    )


DEVICES: Mapping[str, PlannedDevice] = {
    device.name: device
    for device in (
        _gpu("B200", gb=180, tb_s=7.7, link_gb_s=64, half=2250, full=75, price=5.0),
        _gpu("H200", gb=141, tb_s=4.8, link_gb_s=64, half=989, full=67, price=3.5),
        _gpu("H100", gb=80, tb_s=3.35, link_gb_s=64, half=989, full=67, price=2.5),
        _gpu("H100-PCIe", gb=80, tb_s=2.0, link_gb_s=64, half=756, full=51, price=2.2),
        _gpu("A100-80GB", gb=80, tb_s=2.039, link_gb_s=32, half=312, full=19.5, price=1.6),
        _gpu("A100-40GB", gb=40, tb_s=1.555, link_gb_s=32, half=312, full=19.5, price=1.2),
        _gpu("L40S", gb=48, tb_s=0.864, link_gb_s=32, half=362, full=91.6, price=1.0),
        _gpu("L4", gb=24, tb_s=0.3, link_gb_s=32, half=121, full=30.3, price=0.6),
        _gpu("A10", gb=24, tb_s=0.6, link_gb_s=32, half=125, full=31.2, price=0.7),
        _gpu("RTX4090", gb=24, tb_s=1.008, link_gb_s=32, half=165, full=82.6, price=0.5),
    )
}
"""By name. Each is the SXM form where there are two and the name does not say which."""

ALIASES: Mapping[str, str] = {"A100": "A100-80GB", "H100-SXM": "H100", "H100-80GB": "H100"}


@dataclass(frozen=True, kw_only=True)
class DeviceGroup:
    """Devices of one kind. device: None for this machine's processor. price: of one for an hour.

    price_source: who says so.
    """

    name: str
    count: int
    device: PlannedDevice | None
    price: float
    price_source: str


def read_devices(text: str, prices: Mapping[str, float] | None = None) -> tuple[DeviceGroup, ...]:
    """The devices of a text such as `8xH100` or `4xH100,4xA100-40GB`, those of one kind together.

    prices: name -> price of an hour, instead of the assumed one. Raises InputError.
    """
    counts: dict[str, int] = {}
    for written in text.split(","):
        name, count = _read_one(written.strip())
        counts[name] = counts.get(name, 0) + count
    given = {_known(name, "prices"): price for name, price in (prices or {}).items()}
    for name, price in given.items():
        if not 0.0 <= price < 1e6:
            raise InputError(f"prices: {name}={price:g}: no price; give 0 or more for an hour")
        if name not in counts:
            raise InputError(
                f"prices: {name} is not among the devices; name one of {', '.join(counts)}"
            )
    return tuple(
        DeviceGroup(
            name=name,
            count=count,
            device=DEVICES.get(name),
            price=given.get(name, DEVICES[name].price if name in DEVICES else 0.0),
            price_source="given"
            if name in given
            else ("assumed; give yours" if name in DEVICES else "nothing, it is this machine"),
        )
        for name, count in counts.items()
    )


def known_devices(text: str) -> str:
    """The text, if `read_devices` reads it. Raises ValueError in one line, without the field."""
    try:
        read_devices(text)
    except InputError as error:
        raise ValueError(str(error).removeprefix("devices: ")) from error
    return text


def read_prices(written: list[str] | None) -> dict[str, float]:
    """Device -> price of an hour, from texts such as `H100=2.5`. Raises InputError."""
    prices: dict[str, float] = {}
    for text in written or ():
        name, equals, number = text.partition("=")
        try:
            prices[name.strip()] = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise InputError(f"price: {text}: not understood; write it as H100=2.5")
    return prices


def _read_one(written: str) -> tuple[str, int]:
    found = _ONE.fullmatch(written)
    if found is None:
        raise InputError(
            f"devices: {written or 'nothing'}: not understood; write a number and a name, as "
            "8xH100, and a comma between kinds"
        )
    count = int(found["count"] or 1)
    if not 1 <= count <= _MOST:
        raise InputError(
            f"devices: {written}: {count} is outside 1 to {_MOST:,}; give their number"
        )
    return _known(found["name"], "devices"), count


def _known(name: str, field: str) -> str:
    """The table's spelling of a name. Raises InputError."""
    names = (HERE, *DEVICES, *ALIASES)
    found = next((known for known in names if known.lower() == name.lower()), None)
    if found is None:
        near = difflib.get_close_matches(name, names, n=1)
        mend = f"did you mean {near[0]}?" if near else f"name one of {', '.join((HERE, *DEVICES))}"
        raise InputError(f"{field}: {name} is not in the table of devices; {mend}")
    return ALIASES.get(found, found)
