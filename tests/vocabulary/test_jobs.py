"""A job over models of different vocabularies: its live model, its record and what it exports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.errors import JobError, RunError
from evomerge.evaluate.candidate import Candidate, CandidateKey, Scored
from evomerge.export import export_winner, merge_recipe
from evomerge.recipe import Recipe, load_recipe
from evomerge.search.ledger import Ledger
from evomerge.search.loop import run_search
from evomerge.search.results.selection import Selection
from evomerge.search.selection.winner import select_winner
from evomerge.study import Study, create_study
from evomerge.workers.pool import LocalPool
from evomerge.workers.preparation.fingerprints import check_unchanged, fingerprints_of
from evomerge.workers.preparation.preparation import pin, prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.checkpoints import load_tensors
from tests.search.jobs import make_job
from tests.vocabulary.models import (
    EMBEDDING,
    HEAD,
    Family,
    config_of,
    make_family,
    save_adapter,
)

EVALUATION = {
    "task_folders": [str(Path(__file__).parents[1] / "search" / "tasks")],
    "items_per_generation": 8,
    "items_for_baselines": 8,
    "finalists": 0,
}


def prepared(family: Family, **models: object) -> PreparedJob:
    job = make_job(
        family.base.parent,
        models={
            "base": str(family.base),
            "sources": [str(family.first), str(family.second)],
            **models,
        },
        evaluation=EVALUATION,
        search_space="one_weight_per_model",
        optimizer={"algorithm": "random", "population": 4},
        budget={"candidates": 4},
    )
    return prepare(pin(job))


@dataclass(frozen=True)
class Searched:
    preparation: PreparedJob
    study: Study
    selection: Selection


@pytest.fixture(scope="module")
def searched(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    preparation = prepared(family, tokenizer="union")
    run_dir = tmp_path_factory.mktemp("runs") / "union"
    with create_study(run_dir, preparation.job) as study, LocalPool(preparation) as pool:
        ledger = Ledger(preparation=preparation, study=study, pool=pool)
        yield Searched(preparation, study, select_winner(ledger, run_search(ledger)))


def test_every_candidate_is_scored_in_the_union_of_the_vocabularies(searched: Searched) -> None:
    trials = [*searched.study.trials_of("baseline"), *searched.study.trials_of("genome")]
    assert len(trials) >= 4 + 7
    assert [trial.failure for trial in trials if trial.failure] == []
    tokenizer = searched.preparation.tokenizer
    assert {"<a>", "<b>", "<c>", "<chat>", "eight"} <= tokenizer.get_vocab().keys()
    rows = {
        source.structure.shapes[EMBEDDING][0] for source in searched.preparation.sources.values()
    }
    assert rows == {len(tokenizer)} == {searched.preparation.structure.shapes[HEAD][0]}


def test_the_winner_scores_the_same_by_stock_tools(searched: Searched, tmp_path: Path) -> None:
    out = tmp_path / "winner"
    parts = (searched.preparation, searched.study, searched.selection)
    report = export_winner(*parts, out, verify=True)
    assert report.verification is not None
    assert report.verification.loads
    # In float32 the sums differ by rounding alone, and no item is that close to a tie.
    assert report.verification.items > 0
    assert report.verification.differing == 0
    assert config_of(out)["vocab_size"] == len(AutoTokenizer.from_pretrained(out))


@pytest.mark.parametrize("label", ["SLERP", "TIES", "g0001-i000"])
def test_every_recipe_stands_alone(searched: Searched, tmp_path: Path, label: str) -> None:
    """Also one that names some of the models only: its vocabulary is that of all."""
    trials = [*searched.study.trials_of("baseline"), *searched.study.trials_of("genome")]
    [trial] = [trial for trial in trials if trial.label == label]
    parts = (searched.preparation, searched.study, searched.selection)
    export_winner(*parts, tmp_path / "out", trial=trial.key)
    merge_recipe(load_recipe(tmp_path / "out" / "recipe.yaml"), tmp_path / "again")
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"):
        ours, again = ((tmp_path / folder / name).read_bytes() for folder in ("out", "again"))
        assert ours == again, name
    stated = load_recipe(tmp_path / "out" / "recipe.yaml").evomerge["sources"]
    assert {entry["model"] for entry in stated} == set(searched.preparation.sources)


@pytest.mark.parametrize("label", ["base", "first"])
def test_a_model_by_itself_keeps_its_own_vocabulary(
    searched: Searched, family: Family, tmp_path: Path, label: str
) -> None:
    """It is scored and exported as its own folder says, and stock tools score both the same."""
    [trial] = [t for t in searched.study.trials_of("baseline") if t.label == label]
    parts = (searched.preparation, searched.study, searched.selection)
    report = export_winner(*parts, tmp_path / "out", trial=trial.key, verify=True)
    assert report.verification is not None
    assert (report.verification.items, report.verification.differing) == (8, 0)
    folder: Path = getattr(family, label)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes(), name
    assert torch.equal(load_tensors(tmp_path / "out")[EMBEDDING], load_tensors(folder)[EMBEDDING])
    merge_recipe(load_recipe(tmp_path / "out" / "recipe.yaml"), tmp_path / "again")
    again = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert again == (tmp_path / "out" / "model.safetensors").read_bytes()


def test_a_changed_tokenizer_ends_a_search_that_depends_on_it(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    before = fingerprints_of(prepared(family, tokenizer="union"))
    assert (
        check_unchanged(before, fingerprints_of(prepared(family, tokenizer="union")), where="run")
        == []
    )
    tokenizer = AutoTokenizer.from_pretrained(family.first)
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(family.first)
    with pytest.raises(RunError, match=r"first/tokenizer\.json changed"):
        check_unchanged(before, fingerprints_of(prepared(family, tokenizer="union")), where="run")


def score(preparation: PreparedJob, reference: str) -> Scored:
    recipe = {
        "merge_method": "linear",
        "models": [{"model": reference, "parameters": {"weight": 1.0}}],
        "out_dtype": preparation.out_dtype,
    }
    candidate = Candidate(
        key=CandidateKey(0, 0),
        kind="baseline",
        label="one",
        recipe=Recipe.model_validate(recipe),
        items={"sums_choice": tuple(range(12)), "sums_said": tuple(range(12))},
    )
    with LocalPool(preparation) as pool:
        [(_, outcome)] = pool.evaluate([candidate])
    assert isinstance(outcome, Scored), outcome
    return outcome


def test_the_tokenizer_of_a_source_is_the_base_s_for_models_that_lack_its_tokens(
    family: Family,
) -> None:
    preparation = prepared(family, tokenizer=str(family.second))
    tokenizer = AutoTokenizer.from_pretrained(family.second)
    assert preparation.tokenizer.get_vocab() == tokenizer.get_vocab()
    second = preparation.sources[str(family.second)]
    assert torch.equal(
        second.tensor(EMBEDDING), load_tensors(family.second)[EMBEDDING][: len(tokenizer)]
    )
    score(preparation, str(family.second))


def test_the_base_s_tokenizer_puts_the_experts_rows_in_its_order(family: Family) -> None:
    preparation = prepared(family)
    assert preparation.vocabulary is not None
    assert (
        preparation.tokenizer.get_vocab() == AutoTokenizer.from_pretrained(family.base).get_vocab()
    )
    base = preparation.sources[str(family.base)]
    assert base is preparation.base
    assert torch.equal(base.tensor(EMBEDDING), load_tensors(family.base)[EMBEDDING])
    model = AutoModelForCausalLM.from_pretrained(family.first)
    rows = preparation.sources[str(family.first)].tensor(EMBEDDING)
    assert torch.equal(rows, model.get_input_embeddings().weight[: len(rows)])
    score(preparation, str(family.first))


def test_models_that_agree_are_left_alone(family: Family, tmp_path: Path) -> None:
    again = make_family(tmp_path).base
    job = make_job(
        tmp_path,
        models={"base": str(family.base), "sources": [str(again)]},
        evaluation=EVALUATION,
    )
    preparation = prepare(pin(job))
    assert preparation.vocabulary is None
    recipe = preparation.space.decode(preparation.space.start)
    assert preparation.standing_alone(recipe) == recipe


def test_a_tokenizer_that_is_none_of_the_job_s_is_refused(family: Family) -> None:
    with pytest.raises(JobError, match="tokenizer: onion is neither `base` nor `union` nor one of"):
        prepared(family, tokenizer="onion")


def test_adapters_of_a_job_lie_over_its_base_and_are_pinned_with_it(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    adapter = save_adapter(tmp_path / "adapter", family.base)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace(str(family.base), "no/such/base"))
    sources = [str(adapter), str(family.first)]
    preparation = prepared(family, sources=sources, tokenizer="union")
    pinned = f"{family.base}+{adapter}"
    assert preparation.job.models.sources == (pinned, str(family.first))
    assert pin(preparation.job) == preparation.job
    assert score(preparation, pinned) != score(preparation, str(family.base))
    rows = [preparation.sources[name].tensor(EMBEDDING) for name in (pinned, str(family.base))]
    assert torch.equal(*rows)
