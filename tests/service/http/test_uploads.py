"""Uploads: streamed, checked, counted, listed, deleted; whatever is sent, nothing half is left."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from evomerge.service.database.tables import UploadRow
from evomerge.service.http import table_process
from evomerge.service.http.downloads import digest_header
from evomerge.service.settings import Limits
from evomerge.service.store import audit, upload_files, uploads
from evomerge.service.store.refusals import TooLarge
from evomerge.service.store.uploads import NewUpload
from tests.service.http.house import House, open_house
from tests.service.http.tables import FACTS, TABLE, Process, send


def files(house: House) -> list[Path]:
    return [path for path in house.settings.data.glob("uploads/**/*") if not path.is_dir()]


def test_a_table_is_uploaded_in_pieces_listed_and_deleted(house: House) -> None:
    digest = hashlib.sha256(TABLE).hexdigest()
    pieces = iter([TABLE[:7], b"", TABLE[7:]])
    headers = {"Repr-Digest": digest_header(digest), "Content-Type": "image/png"}
    made = send(house, pieces, "../x.parquet", headers=headers)
    assert made.status_code == 201, made.json()
    facts = made.json()
    assert {key: facts[key] for key in FACTS} == FACTS  # by its content, whatever its name says
    assert (facts["name"], facts["owner"], facts["project"]) == (
        "../x.parquet",
        "runner",
        "default",
    )
    assert (facts["sha256"], facts["size_bytes"], facts["tasks"]) == (digest, len(TABLE), [])
    [file] = files(house)
    folder = house.settings.data / "uploads" / "received" / house.projects["default"]
    assert file == folder / facts["id"] and file.read_bytes() == TABLE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    assert house.get("/uploads?project=default").json()["used_bytes"] == len(TABLE)
    assert house.get(f"/uploads/{facts['id']}").json() == facts
    assert house.ask("DELETE", f"/uploads/{facts['id']}", "viewer").status_code == 403
    for method in ("GET", "DELETE"):
        assert house.ask(method, f"/uploads/{facts['id']}", "other").status_code == 404
    assert house.ask("DELETE", f"/uploads/{facts['id']}").json()["tasks"] == []
    assert house.get(f"/uploads/{facts['id']}").status_code == 404
    assert files(house) == []
    acts = [(each.act, each.what) for each in audit.find(house.database).items][:2]
    assert acts == [("upload.delete", facts["id"]), ("upload.make", facts["id"])]


def test_a_list_has_pages(house: House, process: Process) -> None:
    names = [f"{number}.csv" for number in range(3)]
    for name in names:
        assert send(house, name=name).status_code == 201
    first = house.get("/uploads?limit=2").json()
    rest = house.get(f"/uploads?limit=2&cursor={first['cursor']}").json()
    assert (first["total"], rest["cursor"]) == (3, None)
    assert [each["name"] for each in first["items"] + rest["items"]] == names[::-1]
    assert house.get("/uploads", who="other").json()["items"] == []


@pytest.mark.parametrize("name", ["CON", "..", "a/../../b.csv", "\u3042.csv", "x" * 200])
def test_a_name_is_only_shown(house: House, process: Process, name: str) -> None:
    facts = send(house, name=name).json()
    assert facts["name"] == name
    assert [file.name for file in files(house)] == [facts["id"]]


@pytest.mark.parametrize(
    "name", ["", "a\0.csv", "a\n.csv", "x" * 300, "\u202evsc.exe", "a\u2029.csv"]
)
def test_a_name_that_cannot_be_shown_is_refused(house: House, process: Process, name: str) -> None:
    answer = send(house, name=name)
    assert (answer.status_code, answer.json()["field"]) == (422, "name")
    assert files(house) == []


@pytest.mark.parametrize(
    ("data", "asked", "status", "words"),
    [
        (b"", {}, 422, "the file is empty"),
        (b"PK\x03\x04" + bytes(99), {}, 415, "a spreadsheet or a zip archive"),
        (b"\x1f\x8b" + bytes(99), {}, 415, "compressed"),
        (TABLE, {"who": "viewer"}, 403, "role"),
        (TABLE, {"params": {"project": "other"}}, 404, "project"),
        (TABLE, {"headers": {"Repr-Digest": digest_header("0" * 64)}}, 422, "what came has"),
        (TABLE, {"headers": {"Repr-Digest": "sha-256=:x:"}}, 422, "base64"),
        (TABLE, {"headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 415, "a form"),
        (TABLE, {"headers": {"Content-Encoding": "gzip"}}, 415, "packed"),
    ],
)
def test_what_cannot_be_taken_is_refused_and_leaves_nothing(
    house: House, data: bytes, asked: dict[str, Any], status: int, words: str
) -> None:
    answer = send(house, data, **asked)
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.json()
    assert answer.json()["mend"]
    assert files(house) == []


def test_a_table_that_cannot_be_read_is_not_kept(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise table_process.problem_of_line("t.csv: no rows; give at least one")

    monkeypatch.setattr(table_process, "run", refuse)
    answer = send(house)
    assert (answer.status_code, answer.json()["field"]) == (422, "upload")
    assert (files(house), house.get("/uploads").json()["items"]) == ([], [])


def test_limits_of_a_file_and_of_a_project_hold(
    template: Path, tmp_path: Path, process: Process
) -> None:
    limits = Limits(upload_bytes=40, project_uploads_bytes=50)
    house = open_house(tmp_path / "data", template, limits=limits)
    with house.client:
        for data in (b"x" * 41, iter([b"x" * 30, b"x" * 11])):  # said before, and not said
            answer = send(house, data)
            assert (answer.status_code, answer.json()["type"]) == (413, "urn:evomerge:too-large")
            assert "a few thousand are enough" in answer.json()["mend"]
        assert files(house) == []
        # Two at once: each fits alone, and both have come in before either is kept.
        first, second = (_new(house, 30) for _ in range(2))
        folder, most = house.settings.data, limits.project_uploads_bytes
        with (
            upload_files.receive(folder, first.project, first.id),
            upload_files.receive(folder, first.project, second.id),
        ):
            uploads.add(house.database, first, data=folder, most_bytes=most, who=audit.SERVICE)
            with pytest.raises(TooLarge, match="30 bytes of uploads, and 50 is its limit"):
                uploads.add(house.database, second, data=folder, most_bytes=most, who=audit.SERVICE)
        assert [file.name for file in files(house)] == [first.id]
        for data in (b"x" * 30, iter([b"x" * 30])):
            assert send(house, data).status_code == 413
        assert send(house, b"x" * 20).status_code == 201
    house.database.close()


def _new(house: House, size_bytes: int) -> NewUpload:
    return NewUpload(
        id=uploads.next_id(),
        project=house.projects["default"],
        owner="ann",
        name="t.csv",
        format="csv",
        size_bytes=size_bytes,
        sha256="",
        columns=("question", "answer"),
        rows=1,
        encoding=None,
        delimiter=None,
        header=True,
    )


def test_a_cut_off_upload_and_a_full_disk_leave_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("starlette.requests.Request.stream", _cut_off)
        answer = send(house)
    assert (answer.status_code, answer.json()["detail"]) == (400, "the upload was cut off")
    assert files(house) == []

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        answer = send(house)
    assert (answer.status_code, answer.json()["type"]) == (507, "urn:evomerge:no-room")
    assert "delete uploads" in answer.json()["mend"]
    assert files(house) == []


async def _cut_off(_request: object) -> AsyncIterator[bytes]:
    yield TABLE * 2**16  # some of it is on the disk
    raise ClientDisconnect


def test_a_killed_server_loses_no_upload_and_its_leftovers_go(
    house: House, process: Process
) -> None:
    kept = send(house).json()["id"]
    folder = house.settings.data / "uploads" / "received" / house.projects["default"]
    (folder / kept).rename(folder / f".{kept}.part")  # killed before the file got its name
    (folder / ".uaaaaaaaaaaaaaaa.part").write_bytes(b"half")
    old = time.time() - 2 * upload_files.STALE_S
    for file in files(house):
        os.utime(file, (old, old))
    (folder / ".ubbbbbbbbbbbbbbb.part").write_bytes(b"of another server")
    uploads.sweep(house.database, house.projects["default"], data=house.settings.data)
    assert {file.name for file in files(house)} == {kept, ".ubbbbbbbbbbbbbbb.part"}
    (folder / kept).rename(folder / f".{kept}.part")
    with upload_files.open_upload(house.settings.data, folder.name, kept) as opened:
        assert opened.read() == TABLE


def test_a_link_in_the_folder_leads_nowhere(house: House, process: Process, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_bytes(TABLE)
    upload = send(house).json()["id"]
    [file] = files(house)
    file.unlink()
    file.symlink_to(secret)
    answer = house.post("/tasks/from-file", {"upload": upload, "name": "ours"})
    assert (answer.status_code, answer.json()["field"]) == (409, "upload")
    house.ask("DELETE", f"/uploads/{upload}")
    assert secret.read_bytes() == TABLE and files(house) == []
    file.parent.rmdir()
    file.parent.symlink_to(tmp_path)
    answer = send(house)
    assert (answer.status_code, "data folder" in answer.json()["detail"]) == (503, True)
    assert list(tmp_path.glob("*.part")) == []


def test_how_a_file_is_read_is_kept_with_it(house: House, process: Process) -> None:
    upload = send(house, params={"encoding": "cp1252", "delimiter": "tab", "header": "false"})
    with house.database.read() as session:
        row = session.get_one(UploadRow, upload.json()["id"])
        assert (row.encoding, row.delimiter, row.header, row.rows) == ("cp1252", "tab", False, 1)
