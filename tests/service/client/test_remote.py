"""The Python client and the command line against a service in this process."""

from __future__ import annotations

import hashlib
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from typer.testing import CliRunner

import evomerge
from evomerge.cli import app as local
from evomerge.cli import remote as commands
from evomerge.errors import InputError, StorageError
from evomerge.evaluate import CandidateKey
from evomerge.search import CandidateDone, Note
from evomerge.service.client.connection import ServerError, find_token, keep_token
from evomerge.service.client.job import StateChanged
from tests.service.client.reach import server_of
from tests.service.http.house import JOB, URL, House
from tests.service.http.tables import Process

pytestmark = pytest.mark.usefixtures("alone")


def test_a_search_is_submitted_watched_and_stopped(house: House, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(JOB))
    with server_of(house) as server:
        job = server.search(file, set={"budget.candidates": 5}, priority=2)
        assert (job.state, job.facts["priority"]) == ("queued", 2)
        assert job.refresh().facts["request"]["budget"]["candidates"] == 5
        assert [each.id for each in server.jobs(state="queued")] == [job.id]
        assert job.pause().state == "paused"
        assert job.resume(set={"budget.candidates": 6}).state == "queued"
        assert server.job(job.id).cancel().state == "cancelled"
        events = [event.name for event in job.watch()]
        assert set(events) == {"state"}
        with pytest.raises(InputError, match="cancelled: it was stopped"):
            job.refresh().result()
        assert job.retry().state == "queued"


def test_events_are_those_of_a_search(house: House) -> None:
    job = house.job(state="running")
    done = {
        "event": "candidate_done",
        "phase": "search",
        "candidate": "g0001-i002",
        "label": "g0001-i002",
        "score": 0.5,
        "means": {"t": {"acc": 0.5}},
        "items": 3,
        "failure": None,
        "merge_s": 0.1,
        "evaluate_s": 0.2,
    }
    house.tell(job.id, [{"event": "note", "text": "hello"}], name="note")
    house.tell(job.id, [done], name="candidate_done")
    house.tell(job.id, [{"event": "of a later version"}], name="later")
    house.set_state(job.id, "failed")
    events = list(server_of(house).job(job.id).watch())
    assert [event for event in events if not isinstance(event, StateChanged)] == [
        Note(text="hello"),
        CandidateDone(
            phase="search",
            candidate=CandidateKey.parse("g0001-i002"),
            label="g0001-i002",
            score=0.5,
            means={"t": {"acc": 0.5}},
            items=3,
            failure=None,
            merge_s=0.1,
            evaluate_s=0.2,
        ),
    ]


class Breaking(httpx2.BaseTransport):
    """Breaks the first answers of a path off in the middle."""

    def __init__(self, inner: httpx2.BaseTransport, part: str, times: int) -> None:
        self._inner, self._part, self.left = inner, part, times

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = self._inner.handle_request(request)
        if self._part not in str(request.url) or not self.left:
            return answer
        self.left -= 1
        body = b"".join(answer.stream)  # type: ignore[arg-type]

        def half() -> Iterator[bytes]:
            yield body[: len(body) // 2]
            raise httpx2.ReadError("the connection broke")

        return httpx2.Response(answer.status_code, headers=answer.headers, content=half())


def test_a_broken_stream_goes_on_without_a_loss_or_a_double(house: House) -> None:
    job = house.job(state="running")
    house.tell(job.id, [{"event": "note", "text": str(n)} for n in range(40)], name="note")
    house.set_state(job.id, "cancelled")
    transport = Breaking(house.client._transport, "/events", 4)
    events = list(server_of(house, transport=transport).job(job.id).watch())
    texts = [event.text for event in events if isinstance(event, Note)]
    assert texts == [str(n) for n in range(40)]
    assert transport.left == 0


def test_a_job_is_waited_for(house: House) -> None:
    job = house.job(state="running")
    timer = threading.Timer(0.2, house.set_state, (job.id, "failed"))
    timer.start()
    assert server_of(house).job(job.id).wait().state == "failed"
    timer.join()


FILES = {"model.safetensors": bytes(range(256)) * 4000, "a b/ü.txt": b"text", "empty": b""}


def test_an_export_is_downloaded_over_breaks_and_checked(house: House, tmp_path: Path) -> None:
    job = house.exported(FILES)
    transport = Breaking(house.client._transport, "model.safetensors", 3)
    out = tmp_path / "out"
    server_of(house, transport=transport).job(job.id).download(out)
    found = {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file()
    }
    assert found == FILES
    assert transport.left == 0
    with pytest.raises(StorageError, match="exists already"):
        server_of(house).job(job.id).download(out)


class Lying(httpx2.BaseTransport):
    """A server that names another file, or another content."""

    def __init__(self, inner: httpx2.BaseTransport, path: str, sha256: str) -> None:
        self._inner = inner
        self._file = {"path": path, "size_bytes": 4, "sha256": sha256}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/files"):
            return httpx2.Response(200, json={"files": [self._file], "size_bytes": 4})
        if "/files/" in request.url.path:
            return httpx2.Response(200, content=b"evil")
        return self._inner.handle_request(request)


@pytest.mark.parametrize("path", ["../evil", "/tmp/evil", "a/../../evil", "", "a\0b"])
def test_a_server_cannot_write_outside_of_the_folder(
    house: House, tmp_path: Path, path: str
) -> None:
    job = house.exported(FILES)
    digest = hashlib.sha256(b"evil").hexdigest()
    server = server_of(house, transport=Lying(house.client._transport, path, digest))
    with pytest.raises(ServerError, match="outside"):
        server.job(job.id).download(tmp_path / "down" / "out")
    assert list((tmp_path / "down").iterdir()) == []


def test_a_download_that_is_not_what_the_server_listed_is_refused(
    house: House, tmp_path: Path
) -> None:
    job = house.exported(FILES)
    server = server_of(house, transport=Lying(house.client._transport, "a", "0" * 64))
    with pytest.raises(ServerError, match="not what the server has"):
        server.job(job.id).download(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Webhooks.


def test_webhooks_are_made_changed_tested_and_deleted(house: House) -> None:
    with server_of(house) as server:
        made = server.make_webhook(
            "https://hooks.example.com/a", events=["job.failed"], name="chat"
        )
        assert made.secret is not None
        assert made.secret.startswith("whsec_")
        assert made.secret not in repr(made)
        [listed] = server.webhooks(project="default")
        assert (listed.id, listed.secret, listed.facts) == (made.id, None, made.facts)
        assert made.change(events=[]).facts["events"][0] == "job.queued"
        assert made.facts["name"] == "chat"
        test = made.test()
        assert [each["id"] for each in made.deliveries(state="waiting")] == [test["id"]]
        assert made.disable().condition == "disabled"
        assert [each["state"] for each in made.deliveries()] == ["failed"]
        assert made.enable().condition == "active"
        before = made.secret
        assert made.rotate(overlap_s=0.0) == made.secret != before
        assert server.webhook(made.id).refresh().facts == made.facts
        made.delete()
        assert server.webhooks() == []
        with pytest.raises(InputError, match="url: port 22 is not of a web server"):
            server.make_webhook("https://hooks.example.com:22/")


# The token.


def test_a_token_is_kept_for_its_owner_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    path = keep_token("https://a.example/", "first")
    keep_token("https://b.example", "second")
    keep_token("https://a.example", "third")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert find_token("https://a.example") == "third"
    assert find_token("https://b.example/") == "second"
    with pytest.raises(InputError, match="no token for this server"):
        find_token("https://c.example")
    path.chmod(0o640)
    with pytest.raises(InputError, match="chmod 600"):
        find_token("https://a.example")
    monkeypatch.setenv("EVOMERGE_TOKEN", "fourth")
    assert find_token("https://a.example") == "fourth"


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://a", "http://", "http://u:p@a", "http://a?token=x", "http://a:b"]
)
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(InputError):
        evomerge.connect(url, token="t")


# The command line.


def test_the_command_line_submits_lists_and_stops(house: House, run: Any, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(JOB))
    made = run("search", str(file), "--detach", "--set", "budget.candidates=5")
    assert made.exit_code == 0, made.output
    job = made.stdout.strip()
    assert run("list").stdout.startswith(f"{job}  queued  search  runner  kana")
    assert "queued" in run("status", job).stdout
    for act, state in (("pause", "paused"), ("cancel", "cancelled"), ("retry", "queued")):
        assert run(act, job).stdout.split()[1] == state
    assert run("cancel", job).exit_code == 0
    ended = run("watch", job)
    assert ended.exit_code == 2
    assert f"{job}: cancelled: it was stopped" in ended.stderr
    assert run("log", job).exit_code == 0


def test_the_command_line_ends_as_a_search_here_does(house: House, run: Any) -> None:
    job = house.searched()
    ended = run("watch", job.id)
    here = evomerge.open_run(house.settings.run_dir(job.id))
    assert ended.exit_code == (0 if here.better else 3)
    assert here.headline in ended.stdout
    assert f"next: evomerge --server {URL} export {job.id} --out DIR" in ended.stdout
    assert here.headline in run("status", job.id).stdout


@pytest.mark.parametrize("path", ["/api/v1/jobs/ID", "/jobs/ID/", "/#/job/ID", "/#/job/ID/log?x"])
def test_a_job_is_watched_by_its_address(house: House, run: Any, path: str) -> None:
    job = house.searched()
    here = evomerge.open_run(house.settings.run_dir(job.id))
    ended = CliRunner().invoke(local, ["watch", URL + path.replace("ID", job.id)])
    assert ended.exit_code == (0 if here.better else 3), ended.output
    assert here.headline in ended.stdout
    assert f"next: evomerge --server {URL} export {job.id} --out DIR" in ended.stdout


@pytest.mark.parametrize(
    "url", [URL, f"{URL}/api/v1/jobs/", "jx3k5q7n2a4b6c8d", "ftp://a/jobs/jx3k5q7n2a4b6c8d"]
)
def test_what_is_no_address_of_a_job_is_one_line(url: str) -> None:
    ended = CliRunner().invoke(local, ["watch", url])
    assert ended.exit_code == 2
    assert "no address of a job; copy it from the page" in ended.stderr


def test_bad_input_is_the_line_of_the_server_and_exit_code_2(
    house: House, run: Any, tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    bad = {**JOB, "models": {"base": "/etc", "sources": ["base"]}}
    file.write_text(yaml.safe_dump(bad))
    for arguments in (("search", str(file)), ("status", "jnothing"), ("export", "j", "--out", "o")):
        ended = run(*arguments)
        assert ended.exit_code == 2
        # The server of this process logs there too, in JSON.
        [line] = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
        assert line.startswith("evomerge: ")
    assert "models.base: /etc: not a model" in run("search", str(file)).stderr


def test_login_keeps_a_token_that_works(
    house: House, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVOMERGE_TOKEN")
    refused = run("login", input="evm_wrong\n")
    assert refused.exit_code == 2
    assert "no token for this server" in run("list").stderr
    kept = run("login", input=f"{house.tokens['viewer']}\n")
    assert kept.stdout.startswith("viewer, viewer: kept in ")
    assert house.tokens["viewer"] not in kept.output
    assert run("list").exit_code == 0


def test_without_the_option_the_commands_are_those_of_here() -> None:
    assert commands.take_server(["search", "job.yaml"]) is None
    assert commands.take_server([]) is None
    assert commands.take_server(["--server=http://a", "list"]) == ["list"]


def test_a_table_becomes_a_task_over_the_client_and_the_command_line(
    house: House, process: Process, run: Any, tmp_path: Path
) -> None:
    file = tmp_path / "our sums.csv"
    file.write_bytes(b"question,answer\n" + b"1 + 1?,2\n" * 300_000)  # several blocks
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with server_of(house) as server:
        upload = server.upload(file, delimiter="\t", header=False)
        assert (upload["sha256"], upload["name"]) == (digest, "our sums.csv")
        assert (upload["delimiter"], upload["header"]) == ("tab", False)
        made = server.make_task(upload, name="ours", kind="exact", stop=[";"])
        assert process.asked["stop"] == [";"] and Path(made["folder"]).is_dir()
        assert [task["upload"] for task in server.tasks()] == [upload["id"]]
        assert server.delete_upload(upload["id"])["tasks"] == ["ours"]
        server.delete_task("ours")
        assert [*server.tasks(), *server.uploads()] == []
        for wrong, words in ((tmp_path / "none.csv", "cannot be read"), (tmp_path, "regular file")):
            with pytest.raises(InputError, match=words):
                server.upload(wrong)

    done = run("task", "from-file", str(file), "--choices", "a,b", "--stop", "\\n", "--json")
    assert done.exit_code == 0, done.stderr
    assert process.asked["choices"] == ["a", "b"] and process.asked["stop"] == ["\n"]
    assert process.asked["name"] == "our_sums"
    [upload] = server_of(house).uploads()
    assert run("task", "list").stdout.startswith("our_sums  default  exact_match  1  our sums.csv")
    refused = run("task", "from-file", str(file))
    assert refused.exit_code == 2
    assert "evomerge: name: our_sums: the project has a task of this name" in refused.stderr
    assert run("task", "uploads").stdout.count("\n") == 1  # of the refused one nothing is kept
    gone = run("task", "delete-upload", upload["id"])
    assert gone.stdout == "deleted: our sums.csv; tasks that stay: our_sums\n"
    assert run("task", "delete", "our_sums").stdout == "deleted: our_sums\n"
