"""The manifest: it lists everything, catches a flipped bit, and is equal for equal exports."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from evomerge import __version__
from evomerge.errors import RunError
from evomerge.export.manifest import changed_files, read_manifest
from tests.export.conftest import Family, contents


@pytest.fixture
def exported(family: Family, tmp_path: Path) -> Path:
    family.export(tmp_path / "out", shard_bytes=60_000)
    return tmp_path / "out"


def test_every_file_and_every_source_file_is_listed(family: Family, exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    files = contents(exported)
    del files["manifest.json"]
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        for name, data in files.items()
    }
    assert manifest["recipe_sha256"] == manifest["files"]["recipe.yaml"]["sha256"]
    assert manifest["created_by"] == f"evomerge {__version__}"
    assert manifest["versions"]["evomerge"] == __version__
    assert {"python", "torch", "transformers", "lm-eval"} <= manifest["versions"].keys()
    models = (family.base, family.arithmetic, family.japanese)
    assert [source["name"] for source in manifest["sources"]] == [model.name for model in models]
    for source, model in zip(manifest["sources"], models, strict=True):
        data = (model / "model.safetensors").read_bytes()
        assert source["files"]["model.safetensors"] == {
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_bytes": len(data),
        }


def test_two_exports_are_equal_to_the_byte(family: Family, exported: Path) -> None:
    again = exported.with_name("again")
    family.export(again, shard_bytes=60_000)
    assert contents(again) == contents(exported)


def test_it_holds_no_path_of_the_machine(family: Family, exported: Path) -> None:
    assert str(family.base.parent) not in (exported / "manifest.json").read_text()


def test_an_untouched_folder_has_no_changed_files(exported: Path) -> None:
    assert changed_files(exported) == ()


@pytest.mark.parametrize("name", ["model-00002-*", "README.md", "recipe.yaml"])
def test_a_flipped_bit_is_caught(exported: Path, name: str) -> None:
    (path,) = exported.glob(name)
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    assert changed_files(exported) == (path.name,)


def test_a_missing_file_is_caught(exported: Path) -> None:
    (exported / "config.json").unlink()
    assert changed_files(exported) == ("config.json",)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"files": 3}', "[" * 100_000])
def test_a_manifest_that_cannot_be_read_is_one_line(exported: Path, text: str | None) -> None:
    path = exported / "manifest.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(RunError, match=r"manifest\.json: cannot be read") as caught:
        read_manifest(exported)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_names_files_elsewhere_is_refused(exported: Path) -> None:
    (exported / "manifest.json").write_text('{"files": {"../../etc/passwd": {}}}')
    with pytest.raises(RunError, match="outside the folder"):
        changed_files(exported)
