"""What a user of the library calls; the command line is a thin caller of the same.

Each function refuses bad input before any large library is imported, and raises an EvomergeError
whose text is one line: what, where, and the mend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evomerge.arguments import (
    Changes,
    Job,
    as_yaml,
    plain,
    read_folder,
    read_job,
    written_changes,
)
from evomerge.errors import InputError, JobError
from evomerge.recipe import Recipe, load_recipe, read_recipe

if TYPE_CHECKING:
    from evomerge.calibrate import Written
    from evomerge.candidate import CandidateKey, Say, Split
    from evomerge.events import Observe
    from evomerge.export import ExportReport
    from evomerge.export.shards import Weights
    from evomerge.grid import GridOutcome, GridSpec
    from evomerge.grid.launch import WatchGrid
    from evomerge.preparation import Preparation
    from evomerge.result import SearchResult
    from evomerge.standing import Standing
    from evomerge.study import Study


def _ignore(event: object) -> None:
    """As `events.unobserved`, without what that module imports before the input is checked."""


def search(
    job: Job,
    run_dir: str | Path | None = None,
    *,
    set: Changes = None,
    observe: Observe = _ignore,
    ray_address: str | None = None,
) -> SearchResult:
    """Launch a search: baselines, generations, then the final selection.

    An interrupt (Ctrl-C) leaves a record that `resume` goes on with, to the same result.

    Args:
        job: path of a job file, its content as a mapping, or a JobSpec.
        run_dir: where to keep the search; `runs/NAME` if not given. It must not hold one.
        set: changes of the job, as `{"optimizer.seed": 1}`.
        observe: called with every event (see `evomerge.events`); what it raises ends the search.
        ray_address: of a Ray cluster to join, instead of starting workers here.

    Returns:
        What was found, and whether it may be called a gain.

    Raises:
        InputError: the job, a model, a task or the run directory cannot be used; nothing is begun.
        WorkerError, StorageError, SelfCheckError: the search stopped; `resume` goes on.

    Example:
        >>> import evomerge
        >>> result = evomerge.search("job.yaml", "runs/first", set={"optimizer.seed": 1})
        >>> result.verdict in ("gained", "not settled", "no gain")
        True
        >>> result.winner.recipe.to_yaml().startswith("merge_method: ")
        True
    """
    study, preparation = _begin(job, run_dir, set, observe, ray_address)
    return _run(study, preparation, observe, ray_address)


def resume(
    run_dir: str | Path,
    *,
    set: Changes = None,
    observe: Observe = _ignore,
    ray_address: str | None = None,
    trust_code: bool = False,
) -> SearchResult:
    """Go on with a search from its first candidate without a result.

    A finished search gives its result again, or goes on where `set` raises its budget.

    Args:
        run_dir: of the search.
        set: changes of the job: budget, workers and devices may change.
        observe: as in `search`.
        ray_address: as in `search`.
        trust_code: run the code of tasks and models that the job names, though another user began
            the search.

    Returns:
        As `search`.

    Raises:
        RunError: there is no search, another process runs it, or what it depends on has changed.
        WorkerError, StorageError, SelfCheckError: the search stopped again.

    Example:
        >>> import evomerge
        >>> result = evomerge.resume("runs/first", set={"budget.candidates": 16})
        >>> result.job.budget.candidates
        16
    """
    study, preparation = _go_on(read_folder(run_dir), set, observe, ray_address, trust_code)
    return _run(study, preparation, observe, ray_address)


def open_run(run_dir: str | Path) -> SearchResult:
    """A search as it stands, to look at; also while another process runs it.

    Args:
        run_dir: of the search.

    Returns:
        Its outcome where it has one, and tables of what is recorded.

    Raises:
        RunError: there is no search, or its record is damaged.

    Example:
        >>> import evomerge
        >>> result = evomerge.open_run("runs/first")
        >>> result.finished
        True
        >>> list(result.trials_dataframe().columns[:3])
        ['candidate', 'phase', 'generation']
    """
    from evomerge.study import read_study
    from evomerge.study.kind import refuse_grid

    run_dir = read_folder(run_dir)
    refuse_grid(run_dir)
    with read_study(run_dir) as study:
        from evomerge.result import SearchResult

        return SearchResult(study)


def export(
    run_dir: str | Path,
    out: str | Path,
    *,
    trial: str | CandidateKey | None = None,
    point: str | None = None,
    verify: bool = False,
    trust_code: bool = False,
    say: Say | None = None,
) -> ExportReport:
    """Write the winner, or a point of the front: recipe, checkpoint, model card, manifest.

    Args:
        run_dir: of the search.
        out: folder to make for the model.
        trial: a candidate to export instead of the winner, such as "g0012-i003".
        point: of a front: a name, weights ("TASK=0.7,OTHER=0.3") or bounds ("TASK>=0.9").
        verify: load the folder by plain transformers and score it by stock lm-eval.
        trust_code: as in `resume`.
        say: called with a line where something takes long.

    Returns:
        Where it is, what may be said of it, and what `verify` found.

    Raises:
        RunError: nothing to export, a source that changed, or a folder that is there.
        RecipeError, SourceError, StorageError, TaskError: as they say.
    """
    from evomerge.result import export_run

    return export_run(
        read_folder(run_dir),
        read_folder(out),
        trial=None if trial is None else str(trial),
        point=point,
        verify=verify,
        trust_code=trust_code,
        say=say,
    )


def merge(
    recipe: str | Path | Mapping[str, Any] | Recipe, out: str | Path, *, say: Say | None = None
) -> Weights:
    """Execute a recipe: the same recipe always gives the same bytes.

    Args:
        recipe: path of a recipe or mergekit YAML, its content as a mapping, or a Recipe.
        out: folder to make for the model.
        say: called with a line for what the models disagree on.

    Returns:
        How many tensors and bytes were written, and notes on them.

    Raises:
        RecipeError, SourceError, RunError, StorageError, MergeError: as they say.
    """
    if isinstance(recipe, Recipe):
        loaded = recipe
    elif isinstance(recipe, Mapping):
        loaded = read_recipe(as_yaml(plain(recipe, "recipe")), where="recipe")
    else:
        loaded = load_recipe(Path(recipe))
    from evomerge.first_checks import check_models_of

    check_models_of(loaded)
    from evomerge.candidate import hush
    from evomerge.export import merge_recipe

    return merge_recipe(loaded, read_folder(out), say=say or hush)


def evaluate(
    model: str | Path, job: Job, *, split: Split = "test", say: Say | None = None
) -> Standing:
    """Score one model, or the merge of a recipe, on the tasks of a job.

    Args:
        model: folder, hub id, or path of a recipe.
        job: as in `search`; its models give the architecture and its tasks the items.
        split: which items: "search", "validation" or "test".
        say: called with a line where something should be known.

    Returns:
        Scores with 95% intervals, combined and for each task and metric.

    Raises:
        InputError: the model does not fit the job, or either cannot be used.
        WorkerError: the model cannot be scored.
    """
    spec = read_job(job)
    if split not in ("search", "validation", "test"):
        raise InputError(f"split: {split} is none; give search, validation or test")
    from evomerge.first_checks import check_names_of

    check_names_of(spec)
    from evomerge.assessing import evaluate_model
    from evomerge.candidate import hush

    return evaluate_model(str(model), spec, split=split, say=say or hush)


def report(run_dir: str | Path, out: str | Path | None = None) -> Path:
    """Write one HTML file that shows the whole search.

    Args:
        run_dir: of the search, which may still run.
        out: where to write it; `RUN_DIR/report.html` if not given.

    Returns:
        The path of the file.

    Raises:
        RunError: there is no search. StorageError: the file cannot be written.
    """
    from evomerge.result import report_run

    return report_run(read_folder(run_dir), None if out is None else read_folder(out))


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
) -> list[Written]:
    """Compute once what fisher, gradient_matching and regmean need to know of models.

    Args:
        models: folders, hub ids or adapters.
        text: UTF-8 text, or .jsonl with a text a line.
        out: folder to keep the statistics in; what is there for the same is kept.
        fisher: the diagonals that fisher and gradient_matching need.
        inputs: the second moments of inputs that regmean needs.
        sequences: the most sequences to read.
        tokens: of a sequence; at most the model's context.
        seed: of the draw where the text has more.
        batch: sequences read at once; fewer take less memory.
        dtype: of the model while it reads.
        device: "auto", "cpu" or "cuda".
        trust_remote_code: let a model's own code run.
        say: called with each file as soon as it is there.
        progress: called with a file's label, the sequences done, and how many there are.

    Returns:
        The files, in order.

    Raises:
        InputError, StorageError: as they say.
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
    asked = [models] if isinstance(models, str | Path) else models
    references = [str(model) for model in asked]
    for file in compute(references, Path(text), read_folder(out), calibration, shown):
        written.append(file)
        if say is not None:
            say(file)
    return written


def grid(
    grid: str | Path | Mapping[str, Any] | GridSpec,
    run_dir: str | Path | None = None,
    *,
    set: Changes = None,
    observe: Observe = _ignore,
    say: Say | None = None,
    watch: WatchGrid | None = None,
    ray_address: str | None = None,
    trust_code: bool = False,
) -> GridOutcome:
    """Compare merge methods by how many experts they merge, with normalised scores.

    Run again, it goes on, also with more methods, sizes or seeds.

    Args:
        grid: path of a grid file, its content as a mapping, or a GridSpec.
        run_dir: where to keep the grid; `runs/NAME` if not given.
        set: changes of the grid.
        observe: told that what the grid names is checked; its searches tell `watch`.
        say: called with a line for what should be known before work begins.
        watch: makes what shows how far it is, from the record.
        ray_address: as in `search`.
        trust_code: as in `resume`.

    Returns:
        Normalised scores of every method and number of experts.

    Raises:
        InputError, WorkerError, StorageError: as `search`.
    """
    from evomerge.grid import GridSpec, load_grid, parse_grid

    file = None
    if isinstance(grid, GridSpec):
        if set:
            raise JobError("set: changes a grid file; change the GridSpec itself")
        asked = grid
    elif isinstance(grid, Mapping):
        text = as_yaml(plain(grid, "grid"))
        asked = parse_grid(text, where="grid", overrides=written_changes(set))
    else:
        file = Path(grid)
        asked = load_grid(file, overrides=written_changes(set))
    from evomerge.first_checks import check_names_of
    from evomerge.study.kind import refuse_search

    where = read_folder(Path("runs") / asked.name if run_dir is None else run_dir)
    refuse_search(where)
    inside = file is not None and file.resolve().parent == where.resolve()
    if inside and (where / "job.yaml").exists():
        from evomerge.study.ownership import check_own

        check_own(where, asked.job(), trust=trust_code)
    check_names_of(asked.job())
    from evomerge.candidate import hush
    from evomerge.events import Checking
    from evomerge.grid import check_grid, pin_grid
    from evomerge.grid.launch import Unwatched, run_grid
    from evomerge.preparation import prepare
    from evomerge.report.grid_page import write_grid_page
    from evomerge.workers.opening import check_models, check_workers

    check_workers(asked.compute, ray_address=ray_address)
    observe(Checking())
    spec = pin_grid(asked)
    preparation = prepare(spec.job())
    check_grid(spec, preparation)
    check_models(preparation)
    outcome = run_grid(
        spec,
        preparation,
        where,
        say=say or hush,
        watch=watch or Unwatched,
        ray_address=ray_address,
    )
    write_grid_page(outcome, run_dir=where)
    return outcome


def _begin(
    job: Job,
    run_dir: str | Path | None,
    changes: Changes,
    observe: Observe,
    ray_address: str | None,
) -> tuple[Study, Preparation]:
    """The record of a new search, and its job made ready. Raises InputError, StorageError."""
    spec = read_job(job, changes)
    from evomerge.first_checks import check_names_of
    from evomerge.study import create_study, refuse_existing
    from evomerge.study.kind import refuse_grid

    where = read_folder(Path("runs") / spec.name if run_dir is None else run_dir)
    refuse_grid(where)
    refuse_existing(where)
    check_names_of(spec)
    from evomerge.events import Checking
    from evomerge.preparation import facts_of, pin, prepare
    from evomerge.workers.opening import check_models, check_workers

    check_workers(spec.compute, ray_address=ray_address)
    observe(Checking())
    preparation = prepare(pin(spec))
    check_models(preparation)
    study = create_study(
        where,
        preparation.job,
        directions=preparation.objective.directions,
        facts=facts_of(preparation),
    )
    return study, preparation


def _go_on(
    run_dir: Path,
    changes: Changes,
    observe: Observe,
    ray_address: str | None,
    trust_code: bool,
) -> tuple[Study, Preparation]:
    """The record of a search that has begun, and its job made ready. Raises InputError."""
    from evomerge.study import check_trusted, resume_study
    from evomerge.study.kind import refuse_grid

    refuse_grid(run_dir)
    check_trusted(run_dir, trust=trust_code)
    study = resume_study(run_dir, overrides=written_changes(changes))
    try:
        from evomerge.events import Checking
        from evomerge.preparation import prepare
        from evomerge.workers.opening import check_models, check_workers

        check_workers(study.job.compute, ray_address=ray_address)
        observe(Checking())
        preparation = prepare(study.job)
        check_models(preparation)
    except BaseException:
        study.close()
        raise
    return study, preparation


def _run(
    study: Study,
    preparation: Preparation,
    observe: Observe,
    ray_address: str | None,
) -> SearchResult:
    from evomerge.result import SearchResult
    from evomerge.run import run_study

    with study:
        run_study(study, preparation, observe=observe, ray_address=ray_address)
        return SearchResult(study)
