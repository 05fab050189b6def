"""The routes from which the page draws: the values of the figures, apart from any drawing."""

from __future__ import annotations

from tests.service.http.house import House


def test_the_series_are_those_of_the_record(house: House) -> None:
    job = house.searched()
    answer = house.get(f"/jobs/{job.id}/series")
    assert answer.status_code == 200
    rows = house.get(f"/jobs/{job.id}/candidates").json()["items"]
    scores = {row["candidate"]: row["score"] for row in rows}
    search = answer.json()["search"]
    assert {line["candidate"]: line["score"] for line in search["lines"]}.items() <= scores.items()
    assert {dot["candidate"]: dot["score"] for dot in search["dots"]}.items() <= scores.items()


def test_a_search_without_a_record_has_no_series(house: House) -> None:
    job = house.job()
    for what in ("series", "coefficients"):
        assert house.get(f"/jobs/{job.id}/{what}").status_code == 409
        assert house.get(f"/jobs/{job.id}/{what}", who="other").status_code == 404
        assert house.get(f"/jobs/{job.id}/{what}", who=None).status_code == 401
