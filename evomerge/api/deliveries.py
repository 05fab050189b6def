"""What a search delivers: recipes, exports on disk and on the hub, its report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.api.arguments import check_rank
from evomerge.errors import RunError
from evomerge.evaluate import CandidateKey, Say, hush
from evomerge.search import ChosenPoint, Selection, chosen_outcome, outcome_of
from evomerge.study import check_trusted, read_study, refuse_grid

if TYPE_CHECKING:
    from evomerge.export import ExportReport
    from evomerge.recipe import Recipe


def export_run(
    run_dir: Path,
    out: Path,
    *,
    trial: str | None = None,
    point: str | None = None,
    verify: bool = False,
    as_adapter: bool = False,
    rank: int | None = None,
    push: str | None = None,
    public: bool = False,
    trust_code: bool = False,
    say: Say | None = None,
) -> ExportReport:
    """Write the result of a search; see `evomerge.export`."""
    check_rank(rank, as_adapter=as_adapter)
    refuse_grid(run_dir)
    check_trusted(run_dir, trust=trust_code)
    with read_study(run_dir) as study:
        key = None if trial is None else CandidateKey.parse(trial)
        if trial is not None and point is not None:
            raise RunError("--point: --trial names a candidate already; give one of them")
        outcome = outcome_of(study)
        won = outcome if isinstance(outcome, Selection) else None
        chosen = chosen_outcome(study, point) if key is None else won
        from evomerge.export import check_free, check_push, export_winner, push_folder
        from evomerge.workers import prepare

        check_free(out)
        check_push(push, public=public)
        report = export_winner(
            prepare(study.job),
            study,
            chosen,
            out,
            trial=key,
            verify=verify,
            as_adapter=as_adapter,
            rank=rank,
            say=say or hush,
        )
    if push is None or not report.verified:
        return report
    (say or hush)(f"uploading {out} to {push} ...")
    return replace(report, url=push_folder(out, push, public=public))


def report_run(run_dir: Path, out: Path | None) -> Path:
    """Write the HTML report of a search; see `evomerge.report`."""
    refuse_grid(run_dir)
    with read_study(run_dir) as study:
        from evomerge.report import write_report
        from evomerge.sources import open_source

        structure = open_source(study.job.models.base, where="models.base").structure
        return write_report(study, structure=structure, out=out or run_dir / "report.html")


def recipe_of(run_dir: Path, *, trial: str | None = None, point: str | None = None) -> Recipe:
    """The recipe of the winner, of a candidate, or of a point of the front.

    Raises RunError as `export_run` does.
    """
    refuse_grid(run_dir)
    if trial is not None and point is not None:
        raise RunError("point: trial names a candidate already; give one of them")
    with read_study(run_dir) as study:
        if trial is not None:
            return study.trial(CandidateKey.parse(trial)).recipe
        chosen = chosen_outcome(study, point)
        return (chosen.point if isinstance(chosen, ChosenPoint) else chosen).recipe
