"""The commands beside an export's files: right for its class, its base and its name."""

from __future__ import annotations

import ast
import io
import json
import shlex
import tarfile
from collections.abc import Mapping
from typing import Any

import pytest

from evomerge.service.http.server import OPERATOR
from evomerge.service.store import jobs
from tests.service.http.house import House

HUB = {"base_model_name_or_path": "org/base", "revision": "f00d", "r": 24, "bias": "none"}
LOCAL = {"base_model_name_or_path": "/data/models/base", "revision": None, "r": 8}


def card(task: str, library: str = "transformers") -> bytes:
    """A model card with what the hub reads."""
    return f"---\nlibrary_name: {library}\npipeline_tag: {task}\n---\n\n# A model\n".encode()


def adapter(
    config: Mapping[str, Any], *, whole: list[str] | None = None, base: str = "base"
) -> dict[str, bytes]:
    """The files of an adapter that say what it is."""
    stated = {"files": {}, "adapter": {"base": base, "whole": whole or []}}
    return {
        "README.md": card("text-generation", "peft"),
        "adapter_config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(stated).encode(),
    }


def commands(house: House, files: Mapping[str, bytes]) -> tuple[str, dict[str, str]]:
    """The folder of an export, and its commands by tool; Python is Python."""
    job = house.exported(files)
    listed = house.get(f"/jobs/{job.id}/files").json()
    found = {each["tool"]: each["text"] for each in listed["commands"]}
    for tool in ("transformers", "PEFT", "sentence-transformers"):
        ast.parse(found.get(tool, ""))
    return listed["folder"], found


def test_a_language_model_is_loaded_served_and_converted(house: House) -> None:
    folder, found = commands(house, {"README.md": card("text-generation")})
    assert list(found) == ["transformers", "vLLM", "llama.cpp"]
    assert f'AutoModelForCausalLM.from_pretrained("{folder}")' in found["transformers"]
    assert found["vLLM"] == f"vllm serve {folder}"
    assert f"convert_hf_to_gguf.py {folder} " in found["llama.cpp"]


def test_code_of_a_model_is_trusted_by_name(house: House) -> None:
    config = b'{"auto_map": {"AutoModelForCausalLM": "own.Own"}}'
    _, found = commands(house, {"README.md": card("text-generation"), "config.json": config})
    assert found["transformers"].count("trust_remote_code=True") == 2
    assert found["vLLM"].endswith(" --trust-remote-code")


@pytest.mark.parametrize(
    ("task", "tool", "loader"),
    [
        ("fill-mask", "transformers", "AutoModelForMaskedLM.from_pretrained("),
        ("text-classification", "transformers", "AutoModelForSequenceClassification.from_"),
        ("text2text-generation", "transformers", "AutoModelForSeq2SeqLM.from_pretrained("),
        ("image-classification", "transformers", "AutoProcessor.from_pretrained("),
        ("sentence-similarity", "sentence-transformers", "SentenceTransformer("),
    ],
)
def test_another_kind_is_loaded_by_its_own_class_alone(
    house: House, task: str, tool: str, loader: str
) -> None:
    _, found = commands(house, {"README.md": card(task)})
    assert list(found) == [tool]
    assert loader in found[tool]
    assert "CausalLM" not in found[tool]


def test_an_adapter_is_loaded_over_its_base_of_the_hub(house: House) -> None:
    folder, found = commands(house, adapter(HUB, whole=["model.layers.0.input_layernorm"]))
    base = 'AutoModelForCausalLM.from_pretrained("org/base", revision="f00d")'
    assert f'PeftModel.from_pretrained({base}, "{folder}")' in found["PEFT"]
    assert found["vLLM"] == (
        "vllm serve org/base --revision f00d --enable-lora --max-lora-rank 32 "
        f"--lora-modules merge={folder}"
    )
    assert f"convert_lora_to_gguf.py {folder} --base BASE" in found["llama.cpp"]
    assert "org/base" in found["llama.cpp"]


def test_the_place_of_a_base_is_not_told(house: House) -> None:
    _, found = commands(house, adapter(LOCAL, base="base\nimport os"))
    assert found["PEFT"].startswith("# BASE: your folder of base import os\n")
    assert 'from_pretrained("BASE")' in found["PEFT"]
    assert "/data" not in str(found)


def test_a_tool_that_refuses_an_adapter_is_not_named(house: House) -> None:
    saved = {**LOCAL, "modules_to_save": ["lm_head"]}
    assert list(commands(house, adapter(saved, whole=["lm_head"]))[1]) == ["PEFT"]
    assert "vLLM" not in commands(house, adapter({**LOCAL, "r": 513}))[1]
    assert "vLLM" not in commands(house, adapter({**LOCAL, "bias": "all"}))[1]


@pytest.mark.parametrize(
    "readme", [b"# By hand\n", b"---\n[\n---\n", card("chess"), b"---\n- 1\n---\n", b"\xff"]
)
def test_what_no_card_says_is_not_guessed(house: House, readme: bytes) -> None:
    assert commands(house, {"README.md": readme})[1] == {}


def test_the_folder_is_the_one_that_the_archive_unpacks_into(house: House) -> None:
    job = house.exported({"README.md": card("text-generation")})
    odd = "my \"best\" one; $(rm) 'x'"
    jobs.edit(house.database, job.id, who=OPERATOR, changes={"name": odd})
    listed = house.get(f"/jobs/{job.id}/files").json()
    with tarfile.open(fileobj=io.BytesIO(house.get(f"/jobs/{job.id}/archive").content)) as tar:
        assert {name.partition("/")[0] for name in tar.getnames()} == {listed["folder"]}
    found = {each["tool"]: each["text"] for each in listed["commands"]}
    assert shlex.split(found["vLLM"]) == ["vllm", "serve", listed["folder"]]
    assert f'("{listed["folder"]}")' in found["transformers"]
