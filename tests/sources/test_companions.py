"""What lies beside a model's weights: what is its own, and that no link brings in a stranger's."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import filter_repo_objects

from evomerge.errors import SourceError
from evomerge.sources import companions, open_source
from evomerge.sources.companions import NOT_FETCHED, find_companions
from tests.checkpoints import save_tiny_llama
from tests.vocabulary.models import save_adapter

KEPT = (
    "1_Pooling/config.json",
    "LICENSE",
    "additional_chat_templates/tools.jinja",
    "chat_template.jinja",
    "custom_generate/generate.py",
    "modules.json",
    "preprocessor_config.json",
    "processor_config.json",
    "sentence_bert_config.json",
    "video_preprocessor_config.json",
    "vocab.bpe",
)
NOT_KEPT = (
    ".cache/huggingface/lock",
    ".gitattributes",
    "README.md",
    "checkpoint-20/config.json",
    "consolidated.safetensors",
    "events.out.tfevents.1",
    "manifest.json",
    "model-q4.gguf",
    "onnx/model.onnx",
    "optimizer.pt",
    "pytorch_model.bin",
    "recipe.yaml",
    "runs/may/events",
    "trainer_state.json",
    "training_args.bin",
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "model", seed=0, layers=1)


def write(folder: Path, *names: str, text: str = "[]") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_everything_is_the_model_s_but_what_a_rule_names(model: Path) -> None:
    before = set(find_companions(model, "it").files)
    write(model, *KEPT, *NOT_KEPT)
    assert set(find_companions(model, "it").files) - before == set(KEPT)
    assert {*KEPT, "model.safetensors", "config.json"} <= set(
        open_source(str(model), where="").files
    )


def test_the_hub_is_asked_for_what_would_be_copied() -> None:
    weights = ["model.safetensors", "model.safetensors.index.json", "2_Dense/model.safetensors"]
    wanted = [*KEPT, *weights, "README.md", "config.json"]
    offered = [*wanted, *NOT_KEPT, "vae/model.safetensors", "2024/model.safetensors", "a.png"]
    fetched = set(filter_repo_objects(offered, ignore_patterns=list(NOT_FETCHED)))
    assert fetched - {"consolidated.safetensors"} == set(wanted)


def test_weights_of_modules_are_kept_and_those_of_other_models_are_not(model: Path) -> None:
    dense, pickled = "2_Dense/model.safetensors", "3_Dense/pytorch_model.bin"
    write(model, dense, pickled, "expert/config.json", "expert/model.safetensors", "expert/notes")
    write(model, "4_epoch/model.safetensors")
    listed = [{"path": "", "type": "T"}, {"path": "2_Dense"}, {"path": "3_Dense"}]
    write(model, "modules.json", text=json.dumps(listed))
    found = find_companions(model, "it")
    assert [name for name in found.files if "/" in name] == [dense]
    (said,) = found.left_out
    assert said.startswith(pickled)


def test_a_file_too_large_to_be_a_model_s_is_left_out_by_name(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(model, "corpus.txt", text="x" * 5000)
    monkeypatch.setattr(companions, "LARGEST_BYTES", 4000)
    found = find_companions(model, "it")
    assert "corpus.txt" not in found.files
    assert [said.split()[0] for said in found.left_out] == ["corpus.txt"]


def test_data_of_a_format_that_is_not_copied_is_said_and_copies_of_weights_are_not(
    model: Path,
) -> None:
    data = ("model_head.pkl", "projector.pt", "voices/one.npz")
    silent = ("consolidated.00.pth", "rng_state_0.pth", "original/consolidated.01.pth")
    write(model, *data, *silent, *NOT_KEPT)
    found = find_companions(model, "it")
    assert not {*data, *silent} & set(found.files)
    assert sorted(said.split()[0] for said in found.left_out) == sorted(data)


SECRET = "the secret of another folder"


def link_file(name: str) -> Callable[[Path, Path], None]:
    def link(model: Path, secret: Path) -> None:
        (model / name).unlink(missing_ok=True)
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).symlink_to(secret)

    return link


def link_relative(model: Path, secret: Path) -> None:
    (model / "x_token.json").symlink_to(Path("..") / secret.name)


def link_folder(model: Path, secret: Path) -> None:
    (secret.parent / "secrets").mkdir()
    shutil.copy(secret, secret.parent / "secrets" / "tools.jinja")
    (model / "additional_chat_templates").symlink_to(secret.parent / "secrets")


def link_to_link(model: Path, secret: Path) -> None:
    (model / "first.json").symlink_to(model / ".second.json")
    (model / ".second.json").symlink_to(secret)


def link_to_nothing(model: Path, secret: Path) -> None:
    (model / "chat_template.jinja").symlink_to("nothing")


def link_in_a_circle(model: Path, secret: Path) -> None:
    (model / "chat_template.jinja").symlink_to("chat_template.jinja")


def link_blobs_of_no_hub(model: Path, secret: Path) -> None:
    """A folder that looks as the hub's cache, its blobs a link to what is to be read."""
    (model / "chat_template.jinja").symlink_to(secret)
    repository = model.parent / "models--a--b"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "blobs").symlink_to(secret.parent)
    shutil.move(model, repository / "snapshots" / "model")
    model.symlink_to(repository / "snapshots" / "model")


@pytest.mark.parametrize(
    "link",
    [
        *map(link_file, ("chat_template.jinja", "config.json", "tokenizer.json", "1_Pooling/a")),
        *map(link_file, ("model.safetensors.index.json", "modules.json", "modeling_a.py")),
        link_relative,
        link_folder,
        link_to_link,
        link_to_nothing,
        link_in_a_circle,
        link_blobs_of_no_hub,
    ],
)
def test_a_link_that_leads_out_of_the_model_is_refused(
    model: Path, tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    link(model, secret)
    with pytest.raises(SourceError, match=r"is a link to|cannot be followed") as caught:
        open_source(str(model), where="models.0")
    assert SECRET not in str(caught.value)


def test_a_link_out_of_an_adapter_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    adapter = save_adapter(tmp_path / "adapter", model)
    (adapter / "chat_template.jinja").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceError, match=r"chat_template\.jinja is a link to"):
        open_source(f"{model}+{adapter}", where="models.0")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors", "a.txt"])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(
    model: Path, name: str
) -> None:
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    with pytest.raises(SourceError, match=f"{name} is a pipe and not a file"):
        open_source(str(model), where="models.0")


def test_links_within_a_model_a_linked_model_and_linked_weights_are_followed(
    model: Path, tmp_path: Path
) -> None:
    write(model, ".hidden.jinja")
    (model / "chat_template.jinja").symlink_to(".hidden.jinja")
    shutil.move(model / "model.safetensors", tmp_path / "disk.safetensors")
    (model / "model.safetensors").symlink_to(tmp_path / "disk.safetensors")
    (tmp_path / "alias").symlink_to(model)
    opened = open_source(str(tmp_path / "alias"), where="models.0")
    assert {"chat_template.jinja", "model.safetensors"} <= set(opened.sha256())


def test_what_nobody_reads_may_lead_anywhere(model: Path, tmp_path: Path) -> None:
    (model / "runs").symlink_to("/nowhere")
    (model / "README.md").symlink_to(tmp_path / "card.md")
    assert open_source(str(model), where="models.0").files


def test_a_snapshot_of_the_hub_s_cache_links_to_its_blobs(model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--org--name"
    snapshot = repository / "snapshots" / "0123abc"
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(model.iterdir())):
        shutil.move(path, repository / "blobs" / str(number))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    assert "tokenizer.json" in open_source(str(snapshot), where="models.0").sha256()
    other: Any = tmp_path / "hub" / "models--org--private" / "blobs" / "1"
    write(other.parent, "1", text=SECRET)
    (snapshot / "x_token.json").symlink_to(other)
    with pytest.raises(SourceError, match="outside the model's folder"):
        open_source(str(snapshot), where="models.0")
