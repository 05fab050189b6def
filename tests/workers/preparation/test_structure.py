"""Models whose merges could not be built or loaded are refused before a search begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from evomerge.errors import JobError, RecipeError
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


@pytest.mark.parametrize("kind", ["data_flow", "hybrid", "parameter_space"])
def test_layers_that_compute_by_their_number_are_in_no_route(tmp_path: Path, kind: str) -> None:
    tokenizer = word_tokenizer()
    for name in NAMES:
        folder = save_architecture(tmp_path / name, "gpt2")
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        change_config(folder, {"scale_attn_by_inverse_layer_idx": True})
    job = make_job(tmp_path, **JOBS[kind])
    if kind == "parameter_space":
        prepare(job)
        return
    with pytest.raises(JobError, match=r"routes change the order of layers, which .* does not"):
        prepare(job)
