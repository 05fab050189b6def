"""Secrets and signatures, as the Standard Webhooks specification has them."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

SECRET_PREFIX = "whsec_"
_SECRET_BYTES = 32


def new_secret() -> str:
    """A secret of 32 random bytes."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signed_headers(
    delivery: str, at: float, body: str, secrets_in_use: Sequence[str]
) -> dict[str, str]:
    """The headers of a try: the delivery's id, the second of the try, a signature of each secret.

    After a rotation there are two secrets, so that a receiver may know the new one or the old one.
    """
    moment = datetime.fromtimestamp(int(at), UTC)
    signatures = [Webhook(secret).sign(delivery, moment, body) for secret in secrets_in_use]
    return {
        "webhook-id": delivery,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": " ".join(signatures),
    }
