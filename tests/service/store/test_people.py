"""People: tokens that end, sessions that end with them, projects, and no secret that is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from evomerge.errors import StorageError, hide_secrets
from evomerge.service.database.engine import Database, now
from evomerge.service.store import audit, people
from evomerge.service.store.people import Project, Token
from evomerge.service.store.refusals import Conflict, NotFound, Refusal
from tests.service.jobs import ADMIN


def token(database: Database, **changes: object) -> tuple[Token, str]:
    usual = {"name": "laptop", "person": "ann", "role": "runner", "who": ADMIN}
    return people.make_token(database, **{**usual, **changes})  # type: ignore[arg-type]


def in_s(database: Database, seconds: float) -> float:
    with database.read() as session:
        return now(session) + seconds


def test_a_token_is_known_by_its_secret_alone(database: Database, project: Project) -> None:
    made, secret = token(database, projects=[project.id])
    found = people.token_of(database, secret)
    assert found is not None
    assert replace(found, last_used=None) == made
    assert found.scope == frozenset({project.id})
    for wrong in ("", secret[:-1], secret + "x", made.id, "\0", "\ud800"):
        assert people.token_of(database, wrong) is None


def test_a_secret_is_kept_nowhere_and_hidden_in_texts(database: Database) -> None:
    made, secret = token(database)
    _, cookie = people.make_session(database, made, lasts_s=60.0, who=ADMIN)
    assert secret not in hide_secrets(f"the token {secret} was refused")
    with database.read() as session:
        for table in ("token", "session", "audit"):
            for row in session.execute(text(f"select * from {table}")):
                assert secret not in str(row)
                assert cookie not in str(row)


def test_an_expired_or_revoked_token_ends_with_its_sessions(database: Database) -> None:
    made, secret = token(database, expires=in_s(database, 3600.0))
    session, cookie = people.make_session(database, made, lasts_s=1e6, who=ADMIN)
    assert session.expires == made.expires
    assert people.session_of(database, cookie) is not None
    with database.write() as transaction:
        transaction.execute(text("update token set expires = 1"))
    assert people.token_of(database, secret) is None
    assert people.session_of(database, cookie) is None
    with database.write() as transaction:
        transaction.execute(text("update token set expires = null"))
    assert people.session_of(database, cookie) is not None
    revoked = people.revoke(database, made.id, who=ADMIN)
    assert revoked.revoked is not None
    assert people.revoke(database, made.id, who=ADMIN) == revoked
    assert people.token_of(database, secret) is None
    assert people.session_of(database, cookie) is None
    with pytest.raises(NotFound):
        people.make_session(database, made, lasts_s=60.0, who=ADMIN)
    with pytest.raises(NotFound):
        people.revoke(database, "nothing", who=ADMIN)


def test_a_session_ends(database: Database) -> None:
    made, _ = token(database)
    _, cookie = people.make_session(database, made, lasts_s=60.0, who=ADMIN)
    _, late = people.make_session(database, made, lasts_s=-1.0, who=ADMIN)
    assert people.session_of(database, late) is None
    people.end_session(database, cookie, who=ADMIN)
    people.end_session(database, cookie, who=ADMIN)
    assert people.session_of(database, cookie) is None


def test_an_admin_is_missing_until_one_can_be_used(database: Database) -> None:
    token(database)
    assert not people.has_admin(database)
    made, _ = token(database, role="admin")
    assert people.has_admin(database)
    people.revoke(database, made.id, who=ADMIN)
    assert not people.has_admin(database)


def test_of_servers_that_start_at_once_one_makes_the_first_admin(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = people.make_first_admin(database, project="default", who=ADMIN)
    assert secret is not None and people.token_of(database, secret) is not None
    # The other looked before there was one.
    monkeypatch.setattr(people, "has_admin", lambda _db: False)
    assert people.make_first_admin(database, project="default", who=ADMIN) is None
    assert [each.name for each in people.projects(database)] == ["default"]
    assert len(people.tokens(database)) == 1


def test_projects_have_one_name_each_and_are_seen_by_who_may(database: Database) -> None:
    first, second = (people.make_project(database, name, who=ADMIN) for name in ("b", "a"))
    assert [each.name for each in people.projects(database)] == ["a", "b"]
    assert people.projects(database, scope=frozenset({first.id})) == (first,)
    assert people.project_named(database, "b") == people.project_named(database, first.id) == first
    with pytest.raises(NotFound):
        people.project_named(database, "b", scope=frozenset({second.id}))
    with pytest.raises(Conflict, match="there is one already"):
        people.make_project(database, "b", who=ADMIN)
    for name in ("", " b", "a\0", "x" * 101):
        with pytest.raises(Refusal):
            people.make_project(database, name, who=ADMIN)


@pytest.mark.parametrize(
    ("field", "value"),
    [("role", "owner"), ("person", ""), ("name", "a\nb"), ("expires", 1.0), ("expires", 1e300)],
)
def test_a_token_that_cannot_be_made_is_refused_with_its_field(
    database: Database, field: str, value: object
) -> None:
    with pytest.raises(Refusal) as caught:
        token(database, **{field: value})
    assert caught.value.field == field
    assert people.tokens(database) == ()


def test_every_act_is_in_the_audit_log(database: Database, project: Project) -> None:
    with pytest.raises(NotFound):
        token(database, projects=["nothing"])
    made, _ = token(database)
    _, cookie = people.make_session(database, made, lasts_s=60.0, who=ADMIN)
    people.end_session(database, cookie, who=ADMIN)
    people.revoke(database, made.id, who=ADMIN)
    page = audit.find(database, limit=3)
    assert [entry.act for entry in page.items] == ["token.revoke", "session.end", "session.begin"]
    rest = audit.find(database, limit=3, cursor=page.cursor)
    assert [entry.act for entry in rest.items] == ["token.make", "project.make"]
    assert rest.cursor is None
    assert audit.find(database, act="token.make", who="admin").total == 1
    assert audit.find(database, scope=frozenset({project.id})).total == 1


def test_a_token_is_known_where_its_use_cannot_be_noted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, secret = token(database)

    def full(_database: Database) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(Database, "write", full)
    found = people.token_of(database, secret)
    assert found is not None
    assert (found.id, found.last_used) == (made.id, None)
