"""Searches beside each other: their curves and their figures are those that the API answers."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from evomerge.service.store.job import Job
from tests.service.page.browser import Seat
from tests.service.page.conftest import Site


def three(value: float) -> str:
    """Three digits after the point, as JavaScript rounds."""
    return str(Decimal(value).quantize(Decimal("0.001"), ROUND_HALF_UP))


def gained(value: float) -> str:
    text = three(abs(value))
    return text if float(text) == 0 else f"{'−' if value < 0 else '+'}{text}"


def column(desk: Seat, job: str) -> dict[str, str]:
    """What the table is to say of a search."""
    facts = desk.fetch(f"jobs/{job}")
    status, outcome = (desk.fetch(f"jobs/{job}/{what}") for what in ("status", "winner"))
    gain, winner = outcome["gain"], outcome["winner"]

    def stacked(it: dict[str, Any] | None) -> str:
        return f"{three(it['value'])} {three(it['low'])} to {three(it['high'])}" if it else "–"

    said = {
        "state": facts["state"],
        "winner, test items": stacked(winner["scores"]["score"])
        if winner
        else f"a front of {len(outcome['points'])} points",
        "gain over the best parent": " ".join(
            (gained(gain["value"]), gained(gain["low"]), "to", gained(gain["high"]))
        )
        if gain
        else "–",
        "verdict": outcome["verdict"],
        "candidates": str(status["candidates"]),
        "failed": str(status["failed"]),
        "worker time": f"{status['worker_s']:.1f} s",
        "items": f"{status['items']:,}",
        "sources": str(len(facts["request"]["models"]["sources"])),
    }
    for task, metrics in (winner["scores"]["tasks"] if winner else {}).items():
        said |= {f"{task}/{metric}": stacked(it) for metric, it in metrics.items()}
    return said


def test_curves_and_figures_are_those_of_the_api(
    desk: Seat, site: Site, rounds: dict[str, Job]
) -> None:
    page = desk.page
    page.get_by_label("Kind").select_option("search")
    jobs = [rounds["round 1"].id, rounds["round 2"].id, site.jobs["weights"], site.jobs["front"]]
    for job in jobs:
        page.get_by_role("checkbox", name=job).check()
    page.get_by_role("button", name="Compare 4").click()
    table = page.get_by_role("region", name="Searches in numbers")
    table.wait_for()
    desk.drawn()
    names = ["round-1", "round-2", *(f"kana {job[:6]}" for job in jobs[2:])]

    wanted = [
        {"name": name, "data": [[point["place"], point[height]] for point in generations]}
        for name, job in zip(names, jobs, strict=True)
        for generations in [desk.fetch(f"jobs/{job}/series")["search"]["generations"]]
        for height in ("mean_height", "best_height")
    ]
    assert len(wanted[0]["data"]) == 2
    drawn = desk.series(page.locator(".chart"))
    assert [
        {"name": each["name"], "data": [datum["value"] for datum in each["data"]]} for each in drawn
    ] == wanted

    head, *rows = (
        [" ".join(cell.split()) for cell in row.locator("th, td").all_inner_texts()]
        for row in table.get_by_role("row").all()
    )
    assert head[1:] == names
    shown = {row[0]: row[1:] for row in rows}
    columns = [column(desk, job) for job in jobs]
    for name in {name for each in columns for name in each}:
        assert shown.pop(name) == [each.get(name, "–") for each in columns], name
    assert list(shown) == ["search space"]
    assert desk.fits()
    assert desk.faults() == []


def test_a_search_that_is_gone_is_said_and_left_out(desk: Seat, rounds: dict[str, Job]) -> None:
    jobs = [rounds["round 1"].id, "jaaaaaaaaaaaaaaa", rounds["round 2"].id]
    desk.go(f"compare?jobs={','.join(jobs)}")
    desk.page.get_by_text("There is no job jaaaaaaaaaaaaaaa").wait_for()
    desk.page.get_by_role("button", name="Leave it out").click()
    desk.wait_count(desk.page.get_by_text("There is no job"), 0)
    heads = desk.page.get_by_role("columnheader")
    desk.wait_count(heads, 3)
    assert heads.all_inner_texts()[1:] == ["round-1", "round-2"]
