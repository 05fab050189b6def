"""A browser for the tests of the page, and a page that reports what went wrong in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

AXE = Path(__file__).parent / "axe.min.js"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_WATCH = """addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy broken: ${event.violatedDirective} in ${event.sourceFile}`);
});"""
_EXPECTED = "Failed to load resource"
"""A browser logs each refused request; what a page makes of it is what the tests look at."""

PATIENCE_MS = 240_000
"""A busy machine takes long to draw; nothing waits so long that goes well."""


@dataclass(kw_only=True)
class Seat:
    """A page that is signed in. complaints: errors of scripts and of the content policy."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Load the page anew, at its first view."""
        assert self.complaints == [], self.complaints
        self.page.goto("about:blank")
        self.page.goto(self.url)
        self.page.get_by_role("heading", name="Jobs", exact=True).wait_for()

    def go(self, place: str) -> None:
        """Go to a view of the page."""
        self.page.goto(f"{self.url}/#/{place}")

    def fetch(self, path: str) -> Any:
        """What a route answers in the session of the browser."""
        return self.page.evaluate("async (at) => (await fetch(at)).json()", f"/api/v1/{path}")

    def send(self, method: str, path: str, body: object = None) -> Any:
        """What a route answers to a change in the session of the browser."""
        return self.page.evaluate(
            """async ([method, path, body]) => {
              const { csrf } = await (await fetch("/api/v1/session")).json();
              const headers = { "X-CSRF-Token": csrf, "Content-Type": "application/json" };
              const sent = body === null ? undefined : JSON.stringify(body);
              const answer = await fetch(`/api/v1/${path}`, { method, headers, body: sent });
              if (!answer.ok) throw new Error(await answer.text());
              return answer.status === 204 ? null : answer.json();
            }""",
            [method, path, body],
        )

    def series(self, chart: Locator) -> list[dict[str, Any]]:
        """What a chart draws: of each series its name, and every datum with its place in CSS pixels
        from the corner of the chart."""
        found: list[dict[str, Any]] = chart.evaluate(
            """async (box) => {
              const chart = (await import("/static/vendor/echarts.js")).getInstanceByDom(box);
              return chart.getOption().series.map(({ name, data }, seriesIndex) => ({
                name,
                data: data.map((datum) => {
                  const value = datum.value ?? datum;
                  const place = chart.convertToPixel({ seriesIndex }, value);
                  return { name: datum.name, value, place };
                }),
              }));
            }"""
        )
        return found

    def drawn(self) -> None:
        """Wait until every chart is drawn that is on the page."""
        self.wait_count(self.page.locator(".chart:not([data-drawn])"), 0)

    def wait_count(self, found: Locator, count: int) -> None:
        """Wait until there are so many; the content policy lets no text be run that asks for it."""
        from playwright.sync_api import expect

        expect(found).to_have_count(count, timeout=PATIENCE_MS)

    def wait_text(self, found: Locator, text: str) -> None:
        """Wait until an element has this text."""
        from playwright.sync_api import expect

        expect(found).to_have_text(text, timeout=PATIENCE_MS)

    def fits(self) -> bool:
        """Whether the view is no wider than a phone."""
        self.page.set_viewport_size({"width": 390, "height": 800})
        for _ in range(200):  # a chart is drawn anew a little later
            width = self.page.evaluate("document.documentElement.scrollWidth")
            if width <= 390:
                break
            self.page.wait_for_timeout(50)
        self.page.set_viewport_size({"width": 1280, "height": 900})
        return bool(width <= 390)

    def faults(self, *rules: str) -> list[str]:
        """What axe-core finds wrong: contrast, names, roles, landmarks; or by these rules alone."""
        self.page.evaluate(AXE.read_text(encoding="utf-8") + "\n;0")
        options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
        found = self.page.evaluate("(options) => axe.run(options)", options)
        return [
            f"{fault['id']}: {node['target']} {node['failureSummary']}"
            for fault in found["violations"]
            for node in fault["nodes"]
        ]


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser without a window. Skips the test where there is none."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed, which drives the browser"
    )
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no chromium is installed; `apt-get install chromium` gives one")
    with api.sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=found, args=["--renderer-process-limit=1", "--disable-gpu"]
        )
        yield opened
        opened.close()


@contextmanager
def seat(browser: Browser, url: str, token: str, **options: Any) -> Iterator[Seat]:
    """A page of its own, signed in with a token."""
    usual = {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB"}
    context = browser.new_context(**{**usual, **options})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    taken = Seat(page=page, url=url)
    page.add_init_script(_WATCH)
    page.on("pageerror", lambda error: taken.complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            taken.complaints.append(message.text)
            if message.type == "error" and _EXPECTED not in message.text
            else None
        ),
    )
    page.goto(url)
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Jobs", exact=True).wait_for()
    yield taken
    context.close()
    assert taken.complaints == [], taken.complaints
