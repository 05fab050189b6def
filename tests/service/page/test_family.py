"""The family tree of a search whose sources earlier searches made, with their real records."""

from __future__ import annotations

from evomerge.service.store.job import Job
from tests.service.page.browser import Seat
from tests.service.page.ended import Ended


def lines_of(desk: Seat) -> list[str]:
    """The members of the tree, each after a sign for every level that it is below the winner."""
    return [
        "> "
        * item.evaluate(
            "item => { let n = 0; for (let up = item.parentElement; "
            "!up.matches('.tree'); up = up.parentElement) n += up.matches('ul'); return n; }"
        )
        + " ".join(item.inner_text().split("\n")[0].split())
        for item in desk.page.locator(".tree li").all()
    ]


def test_three_generations_are_drawn_down_to_the_sources(
    desk: Seat, rounds: dict[str, Job], ended: Ended
) -> None:
    last = rounds["round 3"]
    desk.go(f"job/{last.id}/family")
    desk.page.locator(".tree").wait_for()
    found = desk.fetch(f"jobs/{last.id}/scores")["models"]
    scores = {(model["role"], model["label"]): model["score"]["value"] for model in found}
    winner = desk.fetch(f"jobs/{last.id}/winner")["winner"]

    def scored(role: str, label: str) -> str:
        """As a source is a source's label its id, and not every one is tested."""
        value = scores.get((role, label))
        return "" if value is None else f" {value:.3f}"

    names = {rounds[f"export {n}"].id: f"round-{n}" for n in (1, 2)}
    assert lines_of(desk) == [
        f"{names.get(winner['label'], winner['label'])} winner of round-3 "
        f"{winner['scores']['score']['value']:.3f}",
        f"> round-2 source{scored('parent', rounds['export 2'].id)}",
        "> > round-1 source",
        "> > > first source",
        "> > > second source",
        "> > > base base",
        "> > first source",
        "> > base base",
        f"> round-1 source{scored('parent', rounds['export 1'].id)}",
        f"> base base{scored('base', 'base')}",
    ]
    assert any(scored("parent", rounds[name].id) for name in ("export 1", "export 2"))
    tree = desk.page.locator(".tree").inner_text()
    assert f"candidate g0001-i002 of search round-2, exported by {rounds['export 2'].id}" in tree
    label = (rounds["round 1"].result or {})["winner"]
    told = f"winner {label} of search round-1, exported by {rounds['export 1'].id}"
    assert tree.count(told) == 2
    assert tree.count(f"{told}; its sources are drawn above") == 1
    for name in ("base", "first", "second"):
        assert str(ended.models / name) in tree
    assert desk.fits()
    assert desk.faults() == []
    desk.page.get_by_role("link", name="round-1", exact=True).first.click()
    desk.page.get_by_role("heading", name="round-1").wait_for()


def test_what_cannot_be_followed_is_said(desk: Seat, rounds: dict[str, Job]) -> None:
    export = rounds["export 1"].id
    desk.page.route(f"**/api/v1/jobs/{export}", lambda route: route.fulfill(status=404, json={}))
    desk.go(f"job/{rounds['round 2'].id}/family")
    desk.page.get_by_text(f"job:{export}: what made it is deleted").wait_for()
    desk.page.unroute_all()
    # A server that is away for a moment makes no model one from outside.
    desk.page.route(
        f"**/api/v1/jobs/{export}", lambda route: route.fulfill(status=503, json={}), times=1
    )
    desk.begin()
    desk.go(f"job/{rounds['round 2'].id}/family")
    desk.page.get_by_role("link", name="round-1", exact=True).wait_for()
