"""What a user of the library calls; the command line is a thin caller of the same.

Each function refuses bad input before any large library is imported, and raises an EvomergeError
whose text is one line: what, where, and the mend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from evomerge.errors import JobError
from evomerge.job import JobSpec, load_job, parse_job
from evomerge.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from evomerge.calibrate import Written
    from evomerge.candidate import Say, Split
    from evomerge.events import Observe
    from evomerge.export import ExportReport
    from evomerge.export.shards import Weights
    from evomerge.grid import GridOutcome, GridSpec
    from evomerge.grid.launch import WatchGrid
    from evomerge.preparation import Preparation
    from evomerge.result import SearchResult
    from evomerge.standing import Standing
    from evomerge.study import Study

Job: TypeAlias = "str | Path | Mapping[str, Any] | JobSpec"
"""A job file, its content as a mapping, or a job that was read."""

Changes: TypeAlias = "Mapping[str, Any] | Sequence[str] | None"
"""What to change of a job: {"budget.candidates": 400}, or as the command line writes it."""


def _ignore(event: object) -> None:
    """Tells nobody."""


def read_job(job: Job, changes: Changes = None) -> JobSpec:
    """A job that is given in any of its forms, checked.

    Args:
        job: path of a job file, its content as a mapping, or a JobSpec.
        changes: dotted keys and their new values.

    Raises:
        JobError: in one line, with the field, its value and the mend.
    """
    overrides = written_changes(changes)
    if isinstance(job, str | Path):
        return load_job(Path(job), overrides=overrides)
    if isinstance(job, JobSpec):
        return parse_job(job.to_yaml(), where="job", overrides=overrides) if overrides else job
    return parse_job(_as_yaml(job), where="job", overrides=overrides)


def written_changes(changes: Changes) -> tuple[str, ...]:
    """Changes as the command line writes them: `budget.candidates=400`."""
    if changes is None:
        return ()
    if not isinstance(changes, Mapping):
        return tuple(changes)
    return tuple(f"{key}={_as_yaml(value, flow=True)}" for key, value in changes.items())


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
    study, preparation = _go_on(Path(run_dir), set, observe, ray_address, trust_code)
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

    run_dir = Path(run_dir)
    refuse_grid(run_dir)
    with read_study(run_dir) as study:
        from evomerge.result import SearchResult

        return SearchResult(study)


def export(
    run_dir: str | Path,
    out: str | Path,
    *,
    trial: str | None = None,
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
        Path(run_dir),
        Path(out),
        trial=trial,
        point=point,
        verify=verify,
        trust_code=trust_code,
        say=say,
    )


def merge(recipe: str | Path | Recipe, out: str | Path, *, say: Say | None = None) -> Weights:
    """Execute a recipe: the same recipe always gives the same bytes.

    Args:
        recipe: path of a recipe or mergekit YAML, or a Recipe.
        out: folder to make for the model.
        say: called with a line for what the models disagree on.

    Returns:
        How many tensors and bytes were written, and notes on them.

    Raises:
        RecipeError, SourceError, RunError, StorageError, MergeError: as they say.
    """
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(Path(recipe))
    from evomerge.first_checks import check_models_of

    check_models_of(loaded)
    from evomerge.candidate import hush
    from evomerge.export import merge_recipe

    return merge_recipe(loaded, Path(out), say=say or hush)


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

    return report_run(Path(run_dir), None if out is None else Path(out))


def calibrate(
    models: Sequence[str],
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
    for file in compute(list(models), Path(text), Path(out), calibration, shown):
        written.append(file)
        if say is not None:
            say(file)
    return written


def grid(
    grid: str | Path | GridSpec,
    run_dir: str | Path | None = None,
    *,
    set: Changes = None,
    say: Say | None = None,
    watch: WatchGrid | None = None,
    ray_address: str | None = None,
    trust_code: bool = False,
) -> GridOutcome:
    """Compare merge methods by how many experts they merge, with normalised scores.

    Run again, it goes on, also with more methods, sizes or seeds.

    Args:
        grid: path of a grid file, or a GridSpec.
        run_dir: where to keep the grid; `runs/NAME` if not given.
        set: changes of the grid.
        say: called with a line for what should be known before work begins.
        watch: makes what shows how far it is, from the record.
        ray_address: as in `search`.
        trust_code: as in `resume`.

    Returns:
        Normalised scores of every method and number of experts.

    Raises:
        InputError, WorkerError, StorageError: as `search`.
    """
    from evomerge.grid import GridSpec, load_grid

    if isinstance(grid, GridSpec):
        if set:
            raise JobError("set: changes a grid file; change the GridSpec itself")
        asked, file = grid, None
    else:
        file = Path(grid)
        asked = load_grid(file, overrides=written_changes(set))
    from evomerge.first_checks import check_names_of
    from evomerge.study.kind import refuse_search

    where = Path("runs") / asked.name if run_dir is None else Path(run_dir)
    refuse_search(where)
    inside = file is not None and file.resolve().parent == where.resolve()
    if inside and (where / "job.yaml").exists():
        from evomerge.study.ownership import check_own

        check_own(where, asked.job(), trust=trust_code)
    check_names_of(asked.job())
    from evomerge.candidate import hush
    from evomerge.grid import check_grid, pin_grid
    from evomerge.grid.launch import Unwatched, run_grid
    from evomerge.preparation import prepare
    from evomerge.report.grid_page import write_grid_page
    from evomerge.workers.opening import check_models, check_workers

    check_workers(asked.compute, ray_address=ray_address)
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

    where = Path("runs") / spec.name if run_dir is None else Path(run_dir)
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


def _as_yaml(document: Any, *, flow: bool = False) -> str:
    """Plain values as YAML, on one line where asked."""
    import yaml

    try:
        text = yaml.safe_dump(
            document, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=2**20
        )
    except yaml.YAMLError as error:
        raise JobError(
            f"job: it holds a value that no job file can ({error}); give plain values"
        ) from error
    return text.removesuffix("...\n").strip() if flow else text
