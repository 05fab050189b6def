"""A search of 10,000 candidates: the page draws what is seen, and stays quick to use."""

from __future__ import annotations

import json
from typing import Any

from tests.service.page.browser import Seat
from tests.service.page.conftest import Site

COUNT = 10_000


def rows() -> list[dict[str, Any]]:
    return [
        {
            "candidate": f"g{n // 50 + 1:04}-i{n % 50:03}",
            "phase": "search",
            "label": f"g{n // 50 + 1:04}-i{n % 50:03}",
            "score": 0.5 + 0.4 * n / COUNT + 0.05 * (n % 7) / 7,
            "items": 64,
            "merge_s": 0.1,
            "evaluate_s": 1.0,
            "failure": None,
            "kana_arithmetic_en/exact_match": 0.5,
        }
        for n in range(COUNT)
    ]


def series() -> dict[str, Any]:
    dots = [
        {
            "place": n + 1,
            "candidate": row["candidate"],
            "generation": n // 50 + 1,
            "score": row["score"],
            "height": row["score"],
            "items": 64,
        }
        for n, row in enumerate(rows())
    ]
    generations = [
        {
            "number": g + 1,
            "stage": 0,
            "place": 50 * g + 25.5,
            **dict.fromkeys(("mean", "mean_height"), 0.5 + 0.4 * g / 200),
            **dict.fromkeys(("best", "best_height"), 0.55 + 0.4 * g / 200),
        }
        for g in range(COUNT // 50)
    ]
    search = {
        "dots": dots,
        "crosses": [],
        "generations": generations,
        "lines": [],
        "stages": [[1, 0]],
        "shares": True,
    }
    return {"search": search, "stages": [], "population": None}


def test_ten_thousand_candidates_are_drawn_and_scrolled(own_desk: Seat, site: Site) -> None:
    job = site.jobs["weights"]
    page = own_desk.page
    for what, body in (
        ("series", series()),
        ("candidates", {"items": rows(), "total": COUNT}),
    ):
        text = json.dumps(body)
        page.route(
            f"**/jobs/{job}/{what}",
            lambda route, _request, text=text: route.fulfill(
                body=text, content_type="application/json"
            ),
        )
    own_desk.go(f"job/{job}")
    page.get_by_text("10,000 candidates scored").wait_for()
    own_desk.drawn()
    own_desk.go(f"job/{job}/candidates")
    page.get_by_text("10,000 of 10,000").wait_for()
    box = page.get_by_role("region", name="Candidates")
    assert box.locator("tbody tr").count() < 100
    box.evaluate("box => { box.scrollTop = box.scrollHeight; }")
    page.get_by_role("cell", name="g0200-i049").first.wait_for()
    assert box.locator("tbody tr").count() < 100
    page.get_by_role("button", name="score").click()
    box.evaluate("box => { box.scrollTop = 0; }")
    page.get_by_label("Find").fill("g0123-i007")
    page.get_by_text("1 of 10,000").wait_for()
    assert box.get_by_text("g0123-i007").count() == 2
