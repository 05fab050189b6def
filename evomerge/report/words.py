"""How names, numbers and durations are written for people, the same wherever they are shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evomerge.job import JobSpec
from evomerge.report.tally import limits_of, spending_of
from evomerge.study import Trial

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")

_ROUNDING = 1e-9

_BARS = "▁▂▃▄▅▆▇█"


def score_text(value: float | None, shares: bool = False) -> str:
    """A score with three decimals; a dash where there is none.

    shares: whether scores are shares. An estimate from a weighted draw can be outside [0, 1]; then
    it only shows that the score is near that end.
    """
    if value is None:
        return "–"
    if shares and within_shares(value) != value:
        return "≥ 1" if value > 1.0 else "≤ 0"
    return f"{value:.3f}"


def within_shares(value: float) -> float:
    """An estimate of a share, moved into [0, 1]; one outside by a rounding error is kept."""
    return value if -_ROUNDING <= value <= 1.0 + _ROUNDING else min(1.0, max(0.0, value))


def gain_text(value: float) -> str:
    """A difference of scores with its sign; a difference that rounds to 0 has no sign."""
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0.0 else text.replace("-", "−")


def count_text(value: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: `1 candidate`, `2,400 candidates`."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def range_text(least: int, most: int, noun: str) -> str:
    """A range of counts: `40 items`, `20 to 80 items`."""
    return count_text(most, noun) if least == most else f"{least:,} to {count_text(most, noun)}"


def duration_text(seconds: float) -> str:
    """A duration in the two units that matter: `45 s`, `12 min 30 s`, `3 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(whole / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def estimate_text(seconds: float) -> str:
    """An estimated duration, roughly rounded."""
    if seconds < 60:
        return "under a minute"
    if seconds < 3600:
        return f"about {round(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"about {seconds / 3600:.1f} h"
    return f"about {seconds / 86400:.1f} days"


def one_line(text: str) -> str:
    """The text on one line, without control characters or marks that change reading direction."""
    return " ".join(_UNPRINTABLE.sub(" ", text).split())


def bars_text(values: Sequence[float]) -> str:
    """A bar for each value: the lowest bar for the lowest value, the highest for the highest."""
    low, high = min(values), max(values)
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return "".join(_BARS[round((value - low) / step)] for value in values)


def opening_text(job: JobSpec, taken: Sequence[Trial]) -> str:
    """What is recorded as a search begins, if anything, and the limits of its budget.

    taken: the recorded trials.
    """
    limits = " or ".join(
        f"{limit.most:,g} {'worker hours' if limit.unit == 'hours' else limit.unit}"
        for limit in limits_of(job.budget, spending_of([]))
    )
    if not taken:
        return f"search of up to {limits}"
    genomes = sum(trial.kind == "genome" for trial in taken)
    baselines = sum(trial.kind == "baseline" for trial in taken)
    finalists = sum(trial.key.phase == "validation" for trial in taken)
    parts = [count_text(baselines, "baseline"), count_text(genomes, "candidate")]
    if finalists:
        parts.append(count_text(finalists, "finalist"))
    return f"taken from the record: {', '.join(parts)}; going on to {limits}"
