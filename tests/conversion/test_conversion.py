"""A file of mergekit as a job: its search starts at the merge; what is left out is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import Result
from mergekit.evo.genome import ModelGenome, ModelGenomeDefinition
from typer.testing import CliRunner

import evomerge
from evomerge.cli import app
from evomerge.job import JobSpec, load_job
from evomerge.merge import MergeEngine
from evomerge.recipe import Recipe, read_recipe
from evomerge.sources import open_source
from evomerge.space import build_space
from tests.checkpoints import save_tiny_llama
from tests.search.jobs import TASKS

LAYERS = 4
TASK = ("--task", "sums_choice:acc", "--task-folder", str(TASKS))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "first", "second", "third")):
        save_tiny_llama(folder / name, seed=seed, layers=LAYERS)
    return folder


def imported(models: Path, tmp_path: Path, document: Any, *options: str) -> Result:
    """The command on a file; names of models are folders."""
    text = document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False)
    file = tmp_path / "file.yaml"
    file.write_text(text.replace("M/", f"{models}/"))
    return CliRunner().invoke(
        app, ["import", str(file), "--out", str(tmp_path / "job.yaml"), *options]
    )


def job_of(models: Path, tmp_path: Path, document: Any, *options: str) -> JobSpec:
    result = imported(models, tmp_path, document, *options)
    assert result.exit_code == 0, result.output
    return load_job(tmp_path / "job.yaml")


def start_of(job: JobSpec) -> Recipe:
    """The recipe that the search of a job starts from."""
    assert job.search_space is not None
    structure = open_source(job.models.base, where="test").structure
    dtype = structure.dtype if job.compute.dtype == "auto" else job.compute.dtype
    space = build_space(
        job.search_space,
        base=job.models.base,
        sources=job.models.sources,
        structure=structure,
        out_dtype=dtype,
        seed=job.optimizer.seed,
    )
    return space.decode(space.start)


def tensors_of(recipe: Recipe) -> dict[str, torch.Tensor]:
    sources = {name: open_source(name, where="test") for name in recipe.references}
    return {name: tensor.clone() for name, tensor in MergeEngine(sources).execute(recipe)}


def assert_same_merge(first: Recipe, second: Recipe) -> None:
    found, wanted = tensors_of(first), tensors_of(second)
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


MERGES = {
    "task_arithmetic": """
merge_method: task_arithmetic
base_model: M/base
models:
  - {model: M/first, parameters: {weight: 0.7}}
  - {model: M/second, parameters: {weight: -0.25}}
parameters: {lambda: 0.9, int8_mask: true}
dtype: float32
""",
    "ties by component, beyond the usual range": """
merge_method: ties
base_model: M/base
models:
  - model: M/base
  - model: M/first
    parameters:
      density: 0.5
      weight:
        - {filter: self_attn, value: 2.5}
        - {filter: mlp, value: 0.5}
        - {value: 0.25}
  - {model: M/second, parameters: {density: 0.75, weight: 0.5}}
parameters: {normalize: true}
out_dtype: bfloat16
""",
    "dare_ties": """
merge_method: dare_ties
base_model: M/base
models:
  - {model: M/first, parameters: {weight: 0.5, density: 0.53}}
  - {model: M/second, parameters: {weight: 0.4, density: 0.47}}
tokenizer_source: M/second
dtype: float32
evomerge: {seed: 7}
""",
    "slerp with gradients": """
merge_method: slerp
base_model: M/first
models: [{model: M/first}, {model: M/second}]
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3]}
    - {value: 0.5}
dtype: float32
""",
    "linear without a base": """
merge_method: linear
models:
  - {model: M/first, parameters: {weight: 1.0}}
  - {model: M/second, parameters: {weight: 0.3}}
  - {model: M/third, parameters: {weight: 0.2}}
dtype: float32
""",
    "slices of every layer in its place": """
merge_method: task_arithmetic
base_model: M/base
slices:
  - sources:
      - {model: M/first, layer_range: [0, 2], parameters: {weight: 0.5}}
      - {model: M/second, layer_range: [0, 2], parameters: {weight: 0.25}}
      - {model: M/base, layer_range: [0, 2]}
  - sources:
      - {model: M/first, layer_range: [2, 3], parameters: {weight: 0.75}}
      - {model: M/second, layer_range: [2, 3], parameters: {weight: 0.125}}
      - {model: M/base, layer_range: [2, 3]}
  - sources:
      - {model: M/first, layer_range: [3, 4], parameters: {weight: 0.5}}
      - {model: M/second, layer_range: [3, 4], parameters: {weight: 0.25}}
      - {model: M/base, layer_range: [3, 4]}
dtype: float32
""",
    "slerp of slices, as most write it": """
merge_method: slerp
base_model: M/first
slices:
  - sources:
      - {model: M/first, layer_range: [0, 4]}
      - {model: M/second, layer_range: [0, 4]}
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 1]}
    - {filter: mlp, value: [1, 0.5, 0]}
    - {value: 0.5}
dtype: bfloat16
""",
    "frankenmerge": """
merge_method: passthrough
slices:
  - sources: [{model: M/first, layer_range: [0, 3]}]
  - sources: [{model: M/second, layer_range: [1, 3]}]
  - sources: [{model: M/first, layer_range: [2, 4]}]
dtype: float32
""",
}


@pytest.mark.parametrize("text", MERGES.values(), ids=MERGES)
def test_the_search_of_a_merge_starts_at_exactly_that_merge(
    models: Path, tmp_path: Path, text: str
) -> None:
    job = job_of(models, tmp_path, text, *TASK)
    assert_same_merge(start_of(job), read_recipe((tmp_path / "file.yaml").read_text(), where="f"))
    assert [(o.task, o.metric) for o in job.objectives] == [("sums_choice", "acc")]
    assert job.budget.candidates == 200


def test_the_search_space_of_a_merge_is_the_coarsest_that_has_it(
    models: Path, tmp_path: Path
) -> None:
    job = job_of(models, tmp_path, MERGES["task_arithmetic"], *TASK)
    assert isinstance(job.search_space, dict)
    assert (job.search_space["layers"], job.search_space["components"]) == ("all", "all")
    assert job.search_space["parameters"]["lambda"] == 0.9
    assert job.search_space["parameters"]["weight"]["low"] < -0.25
    assert job.compute.dtype == "float32"


def test_what_a_merge_has_besides_is_carried_over_or_noted(models: Path, tmp_path: Path) -> None:
    text = MERGES["dare_ties"].replace("dtype", "chat_template: chatml\ndtype")
    result = imported(models, tmp_path, text, *TASK)
    assert result.exit_code == 0, result.output
    job = load_job(tmp_path / "job.yaml")
    assert job.models.tokenizer == f"{models}/second"
    assert job.optimizer.seed == 7
    note = "chat_template: a job takes the tokenizer's own"
    assert result.stderr == f"note: {note}\n"
    assert f"# - {note}\n" in (tmp_path / "job.yaml").read_text()


EVOLVE: dict[str, Any] = {
    "genome": {
        "models": ["M/first", "M/second", "M/third"],
        "merge_method": "dare_ties",
        "base_model": "M/base",
    },
    "tasks": [
        {"name": "sums_choice", "metric": "acc,none", "weight": 2.0},
        {"name": "sums_said", "metric": "exact_match,none"},
    ],
}

GENOMES: dict[str, dict[str, Any]] = {
    "dare_ties": {},
    "groups": {"merge_method": "task_arithmetic", "layer_granularity": 2},
    "each layer": {"merge_method": "task_arithmetic", "layer_granularity": 1},
    "filters": {"merge_method": "ties", "filters": ["self_attn", "mlp"], "layer_granularity": 2},
    "smooth": {"merge_method": "task_arithmetic", "smooth": True, "layer_granularity": 2},
    "negative": {"merge_method": "task_arithmetic", "allow_negative_weights": True},
    "not normalised": {"merge_method": "ties", "normalize": False},
    "linear": {"merge_method": "linear", "base_model": None},
    "slerp": {"merge_method": "slerp", "models": ["M/first", "M/second"], "base_model": None},
}


@pytest.mark.parametrize("changes", GENOMES.values(), ids=GENOMES)
def test_a_search_of_mergekit_evolve_starts_where_it_started_there(
    models: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    genome = {**EVOLVE["genome"], **changes}
    job = job_of(models, tmp_path, {**EVOLVE, "genome": genome}, "--task-folder", str(TASKS))
    placed = yaml.safe_load(yaml.safe_dump(genome).replace("M/", f"{models}/"))
    theirs = ModelGenome(ModelGenomeDefinition.model_validate(placed))
    config = theirs.genotype_merge_config(theirs.initial_genotype())
    wanted = read_recipe(config.to_yaml(), where="mergekit")
    # Without what has no effect on tensors, or on masks that drop nothing.
    kept = {name: value for name, value in wanted.parameters.items() if name != "int8_mask"}
    if genome["merge_method"] == "slerp":
        kept.pop("normalize")
    found, expected = (
        tensors_of(start_of(job)),
        tensors_of(wanted.model_copy(update={"parameters": kept})),
    )
    for name, tensor in expected.items():
        assert torch.allclose(found[name].float(), tensor.float(), atol=1e-2, rtol=1e-2), name
    assert [(o.task, o.metric, o.weight) for o in job.objectives] == [
        ("sums_choice", "acc", 2.0),
        ("sums_said", "exact_match", 1.0),
    ]
    assert job.evaluation.apply_chat_template
    assert job.budget.candidates == 100


def test_a_genome_becomes_the_search_space_of_the_table_in_the_docs(
    models: Path, tmp_path: Path
) -> None:
    genome = {
        **EVOLVE["genome"],
        "layer_granularity": 2,
        "filters": ["self_attn", "mlp"],
        "normalize": False,
        "tokenizer_source": "union",
    }
    job = job_of(models, tmp_path, {**EVOLVE, "genome": genome}, "--task-folder", str(TASKS))
    assert job.search_space == {
        "method": "dare_ties",
        "layers": {"groups_of": 2},
        "components": ["attention", "mlp", "rest"],
        "parameters": {
            "weight": {"low": 0.0, "high": 1.5, "start": 1 / 3},
            "density": {"low": 0.1, "high": 1.0, "start": 1.0},
            "normalize": False,
        },
    }
    assert job.models.tokenizer == "union"


def test_everything_of_a_configuration_that_is_not_the_same_here_is_named(
    models: Path, tmp_path: Path
) -> None:
    document = {
        "genome": {
            **EVOLVE["genome"],
            "models": ["M/base", "M/first", "M/second"],
            "filters": ["self_attn", "lm_head"],
            "smooth": True,
            "tokenizer_source": "M/third",
        },
        "tasks": [{"name": "sums_choice", "metric": "acc", "weight": -1.0}, "sums_said"],
        "limit": 50,
        "num_fewshot": 2,
        "shuffle": True,
        "random_init": True,
        "fewshot_as_multiturn": False,
    }
    result = imported(models, tmp_path, document, "--task-folder", str(TASKS))
    assert result.exit_code == 0, result.output
    notes = [line.removeprefix("note: ") for line in result.stderr.splitlines()]
    begins = [
        "genome.models: ",
        "tokenizer_source: ",
        "genome.smooth: ",
        "genome.filters: lm_head: ",
        "genome.filters: [self_attn, lm_head] became",
        "tasks: sums_choice has weight -1",
        "limit: ",
        "shuffle: ",
        "random_init: ",
        "fewshot_as_multiturn: ",
    ]
    for begin in begins:
        assert sum(note.startswith(begin) for note in notes) == 1, (begin, notes)
    assert len(notes) == len(begins)
    written = (tmp_path / "job.yaml").read_text()
    for note in notes:
        assert f"# - {note}\n" in written
    job = load_job(tmp_path / "job.yaml")
    assert job.evaluation.items_per_generation == 100
    assert job.evaluation.num_fewshot == 2
    assert job.models.sources == (f"{models}/first", f"{models}/second")


@pytest.mark.parametrize(
    ("document", "options", "says"),
    [
        (MERGES["dare_ties"], (), "names no tasks, so nothing tells which merge is better; give"),
        (EVOLVE, TASK, "--task: "),
        ({**EVOLVE, "limits": 3}, (), "limits: "),
        (
            {"genome": {**EVOLVE["genome"], "layer_granularity": 3}, "tasks": EVOLVE["tasks"]},
            ("--task-folder", str(TASKS)),
            "layer_granularity: 3 does not divide the 4 layers",
        ),
        (
            {"genome": {**EVOLVE["genome"], "merge_method": "karcher"}, "tasks": EVOLVE["tasks"]},
            (),
            "genome.merge_method",
        ),
        ({**EVOLVE, "tasks": []}, (), "tasks"),
        (
            "merge_method: model_stock\nbase_model: M/base\nmodels: [{model: M/first},"
            " {model: M/second}]\n",
            TASK,
            "model_stock has no number to search",
        ),
        (
            "merge_method: linear\nmodels: [{model: M/first, parameters: {weight: 1}}]\n",
            TASK,
            "a search merges it with another",
        ),
        ("merge_method: nothing\nmodels: [{model: M/first}]\n", TASK, "nothing: no such method"),
        (
            "merge_method: linear\nmodels: [{model: M/none, parameters: {weight: 1}}]\n",
            TASK,
            "M/none",
        ),
        (
            MERGES["dare_ties"],
            ("--task", "sums_choice:f1", "--task-folder", str(TASKS)),
            "no metric f1; usable here: acc",
        ),
        ("just: words\n", TASK, "merge_method: missing"),
        ("[", TASK, ""),
    ],
)
def test_what_cannot_become_a_job_is_one_line_and_nothing_is_written(
    models: Path, tmp_path: Path, document: Any, options: tuple[str, ...], says: str
) -> None:
    result = imported(models, tmp_path, document, *options)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert says.replace("M/", f"{models}/") in result.stderr
    assert not (tmp_path / "job.yaml").exists()


def test_a_merge_that_no_space_has_is_searched_from_its_means_and_that_is_said(
    models: Path, tmp_path: Path
) -> None:
    weight = "[{filter: embed_tokens, value: 0.1}, {value: 0.5}]"
    text = MERGES["task_arithmetic"].replace("weight: 0.7", f"weight: {weight}")
    result = imported(models, tmp_path, text.replace("weight: -0.25", "weight: 0.6"), *TASK)
    assert result.exit_code == 0, result.output
    note = result.stderr.splitlines()[-1].removeprefix("note: ")
    assert note.startswith("the merge itself is not the start: ")
    assert f"# - {note}\n" in (tmp_path / "job.yaml").read_text()
    space = load_job(tmp_path / "job.yaml").search_space
    assert isinstance(space, dict)
    assert space["parameters"]["weight"]["start"] == pytest.approx(0.4)
    assert "start_from" not in space


def test_scales_of_a_frankenmerge_are_left_out_by_name(models: Path, tmp_path: Path) -> None:
    text = MERGES["frankenmerge"].replace("[1, 3]", "[1, 3], parameters: {scale: 0.5}")
    result = imported(models, tmp_path, text, *TASK)
    assert result.exit_code == 0, result.output
    assert "slices.1: scale left out" in result.stderr


def test_a_merge_without_a_base_may_be_given_one(models: Path, tmp_path: Path) -> None:
    text = MERGES["linear without a base"].replace("linear", "nuslerp")
    text = text.replace("  - {model: M/third, parameters: {weight: 0.2}}\n", "")
    refused = imported(models, tmp_path, text, *TASK)
    assert refused.exit_code == 2
    assert refused.stderr.endswith("name the model that they were tuned from with --base\n")
    job = job_of(models, tmp_path, text, *TASK, "--base", f"{models}/base")
    assert job.models.sources == (f"{models}/first", f"{models}/second")
    assert_same_merge(start_of(job), read_recipe((tmp_path / "file.yaml").read_text(), where="f"))
    (tmp_path / "job.yaml").unlink()
    wrong = imported(models, tmp_path, MERGES["dare_ties"], *TASK, "--base", f"{models}/first")
    assert wrong.exit_code == 2
    assert "leave --base out" in wrong.stderr


def test_a_job_that_exists_is_kept(models: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("mine")
    result = imported(models, tmp_path, MERGES["dare_ties"], *TASK)
    assert result.exit_code == 2
    assert (tmp_path / "job.yaml").read_text() == "mine"


def test_python_gives_the_job_and_the_notes(models: Path, tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(MERGES["task_arithmetic"].replace("M/", f"{models}/"))
    found = evomerge.import_job(
        tmp_path / "file.yaml",
        tmp_path / "mine.yaml",
        tasks=["sums_choice"],
        task_folders=[TASKS],
        hours=2.0,
    )
    assert isinstance(found, evomerge.ImportedJob)
    assert found.job == load_job(tmp_path / "mine.yaml")
    assert (found.job.name, found.job.budget.hours) == ("mine", 2.0)
    assert found.notes == (
        "parameters.int8_mask: task_arithmetic has no such parameter here (it only saves memory "
        "there)",
    )


def test_the_job_is_one_that_check_accepts(models: Path, tmp_path: Path) -> None:
    job_of(models, tmp_path, MERGES["ties by component, beyond the usual range"], *TASK)
    checked = CliRunner().invoke(app, ["check", str(tmp_path / "job.yaml"), "--no-timing"])
    assert checked.exit_code == 0, checked.output
