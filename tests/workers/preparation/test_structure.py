"""Models whose merges could not be built or loaded are refused before a search begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from evomerge.errors import JobError, RecipeError, SourceError
from evomerge.workers.preparation.preparation import prepare
from tests.architectures import save_architecture
from tests.checkpoints import replace_tensors, word_tokenizer
from tests.route.routes import change_config
from tests.search.jobs import JOBS, make_job, write_models

NAMES = ("base", "first", "second")


def test_a_merge_that_would_not_load_whole_is_refused(tmp_path: Path) -> None:
    write_models(tmp_path)
    up = "model.layers.1.mlp.up_proj.weight"
    for name in NAMES:
        replace_tensors(tmp_path / name, {up: None})
    with pytest.raises(RecipeError, match=rf"would not load completely: {up} missing"):
        prepare(make_job(tmp_path))


def write_architecture(folder: Path, kind: str, **settings: object) -> None:
    """The models of a job, with the words of the tokenizer."""
    tokenizer = word_tokenizer()
    for name in NAMES:
        saved = save_architecture(folder / name, kind)
        model = AutoModelForCausalLM.from_pretrained(saved)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model.save_pretrained(saved)
        tokenizer.save_pretrained(saved)
        change_config(saved, settings)


@pytest.mark.parametrize("kind", ["data_flow", "hybrid", "parameter_space"])
def test_layers_that_compute_by_their_number_are_in_no_route(tmp_path: Path, kind: str) -> None:
    write_architecture(tmp_path, "gpt2", scale_attn_by_inverse_layer_idx=True)
    job = make_job(tmp_path, **JOBS[kind])
    if kind == "parameter_space":
        prepare(job)
        return
    with pytest.raises(JobError, match=r"routes change the order of layers, which .* does not"):
        prepare(job)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("minimax", "self_attn.num_hidden_layers of a layer depends on its number"),
        ("zamba", r"layers share weights \(.*shared_transf"),
    ],
)
def test_layers_that_the_live_model_cannot_move_are_known_before_a_search(
    tmp_path: Path, kind: str, reason: str
) -> None:
    """A configuration can describe them in any order, but one model cannot hold them in any."""
    write_architecture(tmp_path, kind)
    job = make_job(tmp_path, search_space={"routes": {}})
    with pytest.raises(SourceError, match=rf"{reason}.*, so routes cannot move its layers"):
        prepare(job)
