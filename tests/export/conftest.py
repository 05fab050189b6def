"""A base with two experts that have cards, a merge of them to export, and a search of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from evomerge.export import ExportReport, export_checkpoint, export_winner
from evomerge.export.card import Story
from evomerge.export.origins import public_names, trace
from evomerge.export.shards import Weights
from evomerge.job import JobSpec
from evomerge.recipe import Condition, Recipe, RecipeModel
from evomerge.search.ledger import Ledger
from evomerge.search.loop import run_search
from evomerge.search.results.selection import Selection
from evomerge.search.selection.winner import select_winner
from evomerge.sources import Source, open_source
from evomerge.study import Study, create_study
from evomerge.workers.pool import LocalPool
from evomerge.workers.preparation.preparation import pin, prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.checkpoints import save_fine_tuned, save_tiny_llama

TASKS = Path(__file__).parents[1] / "evaluate" / "tasks"

CARD = "---\nlicense: {licence}\nlanguage: {language}\n---\n\n# A model\n"


@dataclass(frozen=True)
class Family:
    base: Path
    arithmetic: Path
    japanese: Path

    def recipe(self, **changes: object) -> Recipe:
        """Weights and densities that are no simple fractions, by layer and component."""
        fields: dict[str, object] = {
            "merge_method": "ties",
            "base_model": str(self.base),
            "models": (
                RecipeModel(
                    model=str(self.arithmetic), parameters={"weight": 0.731, "density": 0.613}
                ),
                RecipeModel(
                    model=str(self.japanese),
                    parameters={
                        "weight": (
                            Condition(filter="self_attn", value=(0.213, 0.877)),
                            Condition(value=0.449),
                        ),
                        "density": 0.787,
                    },
                ),
            ),
            "out_dtype": "float32",
            "evomerge": {"seed": 7},
        }
        return Recipe.model_validate({**fields, **changes})

    def open(self, recipe: Recipe) -> dict[str, Source]:
        return {name: open_source(name, where="test") for name in recipe.references}

    def export(self, out: Path, *, shard_bytes: int = 10**9, **changes: object) -> Weights:
        recipe = self.recipe(**changes)
        return export_sources(recipe, self.open(recipe), out, shard_bytes=shard_bytes)


def export_sources(
    recipe: Recipe, sources: dict[str, Source], out: Path, *, shard_bytes: int = 10**9
) -> Weights:
    names = public_names(sources.values())
    return export_checkpoint(
        recipe,
        sources,
        sources[recipe.references[0]],
        out,
        origins=trace(sources.values(), names),
        story=Story(title="tiny", opening="Not scored.", names=names),
        shard_bytes=shard_bytes,
    )


def make_family(folder: Path) -> Family:
    base = save_tiny_llama(folder / "base", seed=0)
    family = Family(
        base=base,
        arithmetic=save_fine_tuned(folder / "arithmetic", of=base, seed=1),
        japanese=save_fine_tuned(folder / "japanese", of=base, seed=2),
    )
    for model, language in (
        (family.base, "en"),
        (family.arithmetic, "en"),
        (family.japanese, "[ja, en]"),
    ):
        write_card(model, licence="apache-2.0", language=language)
    return family


def write_card(model: Path, *, licence: str, language: str = "en") -> None:
    text = CARD.format(licence=licence, language=language)
    (model / "README.md").write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Shared and never changed; a test that changes files makes a family of its own."""
    return make_family(tmp_path_factory.mktemp("family"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass(frozen=True)
class Searched:
    preparation: PreparedJob
    study: Study
    selection: Selection

    def export(self, out: Path, **options: object) -> ExportReport:
        parts = (self.preparation, self.study, self.selection, out)
        return export_winner(*parts, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def searched(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    """A real search of eight candidates."""
    job = JobSpec.model_validate(
        {
            "name": "toy",
            "models": {
                "base": str(family.base),
                "sources": [str(family.arithmetic), str(family.japanese)],
                "tokenizer": str(family.japanese),
            },
            "search_space": "one_weight_per_model",
            "objectives": [{"task": "toy_choice", "metric": "acc"}],
            "report": ["toy_said"],
            "evaluation": {
                "split": {"search": 0.4, "validation": 0.3, "test": 0.3},
                "items_per_generation": 4,
                "items_for_baselines": 4,
                "task_folders": [str(TASKS)],
            },
            "optimizer": {"algorithm": "random", "population": 4},
            "budget": {"candidates": 8},
        }
    )
    preparation = prepare(pin(job))
    run_dir = tmp_path_factory.mktemp("runs") / "toy"
    with create_study(run_dir, preparation.job) as study, LocalPool(preparation) as pool:
        ledger = Ledger(preparation=preparation, study=study, pool=pool)
        yield Searched(preparation, study, select_winner(ledger, run_search(ledger)))


@pytest.fixture(scope="session")
def exported(searched: Searched, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared and never changed."""
    out = tmp_path_factory.mktemp("exported") / "winner"
    report = searched.export(out, verify=True)
    assert report.verified, report.lines()
    return out
