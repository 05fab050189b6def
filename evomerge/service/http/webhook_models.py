"""What the routes of webhooks take and answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from evomerge.service.http.models import Request
from evomerge.service.http.views import TokenView, View, moment
from evomerge.service.store.people import Token
from evomerge.service.store.refusals import Refusal
from evomerge.service.webhooks.deliveries import Delivery, DeliveryState
from evomerge.service.webhooks.destinations import LONGEST_URL, Destinations
from evomerge.service.webhooks.kinds import EVENT_KINDS, EventKind
from evomerge.service.webhooks.subscriptions import LONGEST_OVERLAP_S, Condition, Webhook

_URL = "https://hooks.example.com/evomerge"


class NewWebhook(Request):
    """An address that is told of a project's jobs."""

    project: str | None = Field(
        default=None,
        max_length=100,
        description="Name or id of the project; the token's only project, or `default`.",
        examples=["default"],
    )
    url: str = Field(
        min_length=1,
        max_length=LONGEST_URL,
        description="A public https address, or one that the operator allows.",
        examples=[_URL],
    )
    name: str = Field(default="", max_length=200, description="Shown in lists.")
    events: list[EventKind] = Field(
        default=[],
        max_length=len(EVENT_KINDS) * 2,
        description="What it is told; empty for everything.",
        examples=[["job.succeeded", "job.failed"]],
    )


class WebhookChanges(Request):
    """Changes of a webhook; what is not given stays."""

    name: str | None = Field(default=None, max_length=200)
    url: str | None = Field(default=None, min_length=1, max_length=LONGEST_URL)
    events: list[EventKind] | None = Field(
        default=None, max_length=len(EVENT_KINDS) * 2, description="Empty for everything."
    )
    enabled: bool | None = Field(
        default=None, description="A disabled webhook is told nothing, also not later."
    )


class Rotation(Request):
    """How a secret is replaced."""

    overlap_s: float = Field(
        default=86400.0,
        ge=0,
        le=LONGEST_OVERLAP_S,
        description="Seconds that the secret before goes on signing, beside the new one.",
    )


class WebhookView(View):
    """A webhook without its secret."""

    id: str
    project: str = Field(description="The project's name.")
    owner: str = Field(description="The person who made it.")
    name: str
    url: str = Field(description="A viewer sees the server only, as the path may be secret.")
    events: list[str] = Field(description="What it is told.")
    condition: Condition = Field(description="Failing: no try has arrived since `failing_since`.")
    made: datetime
    disabled: datetime | None
    disabled_why: str | None
    failing_since: datetime | None
    last_at: datetime | None = Field(description="When something was sent last.")
    last_status: int | None = Field(description="The status of the last answer.")
    last_error: str | None
    waiting: int = Field(description="Deliveries that have not arrived yet.")
    old_secret_until: datetime | None = Field(description="Until then two secrets sign.")

    @classmethod
    def of(cls, webhook: Webhook, projects: Mapping[str, str], *, whole: bool) -> WebhookView:
        """A webhook as the store keeps it; projects: id -> name; whole: with the URL's path."""
        return cls(**_facts_of(webhook, projects, whole=whole))


class WebhookWithSecret(WebhookView):
    """A webhook and its secret. This is the only time that it is shown."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])


def with_secret(webhook: Webhook, secret: str, projects: Mapping[str, str]) -> WebhookWithSecret:
    """A webhook and the secret that was made for it now."""
    return WebhookWithSecret(**_facts_of(webhook, projects, whole=True), secret=secret)


class RevokedToken(TokenView):
    """A token that was revoked, and what its person leaves behind."""

    webhooks: list[WebhookView] = Field(
        description="Webhooks of the same person, which go on: they belong to their project. "
        "`DELETE /api/v1/webhooks?owner=PERSON` deletes them."
    )


def revoked_token(
    token: Token, webhooks: Iterable[Webhook], projects: Mapping[str, str]
) -> RevokedToken:
    """A token that was revoked, with the webhooks of its person."""
    left = [WebhookView.of(each, projects, whole=True) for each in webhooks]
    return RevokedToken(**vars(TokenView.of(token, projects)), webhooks=left)


def _facts_of(webhook: Webhook, projects: Mapping[str, str], *, whole: bool) -> dict[str, Any]:
    return {
        "id": webhook.id,
        "project": projects.get(webhook.project, webhook.project),
        "owner": webhook.owner,
        "name": webhook.name,
        "url": webhook.url if whole else _server_of(webhook.url),
        "events": list(webhook.kinds or EVENT_KINDS),
        "condition": webhook.condition,
        "made": moment(webhook.made),
        "disabled": moment(webhook.disabled),
        "disabled_why": webhook.disabled_why,
        "failing_since": moment(webhook.failing_since),
        "last_at": moment(webhook.last_at),
        "last_status": webhook.last_status,
        "last_error": webhook.last_error,
        "waiting": webhook.waiting,
        "old_secret_until": moment(webhook.old_until),
    }


def _server_of(url: str) -> str:
    """Scheme and host of a URL that was taken once, whatever is allowed now."""
    try:
        return f"{Destinations(http=True).read_url(url).shown}/…"
    except Refusal:
        return f"{url.partition('://')[0]}://…"


class DeliveryView(View):
    """What a webhook is told, and whether it has arrived."""

    id: str = Field(description="The header `webhook-id`, the same at each try.")
    event: str = Field(examples=["job.succeeded"])
    job: str | None
    made: datetime
    state: DeliveryState
    attempts: int
    next_at: datetime | None = Field(description="The next try, of a waiting one.")
    last_at: datetime | None
    last_status: int | None = Field(description="The status of the last answer.")
    last_error: str | None
    ended: datetime | None

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryView:
        """A delivery as the store keeps it."""
        made = moment(delivery.made)
        assert made is not None
        return cls(
            id=delivery.id,
            event=delivery.kind,
            job=delivery.job,
            made=made,
            state=delivery.state,
            attempts=delivery.attempts,
            next_at=moment(delivery.next_at),
            last_at=moment(delivery.last_at),
            last_status=delivery.last_status,
            last_error=delivery.last_error,
            ended=moment(delivery.ended),
        )


class DeliveryPage(View):
    """Part of a webhook's deliveries, the newest first."""

    items: list[DeliveryView]
    cursor: str | None = Field(description="Gives the next page; null at the end.")
    total: int
