"""Export of the winner of a search, a point of its front, or any candidate, with its scores.

The scores come from the record. Only `verify` scores again, with stock lm-eval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evomerge.errors import RunError
from evomerge.evaluate import CandidateKey, Say, StockOptions, hush
from evomerge.export.adapter_delivery import export_adapter
from evomerge.export.adapter_plan import plan_adapter
from evomerge.export.card import Effort, Story
from evomerge.export.choice import choose
from evomerge.export.delivery import export_checkpoint, models_of
from evomerge.export.folder import check_free
from evomerge.export.origins import Origin, public_names, trace
from evomerge.export.shards import SHARD_BYTES, Weights
from evomerge.export.verification import Verification, check_peft
from evomerge.export.verification import verify as verify_folder
from evomerge.job import shipped_folder
from evomerge.merge import METHODS, open_stages
from evomerge.recipe import Recipe
from evomerge.search import TEST, ChosenPoint, Selection, tested_before
from evomerge.space import read_space
from evomerge.study import ALGORITHMS, FACTS, Study
from evomerge.workers import PreparedJob, choose_device

CPU_ROWS = 32
"""Rows of lm-eval's batches on a CPU if the job says auto; lm-eval's own search is for GPUs."""


_CUT = (
    "the adapter is not exact, so it may score otherwise than the merge; give a larger --rank, or "
    "export a checkpoint"
)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was exported: the folder, the candidate, its weights, and what `verify` found.

    opening: a sentence on the candidate's scores. url: of the hub's repository, if it was uploaded.
    """

    out: Path
    label: str
    opening: str
    weights: Weights
    verification: Verification | None = None
    url: str | None = None

    @property
    def verified(self) -> bool:
        """Whether the verification passed; true if none was requested."""
        return self.verification is None or self.verification.verified

    def lines(self) -> tuple[str, ...]:
        """The report in lines; a failed verification comes last."""
        adapter = self.weights.adapter
        made = (
            f"{'model' if adapter is None else 'adapter'}: {self.out} ({self.label}; "
            f"{self.weights.tensors} tensors, {self.weights.size_bytes / 1e9:.3f} GB)"
        )
        checked = () if self.verification is None else self.verification.lines()
        notes = (f"note: {note}" for note in self.weights.notes)
        there = () if self.url is None else (f"uploaded: {self.url}",)
        facts = (self.opening, *notes, made, *(() if adapter is None else adapter.lines()), *there)
        return (*checked, *facts) if self.verified else (*facts, *checked)

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the folder."""
        return {name: value for name, value in asdict(self).items() if name != "out"}


def export_winner(
    preparation: PreparedJob,
    study: Study,
    chosen: Selection | ChosenPoint | None,
    out: Path,
    *,
    trial: CandidateKey | None = None,
    verify: bool = False,
    as_adapter: bool = False,
    rank: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    say: Say = hush,
) -> ExportReport:
    """Export the result of a finished search, or the candidate `trial` whatever it scored.

    chosen: the winner, or a point of the front; not needed if `trial` is given. trial: a
    candidate; its search may be unfinished. verify: rehash the folder, load it with plain
    transformers and score it with stock lm-eval on the items that the candidate was scored on
    (test items for the result of a search). as_adapter: write one LoRA adapter over the base
    instead of a checkpoint, of at most `rank`. Raises RunError when there is no such candidate, a
    source changed since the search, or `out` exists; RecipeError, SourceError, StorageError,
    TaskError.
    """
    if as_adapter and verify:
        check_peft()
    check_free(out)
    choice = choose(preparation, study, chosen, trial)
    recipe = choice.recipe.with_block(**choice.block, job=preparation.job.name)
    delivered = preparation.exported(recipe)
    recipe = preparation.standing_alone(recipe)
    tokenizer_source = delivered.tokenizer_source
    sources = open_stages(recipe, delivered.sources)
    code = preparation.base.folder if preparation.job.models.trust_remote_code else None
    adapter = (
        plan_adapter(recipe, sources, base=preparation.base, rank=rank, code=code)
        if as_adapter
        else None
    )
    models = models_of(recipe, delivered.sources, tokenizer_source)
    models = models if adapter is None else adapter.traced(models)
    named = {each.reference: each for each in (*preparation.sources.values(), *models)}
    names = public_names(named.values())
    origins = trace(models, names)
    _check_unchanged(study, origins)
    _check_methods(study, recipe)
    say(f"writing {choice.label} to {out} ...")
    story = Story(
        title=preparation.job.name,
        opening=choice.opening,
        names=names,
        notes=() if recipe.alone else preparation.settings.notes(recipe),
        scores=choice.scores,
        effort=_effort(preparation, study, choice.key),
    )
    if adapter is not None:
        weights = export_adapter(adapter, tokenizer_source, out, origins=origins, story=story)
    else:
        weights = export_checkpoint(
            recipe,
            sources,
            tokenizer_source,
            out,
            origins=origins,
            story=story,
            shard_bytes=shard_bytes,
            trust_remote_code=preparation.job.models.trust_remote_code,
        )
    verification = None
    if verify:
        verification = verify_folder(
            out,
            study.items_of(choice.key),
            _options(preparation),
            base=None if adapter is None else adapter.base.folder,
            say=say,
        )
        if weights.adapter is not None and not weights.adapter.exact:
            verification = replace(verification, hint=_CUT)
    return ExportReport(
        out=out,
        label=choice.label,
        opening=choice.opening,
        weights=weights,
        verification=verification,
    )


def _check_unchanged(study: Study, origins: Sequence[Origin]) -> None:
    """Check that the sources have not changed: the exported model must be the scored one."""
    hashed = (study.noted(FACTS) or {}).get("sources", {})
    for origin in origins:
        for name, digest in hashed.get(origin.reference, {}).items():
            found = origin.files.get(name)
            if found is None or found.sha256 != digest:
                raise RunError(
                    f"{study.run_dir}: source {origin.reference}/{name} changed since the search "
                    "began; put it back as it was, or search again"
                )


def _check_methods(study: Study, recipe: Recipe) -> None:
    """Check that the methods of packages have the versions that the candidates were scored with."""
    documents = [recipe, *recipe.used_stages.values()]
    used = {document.merge_method for document in documents}
    before = (study.noted(FACTS) or {}).get("versions", {})
    for method, now in METHODS.versions(used).items():
        if before.get(method, now) != now:
            raise RunError(
                f"{study.run_dir}: {method} is {now} and was {before[method]} when it was scored; "
                "put that back, or search again"
            )


def _effort(preparation: PreparedJob, study: Study, key: CandidateKey) -> Effort:
    genomes = study.trials_of("genome")
    if key.generation == TEST:  # a search may have gone on since
        genomes = tuple(trial for trial in genomes if trial.key.generation <= key.selected_after)
    job = preparation.job
    stages = {trial.stage: trial for trial in genomes}  # one candidate of each
    searched = [(job.searches[stage], trial) for stage, trial in sorted(stages.items())]
    kept = study.noted(ALGORITHMS) or {}
    algorithms = [kept[str(stage)] for stage in sorted(stages)]
    return Effort(
        space=", then ".join(_space_name(search.search_space) for search, _ in searched),
        genes=sum(len(trial.genome or ()) for _, trial in searched),
        optimizer=", then ".join(dict.fromkeys(algorithms)),
        seed=preparation.job.optimizer.seed,
        candidates=len(genomes),
        items=sum(trial.item_count for trial in genomes),
        front=job.mode == "pareto",
        tested_before=_tested_before(study, key),
    )


def _tested_before(study: Study, key: CandidateKey) -> int:
    """Number of selections on the test items before that of a finalist, or before the last."""
    finals = [trial.key for trial in study.trials_of("finalist")]
    tests = [
        final for final in ([key] if key.generation == TEST else finals) if final.generation == TEST
    ]
    last = max((final.selected_after for final in tests), default=0)
    return tested_before(study.trials, last)


def _space_name(spec: str | Mapping[str, Any]) -> str:
    """The name of a shipped space; a record holds the whole space, so contents are compared."""
    if isinstance(spec, str):
        return Path(spec).name
    shipped = sorted(path.stem for path in shipped_folder("search_spaces").glob("*.yaml"))
    names = (name for name in shipped if read_space(name) == spec)
    return next(names, f"one of its own, by {spec.get('method', 'routes')}")


def _options(preparation: PreparedJob) -> StockOptions:
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
        trust_remote_code=job.models.trust_remote_code,
    )
