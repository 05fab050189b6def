"""Webhooks: made, listed, changed, tested, deleted; their secrets, and what has arrived."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Response

from evomerge.service.http.callers import API, Admin, Caller, Runner, Viewer
from evomerge.service.http.here import Here, Service
from evomerge.service.http.problems import responses
from evomerge.service.http.webhook_models import (
    DeliveryPage,
    DeliveryView,
    NewWebhook,
    Rotation,
    WebhookChanges,
    WebhookView,
    WebhookWithSecret,
    with_secret,
)
from evomerge.service.store.refusals import NotFound
from evomerge.service.webhooks import deliveries, subscriptions
from evomerge.service.webhooks.deliveries import DeliveryState
from evomerge.service.webhooks.subscriptions import Changes, Webhook

router = APIRouter(prefix=f"{API}/webhooks", tags=["webhooks"])

READING = (401, 404, 421, 422, 429, 503)
CHANGING = (400, 401, 403, 404, 409, 413, 421, 422, 429, 503)

WebhookId = Annotated[str, Path(max_length=64, description="Id of a webhook.")]


def _view(here: Service, caller: Caller, webhook: Webhook) -> WebhookView:
    return WebhookView.of(webhook, here.project_names(), whole=caller.may("runner"))


@router.post("", status_code=201, summary="Make a webhook", responses=responses(*CHANGING))
def make_webhook(
    new: NewWebhook, caller: Runner, here: Here, response: Response
) -> WebhookWithSecret:
    """Tell an address of a project's jobs from now on.

    The secret that signs what is sent is in this answer, and is not shown again.
    """
    webhook, secret = subscriptions.make(
        here.database,
        project=here.project_id(new.project, caller.scope),
        url=new.url,
        destinations=here.web.webhooks,
        name=new.name,
        kinds=new.events,
        who=caller.who,
    )
    response.headers["Location"] = f"{API}/webhooks/{webhook.id}"
    return with_secret(webhook, secret, here.project_names())


@router.get("", summary="Webhooks", responses=responses(*READING))
def list_webhooks(
    caller: Viewer,
    here: Here,
    project: Annotated[
        str | None, Query(max_length=100, description="Name or id of a project.")
    ] = None,
    owner: Annotated[
        str | None, Query(max_length=100, description="The person who made them.")
    ] = None,
) -> list[WebhookView]:
    """Webhooks of the caller's projects without their secrets, the oldest first."""
    wanted = None if project is None else here.project_id(project, caller.scope)
    names, whole = here.project_names(), caller.may("runner")
    listed = subscriptions.find_webhooks(
        here.database, project=wanted, owner=owner, scope=caller.scope
    )
    return [WebhookView.of(each, names, whole=whole) for each in listed]


@router.delete(
    "",
    summary="Delete a person's webhooks",
    responses=responses(401, 403, 421, 422, 429, 503),
)
def delete_webhooks(
    caller: Admin,
    here: Here,
    owner: Annotated[
        str, Query(min_length=1, max_length=100, description="The person who made them.")
    ],
) -> list[WebhookView]:
    """Delete all that a person made in the caller's projects, at once and for good.

    The answer has those that were deleted; a token of that person need not exist any more.
    """
    names = here.project_names()
    removed = subscriptions.remove_webhooks(
        here.database, owner=owner, who=caller.who, scope=caller.scope
    )
    return [WebhookView.of(each, names, whole=True) for each in removed]


@router.get("/{webhook_id}", summary="A webhook", responses=responses(*READING))
def read_webhook(webhook_id: WebhookId, caller: Viewer, here: Here) -> WebhookView:
    """A webhook without its secret, and whether what it is told arrives."""
    return _view(here, caller, subscriptions.get(here.database, webhook_id, scope=caller.scope))


@router.patch("/{webhook_id}", summary="Change a webhook", responses=responses(*CHANGING))
def change_webhook(
    webhook_id: WebhookId, changes: WebhookChanges, caller: Runner, here: Here
) -> WebhookView:
    """Change its address, events or name; disable or enable it.

    What waits when it is disabled is not sent, and kept as failed.
    """
    webhook = subscriptions.edit(
        here.database,
        webhook_id,
        Changes(name=changes.name, url=changes.url, kinds=changes.events, enabled=changes.enabled),
        destinations=here.web.webhooks,
        who=caller.who,
        scope=caller.scope,
    )
    return _view(here, caller, webhook)


@router.delete(
    "/{webhook_id}",
    status_code=204,
    summary="Delete a webhook",
    responses=responses(401, 403, 404, 421, 422, 429, 503),
)
def delete_webhook(webhook_id: WebhookId, caller: Runner, here: Here) -> None:
    """Delete a webhook with its secret and its deliveries, at once and for good."""
    subscriptions.remove(here.database, webhook_id, who=caller.who, scope=caller.scope)


@router.post("/{webhook_id}/rotate", summary="Replace its secret", responses=responses(*CHANGING))
def rotate_secret(
    webhook_id: WebhookId,
    caller: Runner,
    here: Here,
    wanted: Annotated[Rotation | None, Body()] = None,
) -> WebhookWithSecret:
    """Make a new secret, which is in this answer and is not shown again.

    For a while what is sent has a signature of each, so that a receiver can change in peace.
    """
    webhook, secret = subscriptions.rotate(
        here.database,
        webhook_id,
        overlap_s=(wanted or Rotation()).overlap_s,
        who=caller.who,
        scope=caller.scope,
    )
    return with_secret(webhook, secret, here.project_names())


@router.post(
    "/{webhook_id}/test", status_code=202, summary="Send a test", responses=responses(*CHANGING)
)
def send_test(webhook_id: WebhookId, caller: Runner, here: Here) -> DeliveryView:
    """Send `webhook.test`, as everything is sent. Its delivery says whether it has arrived."""
    delivery_id = subscriptions.send_test(
        here.database, webhook_id, who=caller.who, scope=caller.scope
    )
    delivery = deliveries.get(here.database, delivery_id)
    if delivery is None:
        raise NotFound(
            "it was deleted meanwhile", field="webhook", value=webhook_id, mend="make it anew"
        )
    return DeliveryView.of(delivery)


@router.get("/{webhook_id}/deliveries", summary="Its deliveries", responses=responses(*READING))
def list_deliveries(
    webhook_id: WebhookId,
    caller: Viewer,
    here: Here,
    state: Annotated[list[DeliveryState] | None, Query(description="One state or more.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> DeliveryPage:
    """What it was told or is to be told, newest first; what ended is kept for a week."""
    subscriptions.get(here.database, webhook_id, scope=caller.scope)
    page = deliveries.find(
        here.database, webhook_id, states=tuple(state or ()), limit=limit, cursor=cursor
    )
    items = [DeliveryView.of(each) for each in page.items]
    return DeliveryPage(items=items, cursor=page.cursor, total=page.total)
