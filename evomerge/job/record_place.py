"""Where the record of a job is kept: in its run directory, or in a PostgreSQL database."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_URL = re.compile(
    r"(?P<scheme>[\w+]+)://"
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?P<server>[^/?]*)(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?$",
    re.DOTALL,
)
"""The parts of a URL as SQLAlchemy 2.1 takes them apart."""

_SCHEMES = ("postgresql", "postgresql+psycopg")
_SECRET_OPTIONS = re.compile(r"(?i)(?:^|&)(password|sslpassword)=")


def _check(place: str) -> str:
    if place == "auto":
        return place
    found = _URL.match(place)
    if found is None or found["scheme"] not in _SCHEMES:
        raise ValueError(
            "no place for a record; write `auto`, which keeps it in the run directory, or "
            "postgresql://USER@HOST/DATABASE"
        )
    if found["password"] or _SECRET_OPTIONS.search(found["query"] or ""):
        raise ValueError(
            "the URL holds a password, which whoever reads the record or the report would see; "
            "leave it out, and give it in the environment as PGPASSWORD, or in ~/.pgpass"
        )
    return place


RecordPlace = Annotated[str, AfterValidator(_check)]
"""`auto`, or the URL of a PostgreSQL database without a password."""
