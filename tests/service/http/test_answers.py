"""What the models of a search answered, over HTTP: side by side, chosen, and in pages."""

from __future__ import annotations

from typing import Any

import pytest

from evomerge.service.store.jobs import Job
from tests.search.answered import CHOSEN, SAID, WINNER
from tests.service.http.house import House


@pytest.fixture
def job(house: House) -> Job:
    return house.answered()


def ask(house: House, job: Job, **wanted: Any) -> dict[str, Any]:
    answer = house.get(f"/jobs/{job.id}/answers", params=wanted)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def places(document: dict[str, Any]) -> list[tuple[str, int]]:
    return [(each["task"], each["item"]) for each in document["items"]]


def test_winner_and_parents_are_side_by_side_lost_and_gained_items_first(
    house: House, job: Job
) -> None:
    shown = ask(house, job)
    assert (shown["split"], shown["against"], shown["remarks"]) == ("test", "japanese", [])
    assert shown["counts"] == {"lost": 4, "gained": 8, "differs": 5, "same": 13}
    assert shown["total"] == len(shown["items"]) == 30
    models = [WINNER, "japanese", "arithmetic", "uniform soup"]
    assert [each["model"] for each in shown["models"]] == models
    changes = [each["change"] for each in shown["items"]]
    assert changes == ["lost"] * 4 + ["gained"] * 8 + ["differs"] * 5 + ["same"] * 13
    first = shown["items"][0]
    assert (first["task"], first["item"], first["metric"]) == (SAID, 12, "exact_match")
    assert (first["prompt"], first["target"]) == ("What is\n12 and one?", "13")
    said = [(each["model"], each["role"], each["answer"]) for each in first["answers"][:2]]
    assert said == [(WINNER, "winner", "answer 0"), ("japanese", "parent", "answer 13")]
    assert [each["value"] for each in first["answers"]] == [0.0, 1.0, 0.0, 0.0]


def test_fields_choose_the_items_and_the_models(house: House, job: Job) -> None:
    lost, gained = [(SAID, item) for item in range(12, 16)], [(SAID, item) for item in range(8)]
    assert places(ask(house, job, change="lost")) == lost
    assert places(ask(house, job, change="gained")) == gained
    assert places(ask(house, job, change="differ"))[:12] == lost + gained
    assert places(ask(house, job, task=CHOSEN)) == [(CHOSEN, item) for item in range(10)]
    assert set(places(ask(house, job, item=3))) == {(SAID, 3), (CHOSEN, 3)}
    assert ask(house, job, change="lost", task=CHOSEN)["total"] == 0
    pair = ask(house, job, models=["arithmetic", "base"])
    assert [each["model"] for each in pair["items"][0]["answers"]] == ["arithmetic", "base"]
    assert pair["against"] == "base"


def test_pages_are_parts_of_the_whole(house: House, job: Job) -> None:
    whole = ask(house, job)["items"]
    for offset, limit in ((0, 7), (7, 7), (28, 7), (30, 7)):
        page = ask(house, job, offset=offset, limit=limit)
        assert page["items"] == whole[offset : offset + limit]
        assert (page["total"], page["counts"]["lost"]) == (30, 4)
    assert places(ask(house, job, change="lost", offset=3)) == [(SAID, 15)]


@pytest.mark.parametrize(
    ("wanted", "field", "value", "text"),
    [
        ({"models": "nobody"}, "models", "nobody", "models nobody: no such model on"),
        ({"task": "no"}, "task", "no", "task no: no answers to it are kept on the test items"),
        ({"item": 77}, "item", "77", "item 77: not among the test items"),
        ({"split": "validation"}, "split", "validation", "no answers to validation items"),
        (
            {"models": "winner", "change": "lost"},
            "change",
            "lost",
            "change: two models are needed, and only winner is shown; name another in models",
        ),
    ],
)
def test_a_wrong_wish_is_refused_in_the_words_of_the_request(
    house: House, job: Job, wanted: dict[str, Any], field: str, value: str, text: str
) -> None:
    answer = house.get(f"/jobs/{job.id}/answers", params=wanted)
    problem = answer.json()
    assert answer.status_code == 422
    assert text in problem["detail"]
    assert "--" not in problem["detail"]
    assert (problem["field"], problem["value"]) == (field, value)
