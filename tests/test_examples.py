"""Every example runs: recipes on tiny models under the names that they use, jobs as they are.

What a recipe says of itself in its comments is checked on the merged tensors.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from mergekit.config import MergeConfiguration
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

import evomerge
from evomerge.cli import app
from evomerge.evaluate import suite
from evomerge.evaluate.catalogue import FoundTask
from evomerge.evaluate.encoding import Encoder
from evomerge.evaluate.scored_task import ScoredTask
from evomerge.grid import cells_of, check_grid, load_grid, pin_grid
from evomerge.job import JobSpec, load_job
from evomerge.recipe import Recipe, load_recipe
from evomerge.search.baselines import Baselines
from evomerge.search.loop import SPACE_START
from evomerge.workers.preparation.preparation import pin, prepare
from tests.architectures import ARCHITECTURES, save_expert
from tests.checkpoints import WORDS, load_tensors, word_tokenizer

ROOT = Path(evomerge.__file__).parents[1]
EXAMPLES = ROOT / "examples"
RECIPES = {path.stem: path for path in sorted((EXAMPLES / "recipes").glob("*.yaml"))}
JOBS = {
    f"{path.parent.name}-{path.stem}": path
    for path in sorted(EXAMPLES.glob("*/*.yaml"))
    if path.parent.name != "recipes" and path.stem != "grid"
}
GRIDS = {path.parent.name: path for path in sorted(EXAMPLES.glob("*/grid.yaml"))}

HALF_STEP = 2.0**-8 + 1e-6
"""Rounding to bfloat16 once, relative to the value; and a few roundings of float32 before it."""

Tensors = Mapping[str, torch.Tensor]


def save_llama(
    folder: Path,
    *,
    layers: int = 3,
    labels: int | None = None,
    words: Sequence[str] = (),
    context: int = 64,
) -> None:
    """A random Llama, in float32; a classifier where there are labels. words: tokens of its own."""
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(list(words))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **({} if labels is None else {"num_labels": labels}),
    )
    torch.manual_seed(len(words))
    model = (LlamaForCausalLM if labels is None else LlamaForSequenceClassification)(config)
    _save(folder, model, tokenizer)


def save_llava(folder: Path, *, of: Path) -> None:
    """A random LLaVA whose language model is that of a plain Llama, with a token for images."""
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["<image>"])
    config = ARCHITECTURES["llava"][1]()
    config.text_config = LlamaConfig.from_pretrained(of, vocab_size=len(tokenizer))
    config.image_token_id = len(WORDS)
    torch.manual_seed(2)
    _save(folder, transformers.LlavaForConditionalGeneration(config), tokenizer)


def _save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_fine_tunes(
    references: Sequence[str], *, layers: int = 3, labels: int | None = None
) -> None:
    """One Llama, and fine-tunes of it under the other names."""
    first, *others = (Path(reference) for reference in references)
    save_llama(first, layers=layers, labels=labels)
    for seed, other in enumerate(others):
        save_expert(other, of=first, seed=seed)


def save_vocabularies(references: Sequence[str]) -> None:
    """Models that share 80 words and have others of their own, at the same rows."""
    base, chat, code = (Path(reference) for reference in references)
    save_llama(base)
    save_llama(chat, words=["<|im_start|>", "<|im_end|>"])
    save_llama(code, words=["<|def|>", "<|im_end|>", "<|return|>"])


def save_eyes(references: Sequence[str]) -> None:
    """A base, a vision-language model over a Llama like it, and a plain fine-tune."""
    base, vision, expert = (Path(reference) for reference in references)
    save_llama(base)
    save_llava(vision, of=base)
    save_expert(expert, of=base, seed=1)


MODELS: Mapping[str, Callable[[Sequence[str]], None]] = {
    "swa": save_fine_tunes,
    "lawa": save_fine_tunes,
    "warm": lambda references: save_fine_tunes(references, labels=1),
    "ties_gradient": save_fine_tunes,
    **dict.fromkeys(
        ("depth_up_scaling", "layer_removal", "layer_repetition", "route"),
        lambda references: save_fine_tunes(references, layers=32),
    ),
    "tokenizer_union": save_vocabularies,
    "vision_language": save_eyes,
}
"""Example -> what makes its models, given their names, the base first."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A recipe and the models that it was executed on."""

    recipe: Recipe
    out: Path
    tensors: Tensors
    sources: tuple[Tensors, ...]  # the base first, then in the recipe's order


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Merged]:
    """Executes an example once, by its name."""

    @cache
    def execute(name: str) -> Merged:
        recipe = load_recipe(RECIPES[name])
        with contextlib.chdir(tmp_path_factory.mktemp(name)), torch.random.fork_rng(devices=[]):
            MODELS[name](recipe.references)
            result = CliRunner().invoke(app, ["merge", str(RECIPES[name]), "--out", "merged"])
            assert result.exit_code == 0, result.output
            out = Path("merged").resolve()
            sources = tuple(load_tensors(Path(reference)) for reference in recipe.references)
        return Merged(recipe=recipe, out=out, tensors=load_tensors(out), sources=sources)

    return execute


def load(folder: Path) -> PreTrainedModel:
    """The class that the config names, of plain transformers; every tensor must have a place."""
    kind = getattr(transformers, AutoConfig.from_pretrained(folder).architectures[0])
    model, found = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(found.values()), found
    loaded: PreTrainedModel = model
    return loaded


def assert_rounded(tensor: torch.Tensor, expected: torch.Tensor) -> None:
    assert tensor.dtype == torch.bfloat16
    error = (tensor.double() - expected.double()).abs()
    near_zero = 1e-6 * expected.double().abs().max()  # where the sources cancel
    assert (error <= HALF_STEP * expected.double().abs() + near_zero).all()


def rows_of(folder: Path) -> dict[str, int]:
    vocabulary: dict[str, int] = AutoTokenizer.from_pretrained(folder).get_vocab()
    return vocabulary


def test_every_recipe_has_its_models_here() -> None:
    assert set(RECIPES) == set(MODELS)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_makes_a_model_that_plain_transformers_loads(
    merged: Callable[[str], Merged], name: str
) -> None:
    model = load(merged(name).out)
    with torch.inference_mode():
        logits = model(torch.tensor([[1, 5, 6]])).logits
    assert model.dtype == torch.bfloat16
    assert logits.isfinite().all() and (logits != 0).any()


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"route"}))
def test_a_recipe_is_mergekit_yaml(name: str) -> None:
    document = yaml.safe_load(RECIPES[name].read_text(encoding="utf-8"))
    document.pop("evomerge", None)
    assert MergeConfiguration.model_validate(document).merge_method == document["merge_method"]


def test_a_route_is_refused_by_mergekit_as_its_comment_says() -> None:
    document = yaml.safe_load(RECIPES["route"].read_text(encoding="utf-8"))
    with pytest.raises(RuntimeError, match="must be present"):
        MergeConfiguration.model_validate(document)


@pytest.mark.parametrize(("name", "count"), [("swa", 5), ("lawa", 3), ("warm", 3)])
def test_an_average_is_equal(merged: Callable[[str], Merged], name: str, count: int) -> None:
    made = merged(name)
    assert len(made.sources) == count
    for key, tensor in made.tensors.items():
        assert_rounded(tensor, torch.stack([each[key] for each in made.sources]).double().mean(0))


def test_warm_averages_the_one_label_too(merged: Callable[[str], Merged]) -> None:
    made = merged("warm")
    assert AutoConfig.from_pretrained(made.out).num_labels == 1
    assert made.tensors["score.weight"].shape == (1, 16)


STACKS: Mapping[str, Sequence[tuple[int, range, float]]] = {
    "depth_up_scaling": [(0, range(24), 1.0), (0, range(8, 32), 1.0)],
    "layer_removal": [(0, range(22), 1.0), (0, range(30, 32), 1.0)],
    "layer_repetition": [(0, range(first, first + 8), 1.0) for first in range(0, 28, 4)],
    "route": [(0, range(20), 1.0), (1, range(16, 28), 0.9), (0, range(24, 32), 0.9 * 1.2)],
}
"""Example -> the source of each run of layers, the layers, and the product of all scales so far."""


@pytest.mark.parametrize(
    ("name", "depth"),
    [("depth_up_scaling", 48), ("layer_removal", 24), ("layer_repetition", 56), ("route", 40)],
)
def test_layers_are_stacked_as_they_are_but_for_scales(
    merged: Callable[[str], Merged], name: str, depth: int
) -> None:
    made = merged(name)
    assert AutoConfig.from_pretrained(made.out).num_hidden_layers == depth
    stack = [(made.sources[of], n, scale) for of, run, scale in STACKS[name] for n in run]
    assert len(stack) == depth
    for layer, (source, number, scale) in enumerate(stack):
        for part in ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj", "input_layernorm"):
            adds = part in ("self_attn.o_proj", "mlp.down_proj")
            tensor = made.tensors[f"model.layers.{layer}.{part}.weight"]
            expected = source[f"model.layers.{number}.{part}.weight"] / (scale if adds else 1.0)
            assert_rounded(tensor, expected)
    first, last = (made.sources[STACKS[name][place][0]] for place in (0, -1))
    assert_rounded(made.tensors["model.embed_tokens.weight"], first["model.embed_tokens.weight"])
    for outer in ("model.norm.weight", "lm_head.weight"):
        assert_rounded(made.tensors[outer], last[outer])


def largest(change: torch.Tensor, density: float) -> torch.Tensor:
    """Where the largest changes are, this share of all."""
    smallest = change.abs().flatten().topk(int(density * change.numel())).values[-1]
    return change.abs() >= smallest


def test_gradients_and_filters_of_ties_reach_their_layers(
    merged: Callable[[str], Merged],
) -> None:
    """The math model has no weight in the first layer's attention, and has it in the last, where
    0.8 of its changes are kept and 0.2 of the other's; what one alone changes is taken whole.
    """
    made = merged("ties_gradient")
    base, instruct, math = made.sources
    first = "model.layers.0.self_attn.q_proj.weight"
    change = instruct[first] - base[first]
    kept = torch.where(largest(change, 0.8), change, 0.0)
    assert_rounded(made.tensors[first], base[first] + kept)
    last = "model.layers.2.self_attn.q_proj.weight"
    changes = [(each[last] - base[last]) for each in (instruct, math)]
    alone = ~largest(changes[0], 0.2)
    kept = torch.where(largest(changes[1], 0.8), changes[1], 0.0)
    assert_rounded(made.tensors[last][alone], (base[last] + kept)[alone])


def test_a_union_matches_rows_by_token(merged: Callable[[str], Merged]) -> None:
    made = merged("tokenizer_union")
    rows = rows_of(made.out)
    base, chat, code = (each["model.embed_tokens.weight"] for each in made.sources)
    embedding = made.tensors["model.embed_tokens.weight"]
    assert set(rows) == {
        *WORDS, "<|im_start|>", "<|im_end|>", "<|def|>", "<|return|>", "<|tool|>"
    }  # fmt: skip
    first, second = len(WORDS), len(WORDS) + 1
    assert_rounded(embedding[rows["<|im_start|>"]], chat[first])
    assert_rounded(embedding[rows["<|im_end|>"]], chat[second])
    assert_rounded(embedding[rows["<|def|>"]], code[first])
    assert (embedding[rows["<|tool|>"]] == 0).all()
    shared = slice(0, len(WORDS))
    changes = [(each[shared] - base[shared]).double() for each in (chat, code)]
    assert_rounded(embedding[shared], base[shared] + 0.6 * changes[0] + 0.6 * changes[1])
    assert len(embedding) == AutoConfig.from_pretrained(made.out).vocab_size == 128


def test_a_union_speaks_by_the_chat_template(merged: Callable[[str], Merged]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(merged("tokenizer_union").out)
    said = tokenizer.apply_chat_template(
        [{"role": "user", "content": "two plus two"}], tokenize=False
    )
    assert said.startswith("<|im_start|>user\ntwo plus two<|im_end|>")


def test_a_vision_language_model_keeps_its_eyes(merged: Callable[[str], Merged]) -> None:
    made = merged("vision_language")
    base, vision, _ = made.sources
    assert set(made.tensors) == set(vision)
    learned = 0
    for name, tensor in made.tensors.items():
        plain = name.removeprefix("language_model.")
        if plain not in base:
            assert_rounded(tensor, vision[name])
        elif ".layers." in name and tensor.dim() == 2:
            learned += not torch.equal(tensor, vision[name].bfloat16())
    assert learned == 3 * 7
    assert {"vision_tower", "multi_modal_projector"} <= {
        part for name in made.tensors for part in name.split(".")
    }
    image = rows_of(made.out)["<image>"]
    for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        assert_rounded(made.tensors[name][image], vision[name][image])


@pytest.fixture
def at_the_top(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Jobs name their models from the top of the repository.

    The base of the real models is made of a package, so tiny models stand in for them here.
    """
    top = ROOT
    path = request.node.callspec.params["path"]
    if path.parent.name == "smollm2":
        top = tmp_path
        folder = top / path.parent.relative_to(ROOT)
        folder.mkdir(parents=True)
        (folder / "tasks").symlink_to(path.parent / "tasks")
        save_stand_ins(folder / "models", load_job(path))
    with contextlib.chdir(top):
        yield


def save_stand_ins(models: Path, job: JobSpec) -> None:
    """A small Llama with a chat template, and an adapter under each name of the job's sources."""
    words = ["<|user|>", "<|answer|>"]
    save_llama(models / "base", layers=6, words=words, context=256)
    tokenizer = AutoTokenizer.from_pretrained(models / "base")
    tokenizer.chat_template = "<|user|> {{ messages[-1]['content'] }} <|answer|>"
    tokenizer.save_pretrained(models / "base")
    for name in sorted({Path(source).name for source in job.models.sources} - {"base"}):
        model = LlamaForCausalLM.from_pretrained(models / "base")
        get_peft_model(model, LoraConfig(r=2, target_modules="all-linear")).save_pretrained(
            models / name
        )


@pytest.fixture(scope="module")
def _tasks_built_once() -> Iterator[None]:
    """The examples on kana share their tasks, ten thousand items that take seconds to build."""
    built: dict[tuple[str, str, object], ScoredTask] = {}

    def build(found: FoundTask, *, encoder: Encoder, **settings: Any) -> ScoredTask:
        key = (found.name, encoder._tokenizer.name_or_path, tuple(sorted(settings.items())))
        if key not in built:
            built[key] = ScoredTask(found, encoder=encoder, **settings)
        return built[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite, "ScoredTask", build)
        yield


@pytest.mark.usefixtures("at_the_top", "_tasks_built_once")
@pytest.mark.parametrize("path", JOBS.values(), ids=JOBS)
def test_a_job_is_ready_to_run(path: Path) -> None:
    job = load_job(path)
    preparation = prepare(pin(job))
    assert len(preparation.sources) == 1 + len(job.models.sources)
    assert preparation.space.genes


@pytest.mark.usefixtures("at_the_top", "_tasks_built_once")
@pytest.mark.parametrize("path", GRIDS.values(), ids=GRIDS)
def test_a_grid_is_ready_to_run(path: Path) -> None:
    grid = pin_grid(load_grid(path))
    preparation = prepare(grid.job())
    check_grid(grid, preparation)
    assert cells_of(grid, out_dtype=preparation.out_dtype)


def test_the_greedy_soup_is_the_candidate_that_its_comment_names() -> None:
    """Scores as in the comment: counting best, then arithmetic; the two better than all three."""
    path = EXAMPLES / "greedy_soup" / "job.yaml"
    job = load_job(path)
    baselines = Baselines(
        base=job.models.base, sources=job.models.sources, out_dtype="float32", seed=0
    )
    soup = "soup of arithmetic + counting"
    good = {"counting": 0.2, "arithmetic": 0.15, soup: 0.4}
    order: list[str] = []
    while stage := baselines.stage({label: good.get(label, 0.1) for label in order}):
        order += [baseline.label for baseline in stage]
        if SPACE_START not in order:
            order.append(SPACE_START)
    assert baselines.greedy_soup({label: good.get(label, 0.1) for label in order}) == soup
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"g0000-i01\d", text)) == {f"g0000-i{order.index(soup):03d}"}


def test_the_list_of_examples_is_whole() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"\]\(([^)]+)\)", text)
    commands = re.findall(
        r"`evomerge (search|grid|merge|evaluate MODEL) examples/(\S+?)(?: --out merged)?`", text
    )
    paths = (*JOBS.values(), *GRIDS.values(), *RECIPES.values())
    there = [path.relative_to(EXAMPLES).as_posix() for path in paths]
    assert sorted(listed) == sorted(there)
    assert [path for _, path in commands] == listed
    for command, path in commands:
        plain = "grid" if path.endswith("/grid.yaml") else "search"
        plain = "evaluate MODEL" if path.endswith("/held_out.yaml") else plain
        assert command == ("merge" if path.startswith("recipes/") else plain)
