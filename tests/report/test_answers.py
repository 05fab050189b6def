"""Answers in the report, the status and a terminal: side by side, and never obeyed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from evomerge.errors import visible
from evomerge.evaluate.answers import Answers, ItemAnswer, Question, TaskAnswers
from evomerge.evaluate.candidate import CandidateKey
from evomerge.report import answers as answers_module
from evomerge.report.answers import answer_lines, answers_part, summary_of
from evomerge.report.html import render_report
from evomerge.report.status import show_status, status_of
from evomerge.search.results.answers import compare_answers
from evomerge.study import create_study
from tests.report.studies import make_structure
from tests.search.answered import CHOSEN, MODELS, SAID, MadeUp, answered, make_job, paths, record

EVIL = "</td></script><img src=x onerror=alert(1)>\x1b[2J\u202e{{ 7 * 7 }}<!--"


def section(page: str) -> str:
    found = re.search(r"<h2>Answers</h2>.*?</section>", page, re.DOTALL)
    assert found is not None
    return found[0]


def test_the_report_shows_lost_and_gained_items_side_by_side(tmp_path: Path) -> None:
    with answered(tmp_path / "run") as study:
        page = section(render_report(study, structure=make_structure()))
    rows = re.findall(r"<tr><td class=\"name\">kana_said (\d+)<br><span .*?>(.*?)</span>", page)
    assert rows[:4] == [(str(item), "lost") for item in (12, 13, 14, 15)]
    assert rows[4:12] == [(str(item), "gained") for item in range(8)]
    assert [change for _, change in rows[12:]] == ["others differ"] * 5
    heads = re.findall(r"<th>(.*?)</th>", page)
    assert heads[-4:] == ["winner", "japanese", "arithmetic", "uniform soup"]
    counts = "4 lost, 8 gained, 5 others differ, 13 the same"
    assert f"30 test items; winner against japanese (the best parent): {counts}" in page
    assert "What is\n12 and one?" in page
    assert "[0]</span> answer 0" in page and "[1]</span> answer 13" in page
    assert "cut off at the limit of 8 tokens" in page


def test_the_report_shows_the_shares_and_warns(tmp_path: Path) -> None:
    with answered(tmp_path / "run") as study:
        page = section(render_report(study, structure=make_structure()))
    names = ("answers", "winner", "base", "arithmetic", "japanese", "uniform soup")
    assert "".join(f'<th class="n">{name}</th>' for name in names) in page
    cells = ("20", "0%", "0%", "0%", "45% (9)", "0%")
    assert "".join(f'<td class="n">{cell}</td>' for cell in cells) in page
    assert "<strong>Warning:</strong> On kana_said, 0% of the answers of the winner" in page


def test_the_report_shows_what_is_missing(tmp_path: Path) -> None:
    with answered(tmp_path / "run") as study:
        paths(study.run_dir)["japanese"].unlink()
        page = section(render_report(study, structure=make_structure()))
        assert page.count("japanese is left out: ") == 1
        for path in paths(study.run_dir).values():
            path.unlink(missing_ok=True)
        page = section(render_report(study, structure=make_structure()))
        assert "no answers to test items can be shown" in page
        assert "<h3" not in page


def test_a_record_without_answers_has_no_such_section(tmp_path: Path) -> None:
    with answered(tmp_path / "run", keep=False) as study:
        assert answers_part(study) is None
        assert "<h2>Answers</h2>" not in render_report(study, structure=make_structure())


def test_nothing_in_an_answer_is_obeyed_by_a_page_or_a_terminal(tmp_path: Path) -> None:
    with answered(tmp_path / "run", [replace(m, says=EVIL) for m in MODELS]) as study:
        page = render_report(study, structure=make_structure())
        lines = list(answer_lines(compare_answers(study).shown(), whole=True))
    assert "<img" not in page and "onerror=alert(1)&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert not {"\x1b", "\u202e"} & set(section(page))
    assert "\\x1b[2J\\x202e" in section(page)
    assert any("\\x1b[2J" in visible(line) for line in lines)


def test_nothing_in_a_question_is_obeyed_by_a_page(tmp_path: Path) -> None:
    def asked(model: MadeUp) -> Answers:
        question = Question(prompt=f"P{EVIL}", target=f"T{EVIL}", choices=("</td><b>", "c"))
        item = ItemAnswer(item=0, question=question, loglikelihoods=(-1.0, -2.0))
        return {SAID: TaskAnswers(items=(item,))}

    models = [replace(m, label=f"<i>{m.label}") if m.role != "winner" else m for m in MODELS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.search.answered.answers_of", asked)
        with answered(tmp_path / "run", models) as study:
            paths(study.run_dir)["base"].unlink()
            paths(study.run_dir)["uniform soup"].unlink()
            page = section(render_report(study, structure=make_structure()))
    assert "P&lt;/td&gt;&lt;/script&gt;" in page and "T&lt;/td&gt;&lt;/script&gt;" in page
    assert "&lt;/td&gt;&lt;b&gt;" in page
    assert "<th>&lt;i&gt;" in page and "&lt;i&gt;uniform soup is left out" in page
    assert not re.search(r"<(i|b|img|script)\b", page)
    assert not {"\x1b", "\u202e"} & set(page)


def test_the_page_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "ITEMS_ON_PAGE", 5)
    long = [replace(m, says="x" * 3000) for m in MODELS]
    with answered(tmp_path / "run", long) as study:
        part = answers_part(study)
    assert part is not None
    assert (len(part.items), part.more) == (5, 12)
    assert max(len(cell.said) for row in part.items for cell in row.cells if cell) == 600


def test_a_terminal_gets_a_line_for_each_text(tmp_path: Path) -> None:
    with answered(tmp_path / "run") as study:
        sheet = compare_answers(study)
        lines = list(answer_lines(sheet.only(("lost",)).shown(0, 2)))
        whole = list(answer_lines(sheet.only(task=SAID, item=0).shown(), whole=True))
    assert lines == [
        "30 test items; winner against japanese (the best parent): 4 lost, 8 gained, "
        "5 others differ, 13 the same",
        "",
        "kana_said item 12: lost, exact_match",
        "  asked         What is",
        "                12 and one?",
        "  wanted        13",
        "  winner        [0] answer 0",
        "  japanese      [1] answer 13",
        "  arithmetic    [0] answer 0",
        "  uniform soup  [0] answer 0",
        "",
        "kana_said item 13: lost, exact_match",
        "  asked         What is",
        "                13 and one?",
        "  wanted        14",
        "  winner        [0] answer 0",
        "  japanese      [1] answer 14",
        "  arithmetic    [0] answer 0",
        "  uniform soup  [0] answer 0",
        "",
        "and 2 more items (--limit 4 shows all)",
    ]
    assert "                (cut off at the limit of 8 tokens)" in whole


def test_one_model_alone_has_no_mark(tmp_path: Path) -> None:
    with answered(tmp_path / "run") as study:
        lines = list(answer_lines(compare_answers(study, models=["winner"]).shown(0, 1)))
    assert lines[0] == "30 test items answered by winner"
    assert lines[2] == "kana_said item 0, exact_match"


def test_the_first_line_says_what_is_compared(tmp_path: Path) -> None:
    def first_line(*models: str) -> str:
        return summary_of(compare_answers(study, models=models).shown()).split(": ")[0]

    with create_study(tmp_path / "run", make_job()) as study:
        for place, model in enumerate(MODELS[1:]):
            record(study, CandidateKey(0, place), model)
        usual = "uniform soup (the best baseline) against japanese (the best parent)"
        assert first_line() == f"30 search items; {usual}"
        assert first_line("arithmetic", "base") == "30 search items; arithmetic against base"
        none = summary_of(compare_answers(study, models=["base", "arithmetic"]).shown())
    assert none == "30 search items; base against arithmetic: 3 lost, 0 gained, 27 the same"


def test_what_shows_nothing_is_said_and_what_is_left_out_is_marked(tmp_path: Path) -> None:
    prompt = "".join(f"line {place}\n" for place in range(60))
    said = ("", " \n", "x" * 900)

    def given(model: MadeUp) -> Answers:
        items = [
            ItemAnswer(item=place, question=Question(prompt=prompt, target=""), text=text)
            for place, text in enumerate(said)
        ]
        return {SAID: TaskAnswers(items=tuple(items))}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.search.answered.answers_of", given)
        with answered(tmp_path / "run") as study:
            part = answers_part(study)
            sheet = compare_answers(study, models=["winner"])
    assert part is not None
    cells = [row.cells[0].said for row in part.items if row.cells[0]]
    assert cells == ["(empty)", "(only spaces)", "x" * 599 + "…"]
    assert part.items[0].asked.startswith("…") and len(part.items[0].asked) == 239
    lines = list(answer_lines(sheet.shown(0, 3)))
    assert [line[10:] for line in lines if line.startswith("  winner")] == [
        "[1] (empty)",
        "[1] (only spaces)",
        "[1] " + "x" * 399 + "…",
    ]
    assert lines[3:7] == ["  asked   line 56", *(f"          line {n}" for n in (57, 58, 59))]


def test_of_many_choices_the_likeliest_are_shown(tmp_path: Path) -> None:
    likely = tuple(-((place * 7) % 30 + 0.5) for place in range(30))
    choices = tuple(f"c{place}" for place in range(30))
    given = {
        CHOSEN: TaskAnswers(
            items=(
                ItemAnswer(
                    item=0,
                    question=Question(prompt="?", target="\tc1", choices=choices),
                    loglikelihoods=likely,
                ),
            )
        )
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.search.answered.answers_of", lambda model: given)
        with answered(tmp_path / "run") as study:
            lines = list(answer_lines(compare_answers(study, models=["base"]).shown(0, 1)))
    assert lines[-3] == "  wanted      c1"
    assert lines[-2] == "  base    [1] c0"
    assert lines[-1].strip() == (
        "(log-likelihood: c0 -0.50, c13 -1.50, c26 -2.50, c9 -3.50, c22 -4.50, c5 -5.50, "
        "c18 -6.50, c1 -7.50 (the likeliest of 30))"
    )


def test_a_name_is_no_markup_of_a_terminal(tmp_path: Path) -> None:
    odd = "[bold]\x1b[2J</td>| "
    models = [replace(m, label=odd) if m.label == "uniform soup" else m for m in MODELS]
    with answered(tmp_path / "run", models) as study:
        written = StringIO()
        show_status(status_of(study), console=Console(file=written, width=400))
        page = section(render_report(study, structure=make_structure()))
    assert "[bold] [2J</td>| 0%" in written.getvalue()
    assert "[bold] [2J&lt;/td&gt;|" in page and "\x1b" not in page


def test_a_name_in_a_warning_is_no_markup_of_a_page(tmp_path: Path) -> None:
    models = [replace(m, label=f"<i>{m.label}") if m.role == "parent" else m for m in MODELS]
    with answered(tmp_path / "run", models) as study:
        page = section(render_report(study, structure=make_structure()))
    assert "45% of those of &lt;i&gt;japanese" in page
    assert "<i>" not in page


def test_the_status_notes_and_warns(tmp_path: Path) -> None:
    with answered(tmp_path / "run") as study:
        status = status_of(study)
        written = StringIO()
        show_status(status, console=Console(file=written, width=400))
        said = written.getvalue()
    assert "note            Answers cut off at the token limit: kana_said: winner 0%" in said
    assert "warning         On kana_said, 0% of the answers of the winner" in said
    document = json.loads(json.dumps(status.to_json()))
    assert document["cut_answers"][3] == {
        "task": SAID,
        "label": "japanese",
        "role": "parent",
        "answers": 20,
        "cut": 9,
        "share": 0.45,
    }
    assert len(document["warnings"]) == 1
