"""The winner of a search, or a candidate chosen by hand, as a folder with its scores.

It tells the record of a search to the card and the recipe; nothing is scored here but by `verify`,
which asks stock lm-eval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import CandidateKey
from evomerge.errors import RunError
from evomerge.evaluate.stock import StockOptions
from evomerge.export.card import CardScores, Effort, Story
from evomerge.export.delivery import export_checkpoint, models_of
from evomerge.export.origins import Origin, public_names, trace
from evomerge.export.shards import SHARD_BYTES, Weights
from evomerge.export.verify import Verification
from evomerge.export.verify import verify as verify_folder
from evomerge.job import shipped_folder
from evomerge.merge.merged_source import open_stages
from evomerge.optimize import choose_algorithm
from evomerge.preparation import Preparation
from evomerge.recipe import Recipe
from evomerge.selection import TEST, VALIDATION, Selection
from evomerge.space import read_space
from evomerge.standing import Standing, stand
from evomerge.study import Study, Trial
from evomerge.workers.worker import choose_device

CPU_ROWS = 32
"""Rows of lm-eval's batches on a CPU where the job leaves it open; its own probing is for GPUs."""

_FLATTERED = " A candidate that was picked for its score on them looks better there than it is."


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was exported: where to, which candidate, its weights, and what `verify` found.

    opening: what may be said of the candidate, in a sentence.
    """

    out: Path
    label: str
    opening: str
    weights: Weights
    verification: Verification | None = None

    @property
    def verified(self) -> bool:
        """Whether nothing speaks against the folder; true where no verification was asked for."""
        return self.verification is None or self.verification.verified

    def lines(self) -> tuple[str, ...]:
        """The report in words."""
        made = (
            f"model: {self.out} ({self.label}; {self.weights.tensors} tensors, "
            f"{self.weights.size_bytes / 1e9:.3f} GB)"
        )
        checked = () if self.verification is None else self.verification.lines()
        return (*checked, self.opening, made)


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """What to export, and what may be said of it.

    key: the record whose item results a verification compares with. block: what the recipe says
    under `evomerge:`.
    """

    key: CandidateKey
    label: str
    recipe: Recipe
    opening: str
    scores: CardScores
    block: Mapping[str, Any]


def export_winner(
    preparation: Preparation,
    study: Study,
    selection: Selection | None,
    out: Path,
    *,
    trial: CandidateKey | None = None,
    verify: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> ExportReport:
    """Export the winner of a finished search, or the candidate `trial` whatever it scored.

    selection: None for a search that is not finished, of which only a `trial` can be exported.
    verify: rehash the folder, load it by plain transformers and score it by stock lm-eval on the
    items that the candidate was scored on (test items for the winner). Raises RunError when there
    is no such candidate, a source changed since the search, or `out` exists; RecipeError,
    SourceError, StorageError, TaskError.
    """
    choice = _winner(selection) if trial is None else _by_hand(preparation, study, trial)
    recipe = choice.recipe.with_block(**choice.block, job=preparation.job.name)
    recipe = preparation.standing_alone(recipe)
    tokenizer_source = preparation.tokenizer_source
    names = public_names(preparation.sources.values())
    origins = trace(models_of(recipe, preparation.sources, tokenizer_source), names)
    _check_unchanged(study, origins)
    weights = export_checkpoint(
        recipe,
        open_stages(recipe, preparation.sources),
        tokenizer_source,
        out,
        origins=origins,
        story=Story(
            title=preparation.job.name,
            opening=choice.opening,
            names=names,
            scores=choice.scores,
            effort=_effort(preparation, study),
        ),
        shard_bytes=shard_bytes,
        trust_remote_code=preparation.job.models.trust_remote_code,
    )
    verification = None
    if verify:
        verification = verify_folder(out, study.items_of(choice.key), _options(preparation))
    return ExportReport(
        out=out,
        label=choice.label,
        opening=choice.opening,
        weights=weights,
        verification=verification,
    )


def _check_unchanged(study: Study, origins: Sequence[Origin]) -> None:
    """What is exported must be the model that was scored, so its sources must be those of then."""
    hashed = (study.noted("facts") or {}).get("sources", {})
    for origin in origins:
        for name, digest in hashed.get(origin.reference, {}).items():
            found = origin.files.get(name)
            if found is None or found.sha256 != digest:
                raise RunError(
                    f"{study.run_dir}: source {origin.reference}/{name} changed since the search "
                    "began; put it back as it was, or search again"
                )


def _winner(selection: Selection | None) -> _Choice:
    if selection is None:
        raise RunError(
            "the search has no winner yet; let `evomerge resume` finish it, or name a candidate "
            "with --trial"
        )
    validation = [entry for entry in selection.validation if entry.label == selection.winner]
    standings = {"validation": validation[:1], "test": [selection.standing(selection.winner)]}
    scores = {
        split: _stated(found[0], selection.items[split])
        for split, found in standings.items()
        if found
    }
    items = ", ".join(f"{task} {count}" for task, count in selection.items["test"].items())
    return _Choice(
        key=selection.test_key,
        label=selection.winner,
        recipe=selection.recipe,
        opening=selection.headline(),
        scores=CardScores(
            said=f"On test items that no candidate was proposed or chosen by ({items}).",
            standings=selection.test,
            constraints=selection.constraints,
        ),
        block=_block(selection.winner, selection.genome, scores),
    )


def _by_hand(preparation: Preparation, study: Study, key: CandidateKey) -> _Choice:
    trial = study.find(key)
    if trial is None:
        raise RunError(f"--trial {key}: no such candidate in {study.run_dir}; see its report")
    if trial.failure is not None:
        raise RunError(f"--trial {key}: it failed ({trial.failure}); choose another")
    standing = stand(
        trial.label,
        "model",
        study.items_of(key),
        objective=preparation.objective,
        seed=preparation.job.optimizer.seed,
    )
    split = {VALIDATION: "validation", TEST: "test"}.get(key.generation, "search")
    items = ", ".join(f"{task} {count}" for task, count in trial.items.items())
    return _Choice(
        key=key,
        label=trial.label,
        recipe=trial.recipe,
        opening=(
            f"Chosen by hand: candidate {key} ({trial.label}), not by the search's own selection; "
            "whether it is better than its parents was not tested."
        ),
        scores=CardScores(
            said=f"On {split} items ({items}).{'' if split == 'test' else _FLATTERED}",
            standings=(standing,),
        ),
        block=_block(trial.label, trial.genome, {split: _stated(standing, trial.items)}),
    )


def _block(
    label: str, genome: tuple[float, ...] | None, scores: Mapping[str, Any]
) -> dict[str, Any]:
    """What a recipe says of its candidate under `evomerge:`."""
    stated = {} if genome is None else {"genome": list(genome)}
    return {"candidate": label, **stated, "scores": dict(scores)}


def _stated(standing: Standing, items: Mapping[str, int]) -> dict[str, Any]:
    """A standing as plain values."""
    return {
        "items": dict(items),
        "objective": asdict(standing.score),
        "tasks": {
            task: {metric: asdict(interval) for metric, interval in metrics.items()}
            for task, metrics in standing.tasks.items()
        },
    }


def _effort(preparation: Preparation, study: Study) -> Effort:
    genomes = study.trials_of("genome")
    job = preparation.job
    stages = {trial.stage: trial for trial in genomes}  # one candidate of each
    searched = [(job.searches[stage], trial) for stage, trial in sorted(stages.items())]
    algorithms = [
        choose_algorithm(job.optimizer_of(search), _switches(trial)) for search, trial in searched
    ]
    return Effort(
        space=", then ".join(_space_name(search.search_space) for search, _ in searched),
        genes=sum(len(trial.genome or ()) for _, trial in searched),
        optimizer=", then ".join(dict.fromkeys(algorithms)),
        seed=preparation.job.optimizer.seed,
        candidates=len(genomes),
        items=sum(sum(trial.items.values()) for trial in genomes),
    )


def _switches(trial: Trial) -> NDArray[np.bool_]:
    """Which genes of a candidate say whether a layer is on its route, (n,)."""
    names = [name.rpartition("/")[2] for name in trial.parameters]
    return np.array([name.startswith("in.") for name in names], dtype=np.bool_)


def _space_name(spec: str | Mapping[str, Any]) -> str:
    """The name of a shipped space; a record holds spaces written out, so they are compared."""
    if isinstance(spec, str):
        return Path(spec).name
    shipped = sorted(path.stem for path in shipped_folder("search_spaces").glob("*.yaml"))
    names = (name for name in shipped if read_space(name) == spec)
    return next(names, f"one of its own, by {spec.get('method', 'routes')}")


def _options(preparation: Preparation) -> StockOptions:
    job = preparation.job
    device = choose_device(job.compute.device)
    rows = job.evaluation.batch_size
    return StockOptions(
        dtype=preparation.out_dtype,
        device=device,
        batch_size=rows if rows != "auto" or device.startswith("cuda") else CPU_ROWS,
        task_folders=tuple(Path(folder) for folder in job.evaluation.task_folders),
        num_fewshot=job.evaluation.num_fewshot,
        apply_chat_template=job.evaluation.apply_chat_template,
    )
