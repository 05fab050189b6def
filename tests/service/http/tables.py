"""Uploaded tables, and what stands in the place of the process that reads them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, BinaryIO

import httpx2

from tests.service.http.house import MODELS, House

TABLE = b"question,answer\n=1+1,{{ 7 * 7 }}\n"
FACTS = {"format": "csv", "columns": ["question", "answer"], "rows": 1}

MADE: dict[str, Any] = {
    "name": "ours",
    "metric": "exact_match",
    "metrics": ["exact_match"],
    "kind": "exact",
    "reason": "give --kind contains",
    "stop": [],
    "max_tokens": 16,
    "columns": {},
    "items": 1,
    "examples": 0,
    "splits": {},
    "checks": [{"level": "warning", "sentence": f"{MODELS / 'base'}: too long for --fewshot"}],
    "prompts": [{"place": "1", "prompt": "=1+1", "answer": "2", "model": str(MODELS / "base")}],
}


class Process:
    """In the place of the process: keeps what it was asked for, and makes an empty folder."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.read = b""

    def __call__(
        self, file: BinaryIO, out: Path | None, options: Any, _memory: int
    ) -> dict[str, Any]:
        if out is None:
            return dict(FACTS)
        self.asked, self.read = dict(options), file.read()
        out.mkdir()
        return copy.deepcopy(MADE)


def send(house: House, data: Any = TABLE, name: str = "sums.csv", **kwargs: Any) -> httpx2.Response:
    """Upload the bytes of a file."""
    who = kwargs.pop("who", "runner")
    params = {"name": name, **kwargs.pop("params", {})}
    return house.ask("POST", "/uploads", who, content=data, params=params, **kwargs)
