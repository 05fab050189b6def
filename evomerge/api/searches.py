"""The library's functions for searches: launch, resume, open, export, report.

Each function refuses bad input before it imports any large library. It raises an EvomergeError with
one line: what, where, and the mend.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.api.arguments import Changes, Job, read_folder, read_job, written_changes

if TYPE_CHECKING:
    from evomerge.api.result import SearchResult
    from evomerge.evaluate import CandidateKey, Say
    from evomerge.export import ExportReport
    from evomerge.job import ComputeSpec, JobSpec
    from evomerge.search import Observe
    from evomerge.study import Repair, Study
    from evomerge.track import Track
    from evomerge.workers import PreparedJob


def ignore(event: object) -> None:
    """Ignore an event, as `events.unobserved`, which has imports that must wait for the checks."""


def search(
    job: Job,
    run_dir: str | Path | None = None,
    *,
    set: Changes = None,
    observe: Observe = ignore,
    track: Track = None,
    ray_address: str | None = None,
) -> SearchResult:
    """Launch a search: baselines, generations, then the final selection.

    After an interrupt (Ctrl-C), `resume` continues from the record, to the same result.

    Args:
        job: path of a job file, its content as a mapping, or a JobSpec.
        run_dir: where to keep the search; `runs/NAME` if not given. It must not hold a search.
        set: changes of the job, as `{"optimizer.seed": 1}`.
        observe: called with every event (see `evomerge.search`); its exceptions end the search.
        track: where to watch it too: "tensorboard", "wandb", "mlflow", "trackio", or a tracker of
            an installed package; several in a list, or with options as
            `{"wandb": {"project": "merges"}}`. A tracker that fails does not end the search.
        ray_address: address of a Ray cluster to join, instead of starting workers here.

    Returns:
        The result, and whether it is a gain.

    Raises:
        InputError: the job, a model, a task or the run directory cannot be used; no search was
            started.
        WorkerError, StorageError, SelfCheckError: the search stopped; `resume` continues it.

    Example:
        >>> import evomerge
        >>> result = evomerge.search("job.yaml", "runs/first", set={"optimizer.seed": 1})
        >>> result.verdict in ("gained", "not settled", "no gain")
        True
        >>> result.winner.recipe.to_yaml().startswith("merge_method: ")
        True
    """
    from evomerge.track import track_search

    with track_search(track, observe) as observed:
        study, preparation = _begin(job, run_dir, set, observed, ray_address)
        return _run(study, preparation, observed, ray_address)


def resume(
    run_dir: str | Path,
    *,
    set: Changes = None,
    observe: Observe = ignore,
    track: Track = None,
    ray_address: str | None = None,
    trust_code: bool = False,
) -> SearchResult:
    """Continue a search from its first candidate without a result.

    A finished search gives its result again, or continues if `set` raises its budget.

    Args:
        run_dir: of the search.
        set: changes of the job: budget, workers and devices may change.
        observe: as in `search`.
        track: as in `search`; the same run of the tracker continues.
        ray_address: as in `search`.
        trust_code: run the code of tasks and models that the job names, even if another user
            started the search.

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
    from evomerge.track import track_search

    with track_search(track, observe) as observed:
        study, preparation = _go_on(read_folder(run_dir), set, observed, ray_address, trust_code)
        return _run(study, preparation, observed, ray_address)


def open_run(run_dir: str | Path) -> SearchResult:
    """Open a search to look at it, also while another process runs it.

    Args:
        run_dir: of the search.

    Returns:
        Its outcome if there is one, and tables of the record.

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
    from evomerge.study import read_study, refuse_grid

    run_dir = read_folder(run_dir)
    refuse_grid(run_dir)
    with read_study(run_dir) as study:
        from evomerge.api.result import SearchResult

        return SearchResult(study)


def export(
    run_dir: str | Path,
    out: str | Path,
    *,
    trial: str | CandidateKey | None = None,
    point: str | None = None,
    verify: bool = False,
    as_adapter: bool = False,
    rank: int | None = None,
    push: str | None = None,
    public: bool = False,
    trust_code: bool = False,
    ray_address: str | None = None,
    say: Say | None = None,
) -> ExportReport:
    """Write the winner, or a point of the front: recipe, checkpoint, model card, manifest.

    Args:
        run_dir: of the search.
        out: folder to make for the model.
        trial: a candidate to export instead of the winner, for example "g0012-i003".
        point: of a front: a name, weights ("TASK=0.7,OTHER=0.3") or bounds ("TASK>=0.9").
        verify: load the folder with plain transformers and score it with stock lm-eval.
        as_adapter: write one PEFT LoRA adapter over the base instead of a checkpoint. It is exact
            where every source is a LoRA adapter over the base and the method adds them.
        rank: the largest rank of that adapter; each change is then replaced by its nearest one of
            this rank, and the report says the error.
        push: ORG/NAME: upload the folder to the Hugging Face hub too, with the token of the
            environment or of the hub's own store; not if `verify` fails.
        public: whether everyone may read the upload; else it is private.
        trust_code: as in `resume`.
        ray_address: of a Ray cluster to `verify` on; a node must see the folder by its path.
        say: called with a line before each long step.

    Returns:
        The folder, a sentence on the model's scores, what `verify` found, and in
        `weights.adapter` what the adapter is.

    Raises:
        RunError: there is nothing to export, a source has changed, `out` exists, or the hub does
            not take it; a folder that was written stays.
        RecipeError, SourceError, StorageError, TaskError: as their messages say.
    """
    from evomerge.api.deliveries import export_run

    return export_run(
        read_folder(run_dir),
        read_folder(out),
        trial=None if trial is None else str(trial),
        point=point,
        verify=verify,
        as_adapter=as_adapter,
        rank=rank,
        push=push,
        public=public,
        trust_code=trust_code,
        ray_address=ray_address,
        say=say,
    )


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
    from evomerge.api.deliveries import report_run

    return report_run(read_folder(run_dir), None if out is None else read_folder(out))


def repair(run_dir: str | Path) -> Repair:
    """Save what can be read of a damaged record in a new database; the damaged one is kept.

    `resume` then scores again what was lost, to the same result. A record without damage is left as
    it is.

    Args:
        run_dir: of a search that nobody runs.

    Returns:
        What was damaged, saved and lost.

    Raises:
        RunError: there is no search, or nothing that a search can go on with can be read.
        StorageError: the new database cannot be written; nothing has changed.
    """
    where = read_folder(run_dir)
    from evomerge.study import repair_study

    return repair_study(where)


def begin_checks(compute: ComputeSpec, observe: Observe, ray_address: str | None) -> None:
    """Check that the workers can be started, and announce the checks of models and tasks.

    The workers come first, because loading models and tasks takes many seconds. Raises InputError.
    """
    from evomerge.search import Checking
    from evomerge.workers import check_workers

    check_workers(compute, ray_address=ray_address)
    observe(Checking())


def prepare_new(spec: JobSpec, observe: Observe, ray_address: str | None) -> PreparedJob:
    """Check and prepare the job of a new search, cheapest checks first. Raises InputError."""
    from evomerge.api.arguments import check_names_of

    check_names_of(spec)
    from evomerge.workers import check_models, pin, prepare

    begin_checks(spec.compute, observe, ray_address)
    preparation = prepare(pin(spec))
    check_models(preparation, ray_address=ray_address)
    return preparation


def _begin(
    job: Job,
    run_dir: str | Path | None,
    changes: Changes,
    observe: Observe,
    ray_address: str | None,
) -> tuple[Study, PreparedJob]:
    """Make the record of a new search and prepare its job. Raises InputError, StorageError."""
    spec = read_job(job, changes)
    from evomerge.study import create_study, refuse_existing, refuse_grid

    where = read_folder(Path("runs") / spec.name if run_dir is None else run_dir)
    refuse_grid(where)
    refuse_existing(where)
    preparation = prepare_new(spec, observe, ray_address)
    from evomerge.workers import fingerprints_of

    study = create_study(
        where,
        preparation.job,
        directions=preparation.objective.directions,
        facts=fingerprints_of(preparation),
    )
    return study, preparation


def _go_on(
    run_dir: Path,
    changes: Changes,
    observe: Observe,
    ray_address: str | None,
    trust_code: bool,
) -> tuple[Study, PreparedJob]:
    """Open the record of an existing search and prepare its job. Raises InputError."""
    from evomerge.study import check_trusted, refuse_grid, resume_study

    refuse_grid(run_dir)
    check_trusted(run_dir, trust=trust_code)
    study = resume_study(run_dir, overrides=written_changes(changes))
    try:
        from evomerge.workers import check_models, prepare

        begin_checks(study.job.compute, observe, ray_address)
        preparation = prepare(study.job)
        check_models(preparation, ray_address=ray_address)
    except BaseException:
        study.close()
        raise
    return study, preparation


def _run(
    study: Study,
    preparation: PreparedJob,
    observe: Observe,
    ray_address: str | None,
) -> SearchResult:
    from evomerge.api.result import SearchResult
    from evomerge.search import run_study

    with study:
        run_study(study, preparation, observe=observe, ray_address=ray_address)
        return SearchResult(study)
