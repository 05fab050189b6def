"""A client of a service in this process."""

from __future__ import annotations

from typing import Any

import evomerge
from evomerge.service.client import remote
from tests.service.http.house import URL, House


def server_of(house: House, who: str = "runner", **kwargs: Any) -> remote.Server:
    transport = kwargs.pop("transport", house.client._transport)
    return evomerge.connect(URL, token=house.tokens[who], transport=transport)
