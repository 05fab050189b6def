"""Every model runs by its own files, and a merge by those it is exported with."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.errors import SourceError, TaskError
from evomerge.evaluate.candidate import Candidate, CandidateKey, Scored, TaskItems
from evomerge.evaluate.stock import StockOptions, score_stock
from evomerge.export import merge_recipe
from evomerge.export.checkpoint import write_checkpoint
from evomerge.job import parse_job
from evomerge.merge.merged_source import open_stages
from evomerge.recipe import Recipe, load_recipe
from evomerge.search.baselines import only
from evomerge.workers.pool import LocalPool
from evomerge.workers.pool_choice import check_models
from evomerge.workers.preparation.preparation import pin, prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.vocabulary.models import WORDS, save_adapter, save_model, word_tokenizer

ITEMS = 60
TOKENS = 8
METRICS = {"pick": ("acc",), "say": ("exact_match",)}

TEMPLATE = "{% for m in messages %}WORD {{ m.content }} {% endfor %}is "


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def questions() -> list[str]:
    draw = random.Random(0)
    words = WORDS[4:]
    return [" ".join(draw.choice(words) for _ in range(draw.randint(6, 14))) for _ in range(ITEMS)]


def said(folder: Path, *, tokens: int = TOKENS) -> list[list[int]]:
    """What a model says to every question by plain transformers, without its end tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answers = []
    for question in questions():
        ids = tokenizer(question, return_tensors="pt").input_ids
        made = model.generate(ids, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
        answers.append(made[0, ids.shape[1] :].tolist())
    return answers


def write_tasks(folder: Path, answers: Sequence[str]) -> Path:
    """One task of each kind over the questions."""
    folder.mkdir()
    draw, words = random.Random(1), WORDS[4:]
    rows = [
        {"q": q, "a": a, "choices": draw.sample(words, 4), "gold": draw.randrange(4)}
        for q, a in zip(questions(), answers, strict=True)
    ]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "{{q}}",
    }
    pick = {
        **shared,
        "task": "pick",
        "output_type": "multiple_choice",
        "doc_to_target": "gold",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    say = {
        **shared,
        "task": "say",
        "output_type": "generate_until",
        "doc_to_target": "a",
        "generation_kwargs": {"until": ["?"], "max_gen_toks": TOKENS, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    for task in (pick, say):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(task))
    return folder


def changed(folder: Path, of: Path, name: str, **fields: Any) -> Path:
    """A copy of a model that says otherwise in one of its JSON files."""
    shutil.copytree(of, folder)
    document = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**document, **fields}))
    return folder


def prepared(base: Path, sources: Sequence[Path], tasks: Path, **changes: Any) -> PreparedJob:
    evaluation = {
        "task_folders": [str(tasks)],
        "split": {"search": 0.4, "validation": 0.3, "test": 0.3},
        **changes.pop("evaluation", {}),
    }
    document = {
        "name": "settings",
        "models": {
            "base": str(base),
            "sources": [str(source) for source in sources],
            **changes.pop("models", {}),
        },
        "search_space": "one_weight_per_model",
        "objectives": [
            {"task": "pick", "metric": "acc"},
            {"task": "say", "metric": "exact_match"},
        ],
        "evaluation": evaluation,
        "budget": {"candidates": 12},
        "compute": {"device": "cpu"},
        **changes,
    }
    return prepare(pin(parse_job(yaml.safe_dump(document), where="job.yaml")))


def scored(preparation: PreparedJob, *recipes: Recipe) -> list[dict[str, TaskItems]]:
    """Item results of recipes on all items, one after another on one worker."""
    items = {task: tuple(range(ITEMS)) for task in METRICS}
    candidates = [
        Candidate(
            key=CandidateKey(0, place), kind="baseline", label="one", recipe=recipe, items=items
        )
        for place, recipe in enumerate(recipes)
    ]
    with LocalPool(preparation) as pool:
        outcomes = {candidate.key: outcome for candidate, outcome in pool.evaluate(candidates)}
    found = [outcomes[candidate.key] for candidate in candidates]
    assert all(isinstance(outcome, Scored) for outcome in found), found
    return [dict(outcome.tasks) for outcome in found if isinstance(outcome, Scored)]


def stock(folder: Path, tasks: Path, *, chat: bool = False) -> dict[str, TaskItems]:
    options = StockOptions(
        dtype="float32", device="cpu", batch_size=8, task_folders=(tasks,), apply_chat_template=chat
    )
    items = {task: tuple(range(ITEMS)) for task in METRICS}
    return dict(score_stock(folder, items, METRICS, options))


def written(preparation: PreparedJob, recipe: Recipe, out: Path) -> Path:
    """The checkpoint of a recipe as an export writes it."""
    out.mkdir()
    delivered, stated = preparation.exported(recipe), preparation.standing_alone(recipe)
    sources = open_stages(stated, delivered.sources)
    write_checkpoint(stated, sources, delivered.tokenizer_source, out)
    (out / "recipe.yaml").write_text(stated.to_yaml())
    return out


def alone(model: Path) -> Recipe:
    return only(str(model), out_dtype="float32")


def soup(*models: Path) -> Recipe:
    entries = [{"model": str(model), "parameters": {"weight": 1.0}} for model in models]
    fields = {"merge_method": "linear", "models": entries, "parameters": {"normalize": True}}
    return Recipe.model_validate({**fields, "out_dtype": "float32"})


@pytest.mark.parametrize(
    "setting",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 3.0}},
        {"rope_parameters": None, "rope_theta": 3.0},
        {"rms_norm_eps": 2.0},
        {"hidden_act": "relu"},
    ],
    ids=["rope", "old_rope", "epsilon", "activation"],
)
def test_models_of_other_forward_passes_score_what_stock_tools_say(
    tmp_path: Path, setting: dict[str, Any]
) -> None:
    """By themselves with their own settings, and a merge with those it is exported with."""
    base = save_model(tmp_path / "base", word_tokenizer(WORDS), seed=0)
    first = save_model(tmp_path / "first", word_tokenizer(WORDS), seed=1)
    other = changed(tmp_path / "other", first, "config.json", **setting)
    tasks = write_tasks(tmp_path / "tasks", ["one"] * ITEMS)
    preparation = prepared(base, [other, first], tasks)
    led = soup(other, base)
    ours, theirs, merged = scored(preparation, alone(other), alone(first), led)
    assert ours == stock(other, tasks)
    assert theirs == stock(first, tasks)
    assert ours != theirs
    assert merged == stock(written(preparation, led, tmp_path / "out"), tasks)
    key = next(iter(setting)).replace("rope_parameters", "rope_parameters.rope_theta")
    [note] = preparation.notes
    assert note.startswith(f"models differ in settings of the forward pass: {key} is ")
    assert str(other) in note
    block = preparation.standing_alone(led).evomerge["differing_settings"]
    assert list(block) == [key]
    assert block[key].keys() == {str(base), str(other)}
    told: list[str] = []
    merge_recipe(led, tmp_path / "merged", say=told.append)
    assert [line.split(" is ")[0] for line in told] == [note.split(" is ")[0]]
    card = (tmp_path / "merged" / "README.md").read_text()
    assert f"{key} is " in card
    assert str(tmp_path) not in card


def test_answers_end_and_repeat_as_each_model_s_own_files_say(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", word_tokenizer(WORDS), seed=0)
    other = save_model(tmp_path / "other", word_tokenizer(WORDS), seed=1)
    told = said(other)
    end = max(range(4, len(WORDS)), key=lambda token: sum(token in each[1:] for each in told))
    generation = {"eos_token_id": [2, end], "repetition_penalty": 1.3, "do_sample": True}
    (other / "generation_config.json").write_text(json.dumps(generation))
    tokenizer = AutoTokenizer.from_pretrained(other)
    answers = [tokenizer.decode(ids, skip_special_tokens=True) for ids in said(other)]
    tasks = write_tasks(tmp_path / "tasks", answers)
    preparation = prepared(base, [other], tasks)
    merge = soup(base, other)
    theirs, merged, again = scored(preparation, alone(other), merge, alone(other))
    assert theirs == again == stock(other, tasks)
    assert theirs["say"].mean("exact_match") > 0.9
    out = written(preparation, merge, tmp_path / "out")
    assert merged == stock(out, tasks)
    stated = json.loads((out / "generation_config.json").read_text())
    assert stated["eos_token_id"] == [2, end]
    assert "repetition_penalty" not in stated  # the leading model's, which has none
    assert load_recipe(out / "recipe.yaml").evomerge["generation"] == {"eos_token_id": [2, end]}
    merge_recipe(load_recipe(out / "recipe.yaml"), tmp_path / "again")
    assert (tmp_path / "again" / "generation_config.json").read_bytes() == (
        out / "generation_config.json"
    ).read_bytes()
    by_itself = written(preparation, alone(other), tmp_path / "alone")
    for name in ("generation_config.json", "tokenizer_config.json"):
        assert (by_itself / name).read_bytes() == (other / name).read_bytes()
    ends, repeats = preparation.notes
    assert f"eos_token_id is [2] in {base}, [2, {end}] in {other}; a merge ends at all" in ends
    assert f"repetition_penalty is not set in {base}, 1.3 in {other}" in repeats


@pytest.mark.parametrize("longest", [1, 3 * TOKENS])
def test_a_model_s_own_longest_answer_goes_before_the_task_s(tmp_path: Path, longest: int) -> None:
    base = save_model(tmp_path / "base", word_tokenizer(WORDS), seed=0)
    other = changed(tmp_path / "other", base, "generation_config.json", max_new_tokens=longest)
    tokenizer = AutoTokenizer.from_pretrained(other)
    answers = [
        tokenizer.decode(ids, skip_special_tokens=True) for ids in said(other, tokens=longest)
    ]
    assert [tokenizer.decode(ids, skip_special_tokens=True) for ids in said(other)] != answers
    tasks = write_tasks(tmp_path / "tasks", answers)
    preparation = prepared(base, [other], tasks)
    merge = soup(base, other)
    [theirs, _] = scored(preparation, alone(other), merge)
    assert theirs["say"] == stock(other, tasks)["say"]
    assert theirs["say"].mean("exact_match") > 0.9
    assert "max_new_tokens is" in preparation.notes[0]


def test_a_recipe_says_how_its_answers_end(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", word_tokenizer(WORDS), seed=0)
    other = save_model(tmp_path / "other", word_tokenizer(WORDS), seed=1, eos_token_id=[2, 7])
    united, chosen = soup(base, other), soup(base, other).with_block(generation={"eos_token_id": 7})
    for recipe, wanted in ((united, [2, 7]), (chosen, 7)):
        out = tmp_path / f"out{wanted}"
        merge_recipe(recipe, out)
        assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == wanted


def test_a_merge_led_by_an_adapter_generates_as_its_base_says(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", word_tokenizer(WORDS), seed=0)
    first, second = (save_adapter(tmp_path / name, base, seed=n) for n, name in enumerate("ab"))
    merge_recipe(soup(first, second), tmp_path / "out")
    assert (tmp_path / "out" / "generation_config.json").read_bytes() == (
        base / "generation_config.json"
    ).read_bytes()


def with_template(folder: Path, template: str) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def test_every_model_is_asked_in_its_own_chat_template(tmp_path: Path) -> None:
    """One without any is asked in the job's, which is said and exported with it."""
    base, other, bare = (
        save_model(tmp_path / name, word_tokenizer(WORDS), seed=seed)
        for seed, name in enumerate(("base", "other", "bare"))
    )
    with_template(base, TEMPLATE.replace("WORD", "three four"))
    with_template(other, TEMPLATE.replace("WORD", "seven minus"))
    tasks = write_tasks(tmp_path / "tasks", ["one"] * ITEMS)
    preparation = prepared(base, [other, bare], tasks, evaluation={"apply_chat_template": True})
    ours, theirs, lent = scored(preparation, alone(base), alone(other), alone(bare))
    assert ours == stock(base, tasks, chat=True)
    assert theirs == stock(other, tasks, chat=True)
    assert lent == stock(written(preparation, alone(bare), tmp_path / "out"), tasks, chat=True)
    assert any(f"{bare} by itself gets the job's chat" in n for n in preparation.notes)
    assert preparation.alone[str(base)].suite is preparation.suite
    asked = set(preparation.task_files) - set(preparation.suite.task_files)
    assert asked == {f"items of {task}, asked of {other}" for task in METRICS}


def test_tokens_without_rows_are_found_before_a_search(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", word_tokenizer(WORDS), seed=0)
    other = save_model(tmp_path / "other", word_tokenizer(WORDS), seed=1)
    for folder in (base, other):
        word_tokenizer(WORDS, ["<chat>"]).save_pretrained(folder)
        with_template(folder, TEMPLATE.replace("WORD", "<chat>"))
    tasks = write_tasks(tmp_path / "tasks", ["one"] * ITEMS)
    check_models(prepared(base, [other], tasks))
    asked = prepared(base, [other], tasks, evaluation={"apply_chat_template": True})
    wanted = rf"task pick: its prompts hold '<chat>', token {len(WORDS)}, and .*base has "
    with pytest.raises(TaskError, match=wanted + f"{len(WORDS)} rows"):
        check_models(asked)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("no_repeat_ngram_size", 2),
        ("encoder_no_repeat_ngram_size", 1),
        ("encoder_repetition_penalty", 3.0),
        ("max_time", 0.5),
        ("token_healing", True),
        ("repetition_penalty", 0),
        ("repetition_penalty", -1.0),
        ("repetition_penalty", "1.2"),
        ("eos_token_id", [[2]]),
        ("eos_token_id", "2"),
    ],
)
def test_a_parent_that_does_not_decode_greedily_is_refused_before_a_search(
    tmp_path: Path, field: str, value: Any
) -> None:
    base = save_model(tmp_path / "base", word_tokenizer(WORDS), seed=0)
    other = changed(tmp_path / "other", base, "generation_config.json", **{field: value})
    tasks = write_tasks(tmp_path / "tasks", ["one"] * ITEMS)
    with pytest.raises(SourceError, match=rf"other/generation_config\.json: {field}: "):
        prepared(base, [other], tasks)


@pytest.mark.parametrize("says", [{"repetition_penalty": 1.5}, {"eos_token_id": None}])
def test_without_a_file_of_its_own_generation_is_as_config_json_says(
    tmp_path: Path, says: dict[str, Any]
) -> None:
    """All that it says, and no end token that only transformers' class for the model has."""
    base = save_model(tmp_path / "base", word_tokenizer(WORDS), seed=0)
    tokenizer = word_tokenizer(WORDS)
    tokenizer.eos_token = "?"
    tokenizer.save_pretrained(base)
    other = changed(tmp_path / "other", base, "config.json", **says)
    (other / "generation_config.json").unlink()
    config = json.loads((other / "config.json").read_text())
    stated = {key: value for key, value in config.items() if value is not None}
    (other / "config.json").write_text(json.dumps(stated))
    words = AutoTokenizer.from_pretrained(other)
    answers = [words.decode(one, skip_special_tokens=True) for one in said(other)]
    tasks = write_tasks(tmp_path / "tasks", answers)
    [ours] = scored(prepared(base, [other], tasks), alone(other))
    assert ours["say"] == stock(other, tasks)["say"]
    assert sum(ours["say"].metrics["exact_match"]) > 0
