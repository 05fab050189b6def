"""Uploads on both databases: the limit of a project under a race, lists, two deletions at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from evomerge.service.database.engine import Database
from evomerge.service.store import audit, upload_files, uploads
from evomerge.service.store.people import Project
from evomerge.service.store.refusals import NotFound, TooLarge
from evomerge.service.store.uploads import NewUpload
from tests.service.jobs import ADMIN


def new(project: Project, size_bytes: int = 30) -> NewUpload:
    return NewUpload(
        id=uploads.next_id(),
        project=project.id,
        owner="ann",
        name="t.csv",
        format="csv",
        size_bytes=size_bytes,
        sha256="",
        columns=("question", "\0"),
        rows=1,
        encoding=None,
        delimiter=None,
        header=True,
    )


def kept(database: Database, data: Path, upload: NewUpload, most_bytes: int = 10**6) -> str:
    """What became of an upload that came in."""
    try:
        with upload_files.receive(data, upload.project, upload.id) as incoming:
            incoming.write(bytes(upload.size_bytes))
            uploads.add(database, upload, data=data, most_bytes=most_bytes, who=ADMIN)
    except TooLarge:
        return "refused"
    return "kept"


def test_uploads_at_once_do_not_pass_the_limit_together(
    database: Database, project: Project, tmp_path: Path
) -> None:
    wanted = [new(project) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda each: kept(database, tmp_path, each, 70), wanted))
    assert sorted(ends) == ["kept", "kept", "refused", "refused"]
    assert uploads.used_bytes(database, project.id) == 60
    listed = uploads.find(database, project=project.id, limit=1)
    rest = uploads.find(database, cursor=listed.cursor)
    found = [*listed.items, *rest.items]
    assert sorted(file.name for file in tmp_path.rglob("u*") if file.is_file()) == sorted(
        each.id for each in found
    )
    assert found[0].columns == ("question", "\0")


def test_two_deletions_at_once_remove_one_upload(
    database: Database, project: Project, tmp_path: Path
) -> None:
    upload = new(project)
    assert kept(database, tmp_path, upload) == "kept"

    def delete(_: int) -> str:
        try:
            return uploads.delete(database, upload.id, data=tmp_path, who=ADMIN).id
        except NotFound:
            return "gone"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(delete, range(2))) == sorted(["gone", upload.id])
    assert not [file for file in tmp_path.rglob("*u*") if file.is_file() and "db" not in file.name]
    acts = [entry.act for entry in audit.find(database, what=upload.id).items]
    assert acts == ["upload.delete", "upload.make"]
