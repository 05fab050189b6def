"""The page without a mouse: every control is reached, its focus is seen, and is never lost."""

from __future__ import annotations

from typing import Any

from tests.service.page.browser import Seat
from tests.service.page.conftest import Site

_FOCUS = """() => {
  const at = document.activeElement;
  const box = at.getBoundingClientRect();
  const style = getComputedStyle(at);
  const labels = [...(at.labels ?? [])].map((label) => label.innerText);
  const text = at.ariaLabel ?? (labels.length ? labels.join(" ") : at.innerText);
  return {
    name: (text ?? "").trim().split("\\n")[0].trim(),
    tag: at.tagName,
    id: at.id,
    dialog: Boolean(at.closest("dialog")),
    outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    seen: box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 &&
      box.left < innerWidth,
  };
}"""
MOST = 120
"""More controls than a view has."""


def focus(desk: Seat) -> Any:
    """What has the focus."""
    return desk.page.evaluate(_FOCUS)


def tab_to(desk: Seat, *names: str, back: bool = False) -> None:
    """Press Tab until one of these has the focus. Whatever has it meanwhile is seen to have it."""
    for _ in range(MOST):
        desk.page.keyboard.press("Shift+Tab" if back else "Tab")
        at = focus(desk)
        assert at["tag"] in ("BODY", "HTML") or (at["outlined"] and at["seen"]), at
        if at["name"] in names:
            return
    raise AssertionError(f"Tab does not reach {names}")


def press(desk: Seat, *keys: str) -> None:
    for key in keys:
        desk.page.keyboard.press(key)


def wait_for_focus(desk: Seat, **wanted: Any) -> None:
    """Wait until what has the focus is like this."""
    for _ in range(600):
        at = focus(desk)
        if wanted.items() <= at.items():
            return
        desk.page.wait_for_timeout(50)
    raise AssertionError(f"{at} has the focus, not {wanted}")


def test_a_job_is_built_launched_stopped_and_deleted(desk: Seat, site: Site) -> None:
    page = desk.page
    press(desk, "Tab")
    assert focus(desk)["name"] == "To the content"
    assert focus(desk)["seen"]
    press(desk, "Enter")
    assert focus(desk)["id"] == "main"
    tab_to(desk, "New search")  # the button: the links of the head are passed over
    assert focus(desk)["tag"] == "BUTTON"
    press(desk, "Enter")
    page.get_by_role("heading", name="New search").wait_for()
    wait_for_focus(desk, id="main")  # the button is gone

    page.get_by_role("checkbox", name="counting").wait_for()
    tab_to(desk, "Name")
    page.keyboard.type("by-keyboard")
    tab_to(desk, "Base model")
    page.keyboard.type("base")
    for source in ("arithmetic", "counting"):
        tab_to(desk, f"{source} LlamaForCausalLM, 2.6 MB")
        press(desk, "Space")
    tab_to(desk, "Task")
    page.keyboard.type("kana_arithmetic_en")
    tab_to(desk, "Metric")
    press(desk, "Control+A")
    page.keyboard.type("exact_match")
    tab_to(desk, "Objectives are combined by")
    press(desk, "ArrowDown")
    tab_to(desk, "Candidates at most")
    press(desk, "Control+A")
    page.keyboard.type("12")
    page.get_by_text("The server would accept this job.").wait_for()
    tab_to(desk, "Launch")
    press(desk, "Enter")
    page.get_by_role("heading", name="by-keyboard").wait_for()
    wait_for_focus(desk, id="main")
    job = desk.fetch(f"jobs/{page.url.rpartition('/')[2]}")
    assert job["request"]["aggregate"] == "geometric"
    assert job["request"]["budget"]["candidates"] == 12
    assert [source.rpartition("/")[2] for source in job["request"]["models"]["sources"]] == [
        *("arithmetic", "counting")
    ]

    tab_to(desk, "Cancel …")
    press(desk, "Enter")
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    assert focus(desk)["name"] == "Leave it"  # not what cannot be undone
    for _ in range(5):
        press(desk, "Tab")
        at = focus(desk)
        assert at["dialog"] or at["tag"] == "BODY", "the focus is behind the dialog"
    press(desk, "Escape")
    desk.wait_count(page.locator("dialog"), 0)  # gone, and not only hidden
    wait_for_focus(desk, name="Cancel …", outlined=True)
    press(desk, "Enter")
    dialog.wait_for()
    press(desk, "Enter")  # Leave it
    desk.wait_count(page.locator("dialog"), 0)  # gone, and not only hidden
    wait_for_focus(desk, name="Cancel …", outlined=True)
    press(desk, "Enter")
    dialog.wait_for()
    tab_to(desk, "Cancel the job", back=True)
    press(desk, "Enter")
    page.locator(".state.cancelled").wait_for()
    desk.wait_count(page.get_by_role("button", name="Cancel …"), 0)
    wait_for_focus(desk, name="What can be done")  # the button is gone

    tab_to(desk, "Delete …")
    press(desk, "Enter")
    tab_to(desk, "Delete the job", back=True)
    press(desk, "Enter")
    page.get_by_role("heading", name="Jobs", exact=True).wait_for()
    wait_for_focus(desk, id="main")


def test_views_tables_and_answers_are_used(desk: Seat, site: Site) -> None:
    page = desk.page
    desk.go(f"job/{site.jobs['answered']}")
    page.get_by_role("heading", name="Scores of the candidates").wait_for()
    tab_to(desk, "Answers")
    press(desk, "Enter")
    page.get_by_text("1 to 10 of 30").wait_for()
    assert focus(desk)["name"] == "Answers"  # the views stay where they are
    tab_to(desk, "Show")
    press(desk, "ArrowDown")
    page.get_by_text("1 to 4 of 4").wait_for()
    press(desk, "ArrowUp")
    page.get_by_text("1 to 10 of 30").wait_for()
    tab_to(desk, "After")
    press(desk, "Enter")
    page.get_by_text("11 to 20 of 30").wait_for()
    press(desk, "Enter")
    page.get_by_text("21 to 30 of 30").wait_for()
    tab_to(desk, "Before", back=True)
    press(desk, "Enter")
    page.get_by_text("11 to 20 of 30").wait_for()

    tab_to(desk, "Candidates", back=True)
    press(desk, "Enter")
    table = page.get_by_role("region", name="Candidates")
    table.wait_for()
    tab_to(desk, "Find")
    page.keyboard.type("parent")
    page.get_by_text("0 of").wait_for()
    press(desk, "Control+A", "Delete")
    tab_to(desk, "score")
    column = page.get_by_role("columnheader").filter(has_text="score").first
    for order in ("descending", "ascending"):
        press(desk, "Enter")
        assert column.get_attribute("aria-sort") == order
    tab_to(desk, "Candidates", back=True)  # the table itself, which arrows move
    box = "document.querySelector('.tall').scrollLeft"
    page.set_viewport_size({"width": 500, "height": 700})
    press(desk, "ArrowRight")
    for _ in range(100):
        if page.evaluate(box) > 0:
            break
        page.wait_for_timeout(20)
    assert page.evaluate(box) > 0
    page.set_viewport_size({"width": 1280, "height": 900})


def test_an_export_is_ordered_and_its_files_are_reached(desk: Seat, site: Site) -> None:
    page, job = desk.page, site.jobs["weights"]
    desk.go(f"job/{job}/exports")
    page.get_by_role("region", name="Recipe").wait_for()
    tab_to(desk, "load and score it with stock tools")
    press(desk, "Space")
    tab_to(desk, "Export")
    with page.expect_response("**/exports") as answered:
        press(desk, "Enter")
    made = answered.value.json()["id"]
    assert desk.fetch(f"jobs/{made}")["request"]["verify"] is True
    desk.send("POST", f"jobs/{made}/cancel")
    site.jobs["export by keyboard"] = made
    desk.go(f"job/{site.jobs['export']}")
    page.get_by_role("button", name="Download model.safetensors").wait_for()
    tab_to(desk, "Download model.safetensors")
    with page.expect_download() as download:
        press(desk, "Enter")
    assert download.value.path().read_bytes() == bytes(5000)
    tab_to(desk, "Copy: Use with vLLM")


def test_every_dialog_is_left_by_escape(desk: Seat, site: Site) -> None:
    """And gives the focus back, whichever way it is left."""
    page = desk.page
    for view, opener in (
        (f"job/{site.jobs['weights']}", "Go on …"),
        (f"job/{site.jobs['weights']}", "Delete …"),
    ):
        desk.go(view)
        button = page.get_by_role("button", name=opener)
        button.wait_for()
        for way in ("Escape", "button"):
            button.focus()
            press(desk, "Enter")
            page.get_by_role("dialog").wait_for()
            assert focus(desk)["dialog"]
            if way == "Escape":
                press(desk, "Escape")
            else:
                page.get_by_role("button", name="Leave it").or_(
                    page.get_by_role("button", name="Close")
                ).click()
            desk.wait_count(page.locator("dialog"), 0)  # gone, and not only hidden
            wait_for_focus(desk, name=opener)
