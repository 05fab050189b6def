"""A search's winner as a folder: what it says, and that stock tools agree with what was scored."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from evomerge.errors import RunError
from evomerge.evaluate.candidate import Candidate, CandidateKey, Failed, Scored, TaskItems
from evomerge.evaluate.stock import StockOptions, score_stock
from evomerge.export import Verification, export_winner, merge_recipe, verify
from evomerge.export.choice import choose
from evomerge.export.verification import MOST_DIFFERING, TaskComparison
from evomerge.job import JobSpec
from evomerge.recipe import read_recipe
from evomerge.study import Parameter, create_study
from evomerge.workers.preparation.preparation import pin, prepare
from tests.checkpoints import load_tensors
from tests.export.conftest import TASKS, Family, Searched, contents, make_family

OPTIONS = StockOptions(dtype="float32", device="cpu", task_folders=(TASKS,))


SHOTS = """
task: shots_nats
custom_dataset: !function shots.load
output_type: loglikelihood
fewshot_split: train
test_split: test
doc_to_text: "question {{question}} "
doc_to_target: "{{answer}}"
num_fewshot: 2
process_results: !function shots.nats
metric_list:
  - {metric: nats, aggregation: mean, higher_is_better: true}
"""
SHOTS_CODE = """
from datasets import Dataset

WORDS = "zero one two three four five six seven eight nine".split()


def load(**_):
    rows = [{"question": a, "answer": b} for a in WORDS for b in WORDS]
    return {"train": Dataset.from_list(rows[8:]), "test": Dataset.from_list(rows[:8])}


def nats(doc, results):
    return {"nats": results[0][0]}
"""


def test_stock_tools_load_the_winner_and_score_every_test_item_the_same(
    searched: Searched, exported: Path
) -> None:
    recorded = searched.study.items_of(searched.selection.test_key)
    found = verify(exported, recorded, OPTIONS)
    assert found.verified
    # In float32 the sums differ by rounding alone, and no toy item is that close to a tie.
    assert found.differing == 0
    assert {task.task: task.items for task in found.tasks} == {
        task: len(items.ids) for task, items in recorded.items()
    }
    assert [task.task for task in found.tasks] == ["toy_choice", "toy_said"]
    assert found.tensors == len(load_tensors(exported))
    assert found.lines()[0].startswith(f"verified: 0 of {found.items} items differ")


def test_the_card_opens_with_the_headline_and_shows_every_test_score(
    searched: Searched, exported: Path
) -> None:
    card = ModelCard((exported / "README.md").read_text(encoding="utf-8"))
    lines = card.text.strip().splitlines()
    assert lines[0] == "# toy"
    assert lines[2] == searched.selection.headline()
    for summary in searched.selection.test:
        assert summary.label in card.text
        interval = summary.score
        shown = f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
        assert shown in card.text
    assert "`one_weight_per_model` (2 genes), 8 candidates scored on 32 items" in card.text


def test_no_path_of_the_machine_is_in_card_or_manifest(
    family: Family, searched: Searched, exported: Path
) -> None:
    for name in ("README.md", "manifest.json", "config.json"):
        text = (exported / name).read_text(encoding="utf-8")
        for path in (family.base.parent, searched.study.run_dir, exported, TASKS):
            assert str(path) not in text


def test_the_recipe_says_what_the_search_knew(
    family: Family, searched: Searched, exported: Path
) -> None:
    recipe = read_recipe((exported / "recipe.yaml").read_text(encoding="utf-8"), where="recipe")
    block, selection = recipe.evomerge, searched.selection
    assert recipe.models == selection.recipe.models
    assert recipe.out_dtype == "float32"
    assert recipe.tokenizer == searched.preparation.vocabulary
    assert recipe.tokenizer is not None
    assert recipe.tokenizer.source == str(family.japanese)
    assert block["job"] == "toy"
    assert block["candidate"] == selection.winner
    assert block.get("seed") == selection.recipe.evomerge.get("seed")
    if selection.genome is not None:
        assert tuple(block["genome"]) == selection.genome
    test = block["scores"]["test"]
    assert test["items"] == selection.items["test"]
    assert test["objective"] == dataclasses.asdict(selection.summary(selection.winner).score)
    assert set(block["scores"]) == {"validation", "test"}
    hashes = {entry["model"]: entry["sha256"] for entry in block["sources"]}
    for reference, source in searched.preparation.sources.items():
        if reference in hashes:
            assert hashes[reference] == dict(source.sha256())
    assert {"evomerge", "torch"} <= block["versions"].keys()


def test_two_exports_of_one_run_are_equal_to_the_byte(
    searched: Searched, exported: Path, tmp_path: Path
) -> None:
    searched.export(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(exported)


def test_the_recipe_merges_to_the_exported_weights(exported: Path, tmp_path: Path) -> None:
    text = (exported / "recipe.yaml").read_text(encoding="utf-8")
    merge_recipe(read_recipe(text, where="recipe.yaml"), tmp_path / "again")
    again, first = contents(tmp_path / "again"), contents(exported)
    for name in first:
        if name not in ("README.md", "manifest.json"):
            assert again[name] == first[name], name


def test_a_candidate_chosen_by_hand_says_so(searched: Searched, tmp_path: Path) -> None:
    key = CandidateKey(2, 1)
    report = searched.export(tmp_path / "out", trial=key, verify=True)
    trial = searched.study.find(key)
    assert trial is not None
    assert report.label == trial.label
    assert report.verification is not None
    assert report.verification.items == trial.item_count
    assert report.verified
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"Chosen by hand: candidate {key}" in ModelCard(card).text.strip().splitlines()[2]
    assert "looks better there than it is" in card
    recipe = read_recipe((tmp_path / "out" / "recipe.yaml").read_text("utf-8"), where="recipe")
    assert recipe.models == trial.recipe.models
    assert set(recipe.evomerge["scores"]) == {"search"}
    assert tuple(recipe.evomerge["genome"]) == trial.genome


def test_the_winner_named_by_hand_is_the_winner(searched: Searched, tmp_path: Path) -> None:
    selection = searched.selection
    candidate = next(t for t in searched.study.trials_of("genome") if t.failure is None)
    won = dataclasses.replace(
        selection,
        winner=str(candidate.key),
        test=tuple(
            dataclasses.replace(one, label=str(candidate.key))
            if one.label == selection.winner
            else one
            for one in selection.test
        ),
    )
    found = choose(searched.preparation, searched.study, won, candidate.key)
    assert found.opening == won.headline()
    other = choose(searched.preparation, searched.study, selection, candidate.key)
    assert other.opening.startswith(f"Chosen by hand: candidate {candidate.key}, not by")


def test_the_card_names_the_algorithm_whatever_the_models_are_called(
    searched: Searched, tmp_path: Path
) -> None:
    models = {"tokenizer": "base", "base": str(make_family(tmp_path).base)}
    for author, model in (("one", "arithmetic"), ("two", "japanese")):
        (tmp_path / author).mkdir()
        (tmp_path / model).rename(tmp_path / author / "in")
    models["sources"] = [str(tmp_path / author / "in") for author in ("one", "two")]
    job = searched.preparation.job.model_dump()
    changed = {"models": models, "optimizer": {}, "search_space": "per_layer_linear"}
    changed["budget"] = {"candidates": 40}
    preparation = prepare(pin(JobSpec.model_validate({**job, **changed})))
    space, key = preparation.space, CandidateKey(1, 0)
    names = [gene.name for gene in space.genes]
    assert any("/in." in name for name in names), "as a route's switches are called"
    candidate = Candidate(
        key=key,
        kind="genome",
        label=str(key),
        recipe=space.decode(space.start),
        items={"toy_choice": (0,)},
        genome=tuple(space.start.tolist()),
    )
    scored = Scored(tasks={"toy_choice": TaskItems(ids=(0,), metrics={"acc": (1.0,)})})
    with create_study(tmp_path / "run", preparation.job) as study:
        values = {name: Parameter(value=0.5, low=0.0, high=1.0) for name in names}
        study.record(candidate, scored, score=1.0, parameters=values)
        study.note("algorithms", {"0": "tpe"})
        export_winner(preparation, study, None, tmp_path / "said", trial=key)
    assert "search: `tpe` (seed 0)" in (tmp_path / "said" / "README.md").read_text("utf-8")


def test_a_candidate_that_does_not_exist_is_refused(searched: Searched, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--trial g0099-i000: no such candidate"):
        searched.export(tmp_path / "out", trial=CandidateKey(99, 0))
    assert not (tmp_path / "out").exists()


def test_a_candidate_that_failed_is_refused(searched: Searched, tmp_path: Path) -> None:
    key = CandidateKey(50, 0)
    candidate = Candidate(
        key=key,
        kind="genome",
        label="failed",
        recipe=searched.selection.recipe,
        items={"toy_choice": (0,)},
    )
    with create_study(tmp_path / "run", searched.preparation.job) as study:
        study.record(candidate, Failed(reason="logits are not finite"), score=None)
        with pytest.raises(RunError, match="it failed \\(logits are not finite\\)"):
            export_winner(searched.preparation, study, None, tmp_path / "out", trial=key)
    assert not (tmp_path / "out").exists()


def test_a_source_that_changed_since_the_search_is_refused(
    family: Family, searched: Searched, tmp_path: Path
) -> None:
    sources = searched.preparation.sources
    digests = {reference: dict(source.sha256()) for reference, source in sources.items()}
    with create_study(tmp_path / "run", searched.preparation.job) as study:
        study.note("facts", {"sources": digests})
        parts = (searched.preparation, study, searched.selection)
        export_winner(*parts, tmp_path / "out")
        digests[str(family.japanese)]["model.safetensors"] = "0" * 64
        study.note("facts", {"sources": digests})
        with pytest.raises(RunError, match=r"japanese/model\.safetensors changed since the search"):
            export_winner(*parts, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_search_without_a_winner_is_refused(searched: Searched, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no winner yet"):
        export_winner(searched.preparation, searched.study, None, tmp_path / "out")


def test_a_flipped_bit_is_not_verified(searched: Searched, tmp_path: Path) -> None:
    searched.export(tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    found = verify(tmp_path / "out", {}, OPTIONS)
    assert found == Verification(changed=("model.safetensors",))
    assert not found.verified
    assert found.lines() == ("NOT verified: model.safetensors not as manifest.json says",)


def test_other_scores_than_were_recorded_are_not_verified(
    searched: Searched, exported: Path
) -> None:
    recorded = searched.study.items_of(searched.selection.test_key)
    turned = {
        task: TaskItems(
            ids=items.ids,
            metrics={name: (1 - column[0], *column[1:]) for name, column in items.metrics.items()},
        )
        for task, items in recorded.items()
    }
    found = verify(exported, turned, OPTIONS)
    assert [task.differing for task in found.tasks] == [1, 1]
    assert not found.verified
    assert found.lines()[0].startswith(f"NOT verified: 2 of {found.items} items differ")


@pytest.mark.parametrize(("differing", "verified"), [(0, True), (5, True), (6, False)])
def test_half_a_percent_of_items_may_differ(differing: int, verified: bool) -> None:
    assert MOST_DIFFERING == 0.005
    task = TaskComparison(task="sums", items=1000, differing=differing, scores={}, recorded={})
    assert Verification(tensors=1, tasks=(task,)).verified == verified


def test_nothing_compared_is_not_verified() -> None:
    assert not Verification(tensors=1).verified


def test_a_folder_that_transformers_cannot_load_is_not_verified(
    family: Family, tmp_path: Path
) -> None:
    from evomerge.export.manifest import write_manifest

    out = tmp_path / "out"
    family.export(out)
    config = out / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"no_such_model"'))
    (out / "manifest.json").unlink()
    write_manifest(out, [])
    found = verify(out, {}, OPTIONS)
    assert found.failure is not None
    assert "no_such_model" in found.lines()[0]


def test_tensors_that_the_model_has_no_place_for_are_not_verified(
    family: Family, tmp_path: Path
) -> None:
    from evomerge.export.manifest import write_manifest
    from tests.checkpoints import replace_tensors

    out = tmp_path / "out"
    family.export(out)
    norm = load_tensors(out)["model.norm.weight"]
    replace_tensors(out, {"model.odd.weight": norm, "model.norm.weight": None})
    (out / "manifest.json").unlink()
    write_manifest(out, [])
    found = verify(out, {}, OPTIONS)
    assert (found.missing, found.unexpected) == (("model.norm.weight",), ("model.odd.weight",))
    assert not found.verified


def test_stock_scoring_leaves_the_generators_alone(exported: Path) -> None:
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    score_stock(exported, {"toy_letters": (1, 4)}, {"toy_letters": ("acc",)}, OPTIONS)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_examples_drawn_at_random_are_those_of_a_run_over_the_whole_task(
    exported: Path, tmp_path: Path
) -> None:
    """lm-eval draws examples item after item, so a few items alone would get others."""
    (tmp_path / "shots_nats.yaml").write_text(SHOTS)
    (tmp_path / "shots.py").write_text(SHOTS_CODE)
    options = dataclasses.replace(OPTIONS, task_folders=(tmp_path,))
    metrics = {"shots_nats": ("nats",)}
    whole = score_stock(exported, {"shots_nats": tuple(range(8))}, metrics, options)["shots_nats"]
    some = score_stock(exported, {"shots_nats": (3, 6)}, metrics, options)["shots_nats"]
    assert some.ids == (3, 6)
    expected = [whole.metrics["nats"][item] for item in some.ids]
    # Another prompt changes the log-probability by far more than rounding does.
    assert some.metrics["nats"] == pytest.approx(expected, rel=1e-5)
