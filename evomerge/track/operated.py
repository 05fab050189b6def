"""What an operator's options of a tracker must be, where a service's jobs use them.

Jobs run in a folder that must stay empty, so nothing may mean a place in it. What is on the command
line can be read by everyone on the machine, so no password belongs there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from evomerge.errors import InputError

_SERVERS = ("http", "https", "databricks")


def check_tensorboard(options: Mapping[str, str]) -> Mapping[str, str]:
    """The folder of event files, absolute. Raises InputError."""
    folder = options.get("dir")
    if folder is None:
        return options
    if not Path(folder).is_dir():
        raise InputError(f"dir={folder}: no such folder; check the path")
    return {**options, "dir": str(Path(folder).resolve())}


def check_wandb(options: Mapping[str, str]) -> Mapping[str, str]:
    """The mode, if it is one in which something is kept. Raises InputError."""
    mode = options.get("mode")
    if mode not in (None, "online", "offline"):
        raise InputError(f"mode={mode}: write online or offline")
    return options


def check_mlflow(options: Mapping[str, str]) -> Mapping[str, str]:
    """The address, which is a server's: else MLflow writes where a job runs. Raises InputError."""
    uri = options.get("uri")
    found = uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if not found:
        raise InputError("no address; write mlflow:uri=URL, or set MLFLOW_TRACKING_URI")
    parts = urlsplit(found)
    if parts.scheme not in _SERVERS and found != "databricks":
        raise InputError(f"{found}: not the address of a server; write https://... or http://...")
    if uri and "@" in parts.netloc:
        raise InputError(
            "uri: a password on a command line can be seen by everyone; set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return options
