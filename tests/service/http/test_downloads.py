"""Downloads: ranges, checks of content, names, and that nothing outside a folder is reached."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

import pytest
from starlette.types import Message

from evomerge.service.database.tables import JobRow
from evomerge.service.http import downloads
from evomerge.service.http.downloads import (
    FoundFile,
    Span,
    archive_root,
    disposition,
    span_of,
    tar,
    tar_bytes,
)
from evomerge.service.http.problems import Problem
from evomerge.service.http.server import OPERATOR
from evomerge.service.runner.work import checksums
from evomerge.service.store import people
from tests.service.http.house import API, House, open_house

CONTENT = bytes(range(256)) * 40
FILES = {
    "model.safetensors": CONTENT,
    "README.md": b"# A model\n",
    "parts/one.bin": b"1" * 1000,
    "empty.txt": b"",
    'odd "näme";.txt': b"odd",
}


def test_a_file_comes_whole_with_its_checksum(house: House) -> None:
    job = house.exported(FILES)
    answer = house.get(f"/jobs/{job.id}/files/model.safetensors")
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert answer.content == CONTENT
    assert answer.headers["etag"] == f'"{sha256}"'
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    assert answer.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert house.get(f"/jobs/{job.id}/files/parts/one.bin").content == b"1" * 1000
    assert house.get(f"/jobs/{job.id}/files/empty.txt").content == b""


def test_the_list_has_every_file_with_its_checksum(house: House) -> None:
    job = house.exported(FILES)
    listed = house.get(f"/jobs/{job.id}/files").json()
    assert {file["path"]: file["sha256"] for file in listed["files"]} == {
        path: hashlib.sha256(content).hexdigest() for path, content in FILES.items()
    }
    assert listed["size_bytes"] == sum(map(len, FILES.values()))


def test_what_the_runner_recorded_is_not_read_again_while_nothing_has_changed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = house.exported(FILES)
    folder = house.settings.export_dir(job.id)
    with house.database.write() as session:
        session.get_one(JobRow, job.id).result = {"files": checksums(folder)}
    read = []
    file_digest = hashlib.file_digest

    def hashed(file: Any, name: str) -> Any:
        read.append(file)
        return file_digest(file, name)

    monkeypatch.setattr("hashlib.file_digest", hashed)

    def listed() -> dict[str, str]:
        files = house.get(f"/jobs/{job.id}/files").json()["files"]
        etag = house.get(f"/jobs/{job.id}/files/model.safetensors").headers["etag"]
        found = {file["path"]: file["sha256"] for file in files}
        assert etag == f'"{found["model.safetensors"]}"'
        return found

    before = listed()
    assert before == {path: hashlib.sha256(content).hexdigest() for path, content in FILES.items()}
    assert read == []
    changed = folder / "model.safetensors"
    facts = changed.stat()
    changed.write_bytes(CONTENT[::-1])  # the same size
    os.utime(changed, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1_000_000))
    assert listed() == {
        **before,
        "model.safetensors": hashlib.sha256(CONTENT[::-1]).hexdigest(),
    }
    assert len(read) == 1


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-99", 0, 99),
        ("bytes=100-", 100, 10239),
        ("bytes=-1", 10239, 10239),
        ("bytes=-99999", 0, 10239),
        ("bytes=10200-99999", 10200, 10239),
        ("BYTES= 5-6", 5, 6),
    ],
)
def test_a_range_is_sent(house: House, header: str, first: int, last: int) -> None:
    job = house.exported(FILES)
    path = f"/jobs/{job.id}/files/model.safetensors"
    answer = house.get(path, headers={"Range": header})
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {first}-{last}/10240"
    assert answer.content == CONTENT[first : last + 1]
    assert answer.headers["content-length"] == str(last - first + 1)


@pytest.mark.parametrize(
    "header",
    ["bytes=5-2", "bytes=0-1,5-6", "bytes=a-b", "items=0-1", "bytes", "bytes=-", "bytes=0-1;x", ""],
)
def test_what_is_no_single_range_gets_the_whole(house: House, header: str) -> None:
    job = house.exported(FILES)
    answer = house.get(f"/jobs/{job.id}/files/model.safetensors", headers={"Range": header})
    assert answer.status_code == 200
    assert answer.content == CONTENT


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("model.safetensors", "bytes=10240-"),
        ("model.safetensors", "bytes=99999-999999"),
        ("model.safetensors", "bytes=-0"),
        ("empty.txt", "bytes=0-"),
    ],
)
def test_a_range_beyond_the_end_is_refused(house: House, path: str, header: str) -> None:
    job = house.exported(FILES)
    answer = house.get(f"/jobs/{job.id}/files/{path}", headers={"Range": header})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(FILES[path])}"
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_range_of_another_content_gets_the_whole(house: House) -> None:
    job = house.exported(FILES)
    path = f"/jobs/{job.id}/files/model.safetensors"
    etag = house.get(path).headers["etag"]
    asked = {"Range": "bytes=0-9"}
    assert house.get(path, headers={**asked, "If-Range": etag}).status_code == 206
    for other in ('"old"', f"W/{etag}", "Sun, 29 Nov 2026 00:00:00 GMT"):
        assert house.get(path, headers={**asked, "If-Range": other}).status_code == 200
    (house.settings.export_dir(job.id) / "model.safetensors").write_bytes(CONTENT[::-1])
    changed = house.get(path, headers={**asked, "If-Range": etag})
    assert changed.status_code == 200
    assert changed.content == CONTENT[::-1]
    assert changed.headers["etag"] != etag


def test_a_file_that_is_there_already_is_not_sent(house: House) -> None:
    job = house.exported(FILES)
    path = f"/jobs/{job.id}/files/README.md"
    etag = house.get(path).headers["etag"]
    for header in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        answer = house.get(path, headers={"If-None-Match": header})
        assert answer.status_code == 304
        assert answer.content == b""
    assert house.get(path, headers={"If-None-Match": '"x"'}).status_code == 200


def test_a_head_request_has_the_headers_alone(house: House) -> None:
    job = house.exported(FILES)
    path = f"/jobs/{job.id}/files/model.safetensors"
    answer = house.ask("HEAD", path, "viewer", headers={"Range": "bytes=0-9"})
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.content == b""


HIDDEN = b"what nobody may read"


def raw_get(house: House, path: str) -> tuple[int, bytes]:
    """Ask for a path as it is; a client would tidy it first."""
    sent: list[Message] = []
    scope = {
        "type": "http",
        "method": "GET",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1"),
            (b"authorization", house.as_("viewer")["Authorization"].encode()),
        ],
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(house.client.app(scope, receive, send))  # type: ignore[arg-type]
    return sent[0]["status"], b"".join(part.get("body", b"") for part in sent[1:])


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "..",
        ".",
        "",
        "parts",
        "parts/",
        "parts/../README.md",
        "%2e%2e/secret",
        "..%2fsecret",
        "%2e%2e%2f%2e%2e%2fevomerge.db",
        "..%5c..%5csecret",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "//etc/passwd",
        "README.md%00",
        "README.md%00.txt",
        "%252e%252e/secret",
        "..;/secret",
        "link",
        "linked/secret",
        "pipe",
        ".hidden",
        "a/" * 40 + "b",
        "x" * 5000,
        "%ff%fe",
        "parts/one.bin/more",
    ],
)
def test_no_path_leads_out_of_the_folder(house: House, path: str) -> None:
    job = house.exported(FILES)
    folder = house.settings.export_dir(job.id)
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(HIDDEN)
    (folder.parent / "secret").write_bytes(HIDDEN)
    (folder / ".hidden").write_bytes(HIDDEN)
    (folder / "link").symlink_to(folder.parent / "secret")
    (folder / "linked").symlink_to(outside)
    os.mkfifo(folder / "pipe")
    status, body = raw_get(house, f"{API}/jobs/{job.id}/files/{path}")
    assert status == 404, body
    assert HIDDEN not in body
    listed = house.get(f"/jobs/{job.id}/files").json()["files"]
    assert {file["path"] for file in listed} == set(FILES)


def test_names_are_escaped_where_they_are_sent(house: House) -> None:
    job = house.exported(FILES)
    answer = house.get(f"/jobs/{job.id}/files/odd%20%22n%C3%A4me%22;.txt")
    assert answer.content == b"odd"
    sent = answer.headers["content-disposition"]
    assert sent == (
        "attachment; filename=\"odd _n_me__.txt\"; filename*=UTF-8''odd%20%22n%C3%A4me%22%3B.txt"
    )
    assert "\n" not in disposition("a\r\nSet-Cookie: x")
    assert disposition('a";b').count('"') == 2


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("kana", "kana-j1"),
        ("", "j1"),
        ("..", "j1"),
        ("../../../tmp/x", "tmp-x-j1"),
        ("/abs/x", "abs-x-j1"),
        ("a..b", "a-b-j1"),
        ("C:\\x", "C-x-j1"),
        ("n\u202ea\0m\ne", "n-a-m-e-j1"),
    ],
)
def test_an_archive_unpacks_into_one_folder_below(name: str, root: str) -> None:
    assert archive_root(name, "j1") == root


def test_everything_comes_as_one_tar_of_known_length(house: House) -> None:
    job = house.exported(FILES)
    answer = house.get(f"/jobs/{job.id}/archive")
    assert answer.headers["content-length"] == str(len(answer.content))
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        found = {
            member.name.partition("/")[2]: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
        }
        roots = {member.name.partition("/")[0] for member in archive}
    assert found == FILES
    assert roots == {f"kana-{job.id}"}
    assert house.get(f"/jobs/{job.id}/archive").content == answer.content


def test_a_tar_holds_long_names_and_large_files(tmp_path: Path) -> None:
    name = "part/" * 10 + "日本" * 30
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"x" * 700)
    files = [FoundFile(path=name, size_bytes=700)]
    whole = b"".join(tar(tmp_path, files, "root"))
    assert len(whole) == tar_bytes(files, "root")
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        assert archive.getnames() == [f"root/{name}"]
    assert tar_bytes([FoundFile(path="a", size_bytes=2**40)], "r") > 2**40


def test_a_file_that_shrinks_breaks_the_tar_off(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    with pytest.raises(OSError, match="became shorter"):
        list(tar(tmp_path, [FoundFile(path="a", size_bytes=200)], "root"))


def test_a_job_without_files_says_so(house: House) -> None:
    search = house.searched()
    for path in ("files", "archive", "files/README.md"):
        answer = house.get(f"/jobs/{search.id}/{path}")
        assert answer.status_code == 409
        assert "exports" in answer.json()["mend"]
    waiting = house.job("export", request={})
    assert house.get(f"/jobs/{waiting.id}/files").status_code == 409


def test_a_range_of_a_huge_file_is_computed_exactly() -> None:
    assert span_of("bytes=9999999999-", 2**40) == Span(first=9999999999, last=2**40 - 1)
    with pytest.raises(Problem):
        span_of(f"bytes={2**62}-", 10)


def test_names_that_no_address_has_are_in_no_list_and_no_archive(house: House) -> None:
    job = house.exported({"a.txt": b"a"})
    folder = house.settings.export_dir(job.id)
    for name in (b"no\xffutf8", b"two\nlines", b"\x1b[2J"):
        (folder / os.fsdecode(name)).write_bytes(b"x")
    listed = house.get(f"/jobs/{job.id}/files").json()
    assert [file["path"] for file in listed["files"]] == ["a.txt"]
    with tarfile.open(fileobj=io.BytesIO(house.get(f"/jobs/{job.id}/archive").content)) as archive:
        assert len(archive.getnames()) == 1


@pytest.mark.parametrize("path", ["files/large.bin", "archive"])
def test_a_download_ends_when_its_token_is_revoked(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    house = open_house(tmp_path / "data", template, heartbeat_s=0.0)
    job = house.exported({"large.bin": b"x" * 5000})
    monkeypatch.setattr(downloads, "CHUNK_BYTES", 1000)
    assert len(house.get(f"/jobs/{job.id}/{path}").content) >= 5000
    [viewer] = [each for each in people.tokens(house.database) if each.name == "viewer"]
    read = downloads.open_inside

    def revoked_meanwhile(folder: Path, name: str) -> BinaryIO:
        people.revoke(house.database, viewer.id, who=OPERATOR)
        return read(folder, name)

    monkeypatch.setattr(downloads, "open_inside", revoked_meanwhile)
    with pytest.raises(OSError, match="the token cannot be used any more"):
        house.get(f"/jobs/{job.id}/{path}")
    house.database.close()


def test_an_archive_whose_file_is_deleted_meanwhile_breaks_off(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    files = [FoundFile(path="a", size_bytes=1), FoundFile(path="gone", size_bytes=1)]
    with pytest.raises(OSError, match="gone: is gone"):
        list(tar(tmp_path, files, "root"))
