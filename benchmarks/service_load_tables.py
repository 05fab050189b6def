"""What service_load.py prints: what watchers saw, answers, the memory of the server over time."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

AIM_MEDIAN_MS, AIM_P99_MS = 50.0, 250.0
AIM_MIB_AN_HOUR, TELLING_MINUTES = 10.0, 30.0
"""Slope of the memory in the second half that is taken as flat, and how long that needs."""
PAGE_ROUTES = ("list", "job", "status", "candidates", "series")
"""Requests of the fixed rate, by the routes that the page asks."""
PARTS = 12
"""Rows of the table over time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """The server at one moment. at_s: since the load began. reader_mib: of the process that reads.

    private_mib: what is the server's alone; pss_mib: and its share of what others have too.
    """

    at_s: float
    rss_mib: float
    pss_mib: float
    private_mib: float
    reader_mib: float
    files: int


def slope(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope by least squares and its standard error, which takes samples as independent."""
    times, values = zip(*samples, strict=True)
    fit = statistics.linear_regression(times, values)
    middle = statistics.fmean(times)
    spread = sum((each - middle) ** 2 for each in times)
    rest = sum((v - fit.intercept - fit.slope * t) ** 2 for t, v in samples)
    return fit.slope, (rest / max(1, len(times) - 2) / spread) ** 0.5


def _of(values: Sequence[float], share: float) -> float:
    """A quantile, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def print_tables(
    options: argparse.Namespace,
    seen: Mapping[str, Any],
    different: int,
    samples: Sequence[Sample],
    shares: Mapping[str, float],
) -> None:
    """Print everything."""
    kind = "SQLite" if options.database is None else "PostgreSQL"
    print(
        f"{kind}; {options.jobs} jobs in the queue, {options.running} of them running (simulated, "
        f"{options.events_per_s:g} events/s each); {options.watchers} watchers; "
        f"{options.requests_per_s:g} requests/s; {options.minutes:g} minutes\n"
    )
    _print_watchers(seen, different)
    answers = {
        name: list(zip(told[::2], told[1::2], strict=True))
        for name, told in seen["answers"].items()
    }
    page = [each for name in PAGE_ROUTES for each in answers.get(name, ())]
    _print_answers(answers, page)
    for name, count in sorted(seen["refused"].items()):
        print(f"Refused: {name}: {count}.")
    print("\n| share of the two cores | |\n|---|---:|")
    for name, share in shares.items():
        print(f"| {name} | {share:.0%} |")
    _print_over_time(samples, page, 60.0 * options.minutes)
    _print_memory(samples, options.minutes)


def _print_watchers(seen: Mapping[str, Any], different: int) -> None:
    jobs = len({job for job, _, _ in seen["whole"]})
    print("| watchers | |\n|---|---:|")
    print(f"| jobs submitted | {seen['jobs']:,} |")
    print(f"| jobs that were watched to their end | {jobs:,} by {len(seen['whole']):,} views |")
    print(f"| events received | {seen['events']:,} |")
    print(f"| connections cut and resumed | {seen['cut']:,} |")
    print(f"| quiet connections that were closed | {seen['closed']:,} |")
    for name in ("lost", "doubled", "disordered"):
        print(f"| {name} events | {seen[name]} |")
    print(f"| views that differ from the database | {different} |")
    print(f"| watchers that saw no end in time | {seen['unfinished']} |")
    delays = [1000 * each for each in seen["delays_s"]]
    print(f"| from kept to received, median | {_of(delays, 0.5):.0f} ms |")
    print(f"| from kept to received, p99 | {_of(delays, 0.99):.0f} ms |")


def _print_answers(
    answers: Mapping[str, Sequence[tuple[float, float]]], page: Sequence[tuple[float, float]]
) -> None:
    print("\n| request | answers | median ms | p99 ms | most ms |\n|---|---:|---:|---:|---:|")
    for name, times in [*sorted(answers.items()), ("of the page, together", page)]:
        row = [_ms(times, share) for share in (0.5, 0.99, 1.0)]
        print(f"| {name} | {len(times):,} | " + " | ".join(f"{each:.0f}" for each in row) + " |")
    met = _ms(page, 0.5) < AIM_MEDIAN_MS and _ms(page, 0.99) < AIM_P99_MS
    holds = "met" if met else "missed"
    print(f"\nAim (median below {AIM_MEDIAN_MS:g} ms, p99 below {AIM_P99_MS:g} ms): {holds}.")


def _ms(answers: Sequence[tuple[float, float]], share: float) -> float:
    return 1000 * _of([taken for _, taken in answers], share)


def _print_over_time(
    samples: Sequence[Sample], page: Sequence[tuple[float, float]], seconds: float
) -> None:
    head = ("until minute", "RSS MiB", "PSS", "private", "reader, private", "files")
    head += ("answers of the page", "median ms", "p99 ms")
    print(f"\n| {' | '.join(head)} |\n|{'---:|' * len(head)}")
    for part in range(PARTS):
        begin, end = part * seconds / PARTS, (part + 1) * seconds / PARTS
        there = [each for each in samples if begin <= each.at_s < end]
        if not there:
            continue
        asked = [each for each in page if begin <= each[0] < end]
        columns = ("rss_mib", "pss_mib", "private_mib", "reader_mib", "files")
        means = [statistics.fmean(getattr(each, name) for each in there) for name in columns]
        cells = [f"{end / 60:.1f}", *(f"{each:.1f}" for each in means[:-1]), f"{means[-1]:.0f}"]
        cells += [f"{len(asked):,}", f"{_ms(asked, 0.5):.0f}", f"{_ms(asked, 0.99):.0f}"]
        print("| " + " | ".join(cells) + " |")


def _print_memory(samples: Sequence[Sample], minutes: float) -> None:
    later = [each for each in samples if each.at_s > samples[-1].at_s / 2]
    rows = {
        "memory, RSS MiB": "rss_mib",
        "memory, PSS MiB": "pss_mib",
        "memory, private MiB": "private_mib",
        "the process that reads, private MiB": "reader_mib",
        "open files": "files",
    }
    print("\n| server | at first | at the end | most | slope an hour |\n|---|---:|---:|---:|---:|")
    slopes = {}
    for name, column in rows.items():
        values = [getattr(each, column) for each in samples]
        a, error = slope([(each.at_s / 3600, getattr(each, column)) for each in later])
        slopes[column] = a, 1.96 * error
        ends = f"{values[0]:.0f} | {values[-1]:.0f} | {max(values):.0f}"
        print(f"| {name} | {ends} | {a:+.1f} ± {1.96 * error:.1f} |")
    print("\nThe slope is that of the second half, by least squares.")
    if minutes < TELLING_MINUTES:
        print(f"Whether memory is flat is told by {TELLING_MINUTES:g} minutes or more.")
        return
    for name, column in (("the server", "private_mib"), ("the process that reads", "reader_mib")):
        is_flat = sum(slopes[column]) < AIM_MIB_AN_HOUR
        holds = "met" if is_flat else "missed"
        print(f"Aim (private memory of {name} below {AIM_MIB_AN_HOUR:+g} MiB an hour): {holds}.")
