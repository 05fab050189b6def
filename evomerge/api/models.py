"""One model at a time: merge a recipe, score a model, compute statistics of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evomerge.api.arguments import Job, as_yaml, check_rank, plain, read_folder, read_job
from evomerge.errors import InputError
from evomerge.recipe import Recipe, load_recipe, read_recipe

if TYPE_CHECKING:
    from evomerge.calibrate import Written
    from evomerge.evaluate import Say, ScoreSummary, Split
    from evomerge.export import Weights


def merge(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    out: str | Path,
    *,
    as_adapter: bool = False,
    rank: int | None = None,
    say: Say | None = None,
) -> Weights:
    """Execute a recipe: the same recipe always gives the same bytes.

    Args:
        recipe: path of a recipe or mergekit YAML, its content as a mapping, or a Recipe.
        out: folder to make for the model.
        as_adapter: write one PEFT LoRA adapter instead; see `evomerge.export`.
        rank: of that adapter, if it is not exact; see `evomerge.export`.
        say: called with a line for each setting in which the models differ.

    Returns:
        How many tensors and bytes were written, and notes on them.

    Raises:
        RecipeError, SourceError, RunError, StorageError, MergeError: as their messages say.
    """
    check_rank(rank, as_adapter=as_adapter)
    if isinstance(recipe, Recipe):
        loaded = recipe
    elif isinstance(recipe, Mapping):
        loaded = read_recipe(as_yaml(plain(recipe, "recipe")), where="recipe")
    else:
        loaded = load_recipe(Path(recipe))
    from evomerge.api.arguments import check_models_of

    folders = check_models_of(loaded)
    target = read_folder(out)
    from evomerge.sources import begin_reading

    begin_reading(folders)  # while the large libraries are imported
    from evomerge.evaluate import hush
    from evomerge.export import merge_recipe

    return merge_recipe(loaded, target, as_adapter=as_adapter, rank=rank, say=say or hush)


def evaluate(
    model: str | Path,
    job: Job,
    *,
    split: Split = "test",
    say: Say | None = None,
    ray_address: str | None = None,
) -> ScoreSummary:
    """Score one model, or the merge of a recipe, on the tasks of a job.

    Args:
        model: folder, hub id, or path of a recipe.
        job: as in `search`; its models give the architecture and its tasks the items.
        split: which items: "search", "validation" or "test".
        say: called with each note that a user should read.
        ray_address: address of a Ray cluster to score on, instead of here; its nodes must have the
            same models and tasks at the same paths.

    Returns:
        Scores with 95% intervals, combined and for each task and metric.

    Raises:
        InputError: the model does not fit the job, or either cannot be used.
        WorkerError: the model cannot be scored.
    """
    spec = read_job(job)
    if split not in ("search", "validation", "test"):
        raise InputError(f"split: {split} is not a split; give search, validation or test")
    from evomerge.api.arguments import check_names_of

    check_names_of(spec)
    from evomerge.api.assessment import evaluate_model
    from evomerge.evaluate import hush

    return evaluate_model(str(model), spec, split=split, say=say or hush, ray_address=ray_address)


def calibrate(
    models: str | Path | Sequence[str | Path],
    text: str | Path,
    out: str | Path,
    *,
    fisher: bool = True,
    inputs: bool = True,
    sequences: int = 128,
    tokens: int = 512,
    seed: int = 0,
    batch: int = 4,
    dtype: Literal["float32", "bfloat16"] = "float32",
    device: str = "auto",
    trust_remote_code: bool = False,
    say: Callable[[Written], object] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    note: Say | None = None,
    ray_address: str | None = None,
) -> list[Written]:
    """Compute once the statistics of models that fisher, gradient_matching and regmean need.

    Args:
        models: folders, hub ids or adapters.
        text: UTF-8 text, or .jsonl with one text a line.
        out: folder to keep the statistics in; existing ones for the same inputs are kept.
        fisher: the diagonals that fisher and gradient_matching need.
        inputs: the second moments of inputs that regmean needs.
        sequences: the most sequences to read.
        tokens: tokens of a sequence; at most the model's context.
        seed: seed of the draw, if the text has more sequences.
        batch: sequences read at once; fewer take less memory.
        dtype: dtype of the model while it reads.
        device: "auto", "cpu" or "cuda".
        trust_remote_code: let a model's own code run.
        say: called with each file as soon as it is written.
        progress: called with a file's label, the sequences done, and how many there are.
        note: called with each note that a user should read.
        ray_address: address of a Ray cluster to compute on, instead of here; its nodes must have
            the models at the same paths. `text` is read, and `out` written, here.

    Returns:
        The files, in order.

    Raises:
        InputError, StorageError: as their messages say.
        WorkerError: the cluster or its process is lost; files that were written stay.
    """
    from evomerge.calibrate import Calibration
    from evomerge.calibrate import calibrate as compute

    calibration = Calibration(
        fisher=fisher,
        inputs=inputs,
        sequences=sequences,
        tokens=tokens,
        seed=seed,
        batch=batch,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    written = []
    shown = progress or (lambda label, done, count: None)
    listed = [models] if isinstance(models, str | Path) else models
    references = [str(model) for model in listed]
    where = None
    if ray_address is not None:
        from evomerge.api.cluster_calibration import on_cluster

        where = on_cluster(calibration, ray_address, say=note or (lambda line: None))
    for file in compute(references, Path(text), read_folder(out), calibration, shown, where):
        written.append(file)
        if say is not None:
            say(file)
    return written
