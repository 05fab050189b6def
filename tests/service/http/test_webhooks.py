"""The routes of webhooks: who may what, what is shown, and what never is."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import pytest

from evomerge.service.http.server import log_try
from evomerge.service.webhooks import deliveries, subscriptions
from evomerge.service.webhooks.deliveries import Answer
from evomerge.service.webhooks.kinds import EVENT_KINDS
from evomerge.service.webhooks.sender import Try
from tests.service.http.house import URL, House

HOOK = "https://hooks.example.com:8443/services/T0/a-secret-path"


def made(house: House, **changes: Any) -> dict[str, Any]:
    answer = house.post("/webhooks", {"url": HOOK, "name": "chat", **changes})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_secret_is_shown_once_and_a_path_to_nobody_who_only_reads(house: House) -> None:
    webhook = made(house, events=["job.failed", "job.queued"])
    secret = webhook.pop("secret")
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret)
    assert (webhook["events"], webhook["owner"]) == (["job.queued", "job.failed"], "runner")
    assert (webhook["condition"], webhook["project"]) == ("active", "default")
    path = f"/webhooks/{webhook['id']}"
    assert house.get(path, "runner").json() == webhook
    seen = {**webhook, "url": "https://hooks.example.com:8443/…"}
    assert house.get(path, "viewer").json() == seen
    assert house.get("/webhooks", "viewer").json() == [seen]
    turned = house.post(f"{path}/rotate", {"overlap_s": 60}).json()
    assert turned.pop("secret") != secret
    assert turned["old_secret_until"] is not None
    for who in ("viewer", "runner", "admin"):
        for where in (path, "/webhooks", f"{path}/deliveries"):
            assert "whsec_" not in house.get(where, who).text


def test_a_webhook_of_another_project_does_not_exist(house: House) -> None:
    webhook = made(house)
    path = f"/webhooks/{webhook['id']}"
    unknown = house.get("/webhooks/waaaaaaaaaaaaaaa", "other").json()
    for method, where, body in (
        ("GET", path, None),
        ("PATCH", path, {"enabled": False}),
        ("DELETE", path, None),
        ("POST", f"{path}/rotate", {}),
        ("POST", f"{path}/test", None),
        ("GET", f"{path}/deliveries", None),
    ):
        answer = (
            house.ask(method, where, "other", json=body)
            if body is not None
            else house.ask(method, where, "other")
        )
        assert answer.status_code == 404, (method, where)
        assert answer.json()["title"] == unknown["title"]
    assert house.get("/webhooks", "other").json() == []
    assert house.get("/webhooks", "other", params={"project": "default"}).status_code == 404
    assert house.post("/webhooks", {"url": HOOK, "project": "other"}).status_code == 404
    assert house.get(path).json()["condition"] == "active"


def test_webhooks_that_outlive_a_token_are_told_and_can_be_deleted(house: House) -> None:
    elsewhere = house.post("/webhooks", {"url": HOOK}, "other").json()["id"]
    left = [made(house, name=name)["id"] for name in ("chat", "pager")]
    [token] = house.get("/tokens", "scoped", params={"person": "runner"}).json()
    revoked = house.ask("DELETE", f"/tokens/{token['id']}", "scoped").json()
    assert revoked["revoked"] is not None
    assert [each["id"] for each in revoked["webhooks"]] == left
    assert "whsec_" not in json.dumps(revoked)
    owned = {"owner": "runner"}
    assert [each["id"] for each in house.get("/webhooks", params=owned).json()] == left
    assert house.get("/webhooks", params={"owner": "viewer"}).json() == []
    assert house.ask("DELETE", "/webhooks", "other", params=owned).status_code == 403
    assert house.ask("DELETE", "/webhooks", "scoped").status_code == 422  # of nobody: of all?
    theirs = house.ask("DELETE", "/webhooks", "scoped", params={"owner": "other"})
    assert theirs.json() == []  # of another project
    deleted = house.ask("DELETE", "/webhooks", "scoped", params=owned)
    assert [each["id"] for each in deleted.json()] == left
    assert [each["id"] for each in house.get("/webhooks", "admin").json()] == [elsewhere]
    acts = house.get("/audit", "admin", params={"act": "webhook.delete"}).json()["items"]
    assert {(act["what"], act["detail"]["owner"]) for act in acts} == {(i, "runner") for i in left}


def test_a_viewer_changes_no_webhook(house: House) -> None:
    path = f"/webhooks/{made(house)['id']}"
    assert house.post("/webhooks", {"url": HOOK}, "viewer").status_code == 403
    for where in ("rotate", "test"):
        assert house.post(f"{path}/{where}", who="viewer").status_code == 403
    assert house.ask("PATCH", path, "viewer", json={"enabled": False}).status_code == 403
    assert house.ask("DELETE", path, "viewer").status_code == 403
    assert house.ask("DELETE", path, "scoped").status_code == 204


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"url": "http://hooks.example.com/a-secret-path"}, "url"),
        ({"url": "https://127.0.0.1/a-secret-path"}, "url"),
        ({"url": "https://u:a-secret-path@hooks.example.com/"}, "url"),
        ({"url": "a-secret-path" * 200}, "url"),
        ({"url": ["a-secret-path"]}, "url"),
        ({"events": ["job.exploded"]}, "events.0"),
        ({"name": "x" * 201}, "name"),
        ({"secret": "whsec_a-secret-path"}, "secret"),
    ],
)
def test_a_bad_webhook_is_refused_with_its_field_and_without_its_secrets(
    house: House, changes: dict[str, Any], field: str
) -> None:
    answer = house.post("/webhooks", {"url": HOOK, **changes})
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert "a-secret-path" not in answer.text
    webhook = made(house)
    if "secret" not in changes:
        again = house.ask("PATCH", f"/webhooks/{webhook['id']}", json=changes)
        assert (again.status_code, again.json()["field"]) == (422, field)
        kept = house.get(f"/webhooks/{webhook['id']}", "runner").json()
        assert kept["url"] == HOOK


def test_a_project_has_so_many_webhooks_and_no_more(house: House) -> None:
    for _ in range(subscriptions.MOST_WEBHOOKS):
        made(house)
    refused = house.post("/webhooks", {"url": HOOK})
    assert (refused.status_code, refused.json()["field"]) == (429, "project")
    answer = house.post("/webhooks", {"url": HOOK}, "other")
    assert answer.status_code == 201


def test_deliveries_are_listed_in_pages(house: House) -> None:
    webhook = made(house)
    path = f"/webhooks/{webhook['id']}"
    ids = [house.post(f"{path}/test").json()["id"] for _ in range(5)]
    house.job()
    [first, *_] = deliveries.claim(house.database, most=1, most_each=1)
    deliveries.settle(house.database, first, Answer(status=500, error="answered 500"))
    seen: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = house.get(
            f"{path}/deliveries",
            params={"limit": 2, "cursor": cursor or ""} if cursor else {"limit": 2},
        ).json()
        assert page["total"] == 6
        seen += page["items"]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert len({each["id"] for each in seen}) == 6
    assert [each["event"] for each in seen] == ["job.queued", *["webhook.test"] * 5]
    [tried] = [each for each in seen if each["attempts"]]
    assert tried["id"] in ids
    assert (tried["state"], tried["last_status"], tried["last_error"]) == (
        "waiting",
        500,
        "answered 500",
    )
    assert tried["next_at"] > tried["last_at"]
    assert house.get(path).json()["condition"] == "failing"
    house.ask("PATCH", path, json={"enabled": False})
    listed = house.get(f"{path}/deliveries", params={"state": "failed"}).json()
    assert listed["total"] == 6
    assert house.post(f"{path}/test").status_code == 409
    assert house.get(f"{path}/deliveries", params={"cursor": "x"}).status_code == 422


def test_acts_are_in_the_audit_log_and_no_secret_is_anywhere(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    webhook = made(house)
    path = f"/webhooks/{webhook['id']}"
    turned = house.post(f"{path}/rotate").json()["secret"]
    house.ask("PATCH", path, json={"url": f"{HOOK}/2", "events": ["job.lost"]})
    house.post(f"{path}/test")
    house.ask("DELETE", path)
    acts = house.get("/audit", "admin", params={"what": webhook["id"]}).json()
    assert [act["act"] for act in acts["items"]] == [
        *("webhook.delete", "webhook.test", "webhook.edit", "webhook.rotate", "webhook.make")
    ]
    assert {act["address"] for act in acts["items"]} == {"testclient"}
    assert acts["items"][-1]["detail"]["to"] == "https://hooks.example.com:8443"
    captured = capsys.readouterr()
    everything = json.dumps(acts) + captured.out + captured.err
    for hidden in (webhook["secret"], turned, "a-secret-path"):
        assert hidden not in everything


def test_numbers_and_lines_tell_how_deliveries_end(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    webhook = made(house)
    house.post(f"/webhooks/{webhook['id']}/test")

    def number(name: str) -> float:
        text = house.get(f"{URL}/metrics", "admin").text
        [value] = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE) or ["0"]
        return float(value)

    assert number("evomerge_webhook_waiting") == 1
    before = number('evomerge_webhook_tries_total{outcome="retried"}')
    [mine] = deliveries.claim(house.database, most=1, most_each=1)
    deliveries.settle(house.database, mine, Answer(error="no answer within 10 s"))
    log_try(
        Try(
            delivery=mine.id,
            webhook=mine.webhook,
            job=None,
            kind=mine.kind,
            attempt=1,
            outcome="retried",
            status=None,
            error="no answer within 10 s",
            seconds=10.0,
            next_s=11.0,
        )
    )
    assert number('evomerge_webhook_tries_total{outcome="retried"}') == before + 1
    assert number('evomerge_webhooks_down{condition="failing"}') == 1
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    [line] = [line for line in lines if line["event"] == "webhook"]
    assert (line["delivery"], line["outcome"], line["next_s"]) == (mine.id, "retried", 11.0)
    assert line["level"] == "warning"


def test_the_page_offers_the_events_that_there_are() -> None:
    script = files("evomerge.service.page") / "static/app/webhooks.js"
    listed = script.read_text(encoding="utf-8").partition("const EVENTS = [")[2].partition("]")[0]
    assert re.findall(r'"([^"]+)"', listed) == list(EVENT_KINDS)
