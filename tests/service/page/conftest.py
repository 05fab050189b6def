"""One browser and one server process for the tests of the page, with searches that have ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from starlette.testclient import TestClient

from evomerge.service.database.engine import open_database
from evomerge.service.database.tables import JobRow
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import people
from evomerge.service.store.job import Job
from tests.service.client.test_real_server import served
from tests.service.http.conftest import house, template
from tests.service.http.house import MODELS, WEB, House, prepare
from tests.service.page.browser import Seat, browser, seat
from tests.service.page.ended import Ended

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["chromium", "desk", "ended", "house", "office", "own_desk", "rounds", "site", "template"]


REASON = "task sums: unknown; check the name"


@dataclass(frozen=True, kw_only=True)
class Site:
    """A server with jobs. jobs: what each is -> id. tokens: role -> secret. house: its data."""

    url: str
    jobs: dict[str, str]
    tokens: dict[str, str]
    house: House


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    # Not for the session: its event loop would be in the way of other tests in this process.
    with browser() as opened:
        yield opened


@pytest.fixture(scope="package")
def site(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that runs nothing, on searches that have ended."""
    data = prepare(tmp_path_factory.mktemp("page") / "data")
    made = _house(data)
    jobs = {"weights": made.searched().id, "front": made.searched(kind="front").id}
    jobs["answered"] = made.answered().id
    jobs["waiting"] = made.job(name="waiting").id
    jobs["second"] = made.job(name="second").id
    jobs["paused"] = made.job(name="paused").id
    jobs["moved"] = made.job(name="moved").id
    jobs["failed"] = _failed(made)
    card = b"---\npipeline_tag: text-generation\n---\n"
    files = {"model.safetensors": bytes(5000), "recipe.yaml": b"merge: 1\n", "README.md": card}
    jobs["export"] = made.exported(files).id
    with served(data, "--port", "0", "--slots", "0", "--allow-source", str(MODELS)) as (_, lines):
        url = lines[-1].removeprefix("listening on ")
        yield Site(url=url, jobs=jobs, tokens=dict(made.tokens), house=made)
    made.database.close()


@pytest.fixture(scope="package")
def ended(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Makes jobs that have ended with real results."""
    return Ended(site.house, tmp_path_factory.mktemp("ended"))


@pytest.fixture(scope="package")
def rounds(ended: Ended, site: Site) -> dict[str, Job]:
    """Three searches, each with what an export of the one before wrote among its sources."""
    made: dict[str, Job] = {}
    first = str(ended.models / "first")
    made["round 1"] = ended.search(first, str(ended.models / "second"), name="round-1")
    made["export 1"] = ended.export(made["round 1"])
    made["round 2"] = ended.search(f"job:{made['export 1'].id}", first, name="round-2")
    made["export 2"] = ended.export(made["round 2"], trial="g0001-i002")
    made["round 3"] = ended.search(
        *(f"job:{made[name].id}" for name in ("export 2", "export 1")), name="round-3"
    )
    site.jobs.update({name: job.id for name, job in made.items()})
    return made


@pytest.fixture(scope="package")
def _shared_desk(chromium: Browser, site: Site) -> Iterator[Seat]:
    with seat(chromium, site.url, site.tokens["runner"]) as taken:
        yield taken


@pytest.fixture
def desk(_shared_desk: Seat) -> Iterator[Seat]:
    """A page of a runner, loaded anew, in a session that tests share: to sign in takes long."""
    _shared_desk.begin()
    yield _shared_desk
    _shared_desk.page.goto("about:blank")  # else it goes on watching a job


@pytest.fixture
def own_desk(chromium: Browser, site: Site) -> Iterator[Seat]:
    """A page of a runner with a session of its own, for what changes more than the page."""
    with seat(chromium, site.url, site.tokens["runner"]) as taken:
        yield taken


@pytest.fixture
def office(chromium: Browser, site: Site) -> Iterator[Seat]:
    """A page of an admin."""
    with seat(chromium, site.url, site.tokens["admin"]) as taken:
        yield taken


def _failed(house: House) -> str:
    job = house.job(name="failed", state="failed")
    with house.database.write() as session:
        row = session.get_one(JobRow, job.id)
        row.cause, row.message = "input", REASON
    return job.id


def _house(data: Path) -> House:
    settings = ServiceSettings(data=data, slots=0, source_folders=(MODELS,))
    database = open_database(settings.database_url)
    names = (data / "tokens").read_text().split()
    return House(
        settings=settings,
        database=database,
        web=WEB,
        client=cast(TestClient, None),
        tokens=dict(zip(names[::2], names[1::2], strict=True)),
        projects={each.name: each.id for each in people.projects(database)},
    )
