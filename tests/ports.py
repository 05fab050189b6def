"""A port for a server that cannot be asked which one it took."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port of the loopback that nothing listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
