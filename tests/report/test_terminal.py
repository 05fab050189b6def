from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evomerge.evaluate.candidate import MOST_FINALISTS, CandidateKey, Step
from evomerge.report.pace import FinalItems
from evomerge.report.terminal import SearchProgress
from evomerge.study import Study, create_study, read_study, resume_study
from tests.report.route_studies import MadeUpHybrid, hybrid_job
from tests.report.studies import FAILURE, MadeUpSearch, run_through

Steps = Iterator[tuple[Step, CandidateKey]]


def plain_console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width)


def page_of(progress: SearchProgress, width: int) -> list[str]:
    console = plain_console(width)
    console.print(progress.page())
    return text_of(console).splitlines()


def terminal(width: int = 80) -> Console:
    return Console(
        file=io.StringIO(), width=width, height=24, force_terminal=True, color_system=None
    )


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def frames(console: Console) -> str:
    """What was written, without the sequences that move the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text_of(console))


def watch(study: Study, console: Console, *, generations: int = 3) -> None:
    with SearchProgress(study, console=console, clock=lambda: 0.0) as progress:
        run_through(MadeUpSearch(study, generations=generations, population=4).steps(), progress)


def until_recorded(steps: Steps, last: CandidateKey) -> Steps:
    for step, key in steps:
        yield step, key
        if (step, key) == ("recorded", last):
            return


def interrupt(study: Study, console: Console) -> None:
    with SearchProgress(study, console=console) as progress:
        run_through(until_recorded(MadeUpSearch(study).steps(), CandidateKey(1, 1)), progress)
        raise KeyboardInterrupt


def test_without_a_terminal_each_generation_and_phase_is_one_line(new_study: Study) -> None:
    console = plain_console()
    watch(new_study, console)
    lines = text_of(console).splitlines()
    starts = [line.partition(":")[0] for line in lines]
    assert starts == [
        "kana-arithmetic",
        "baselines",
        "generation 1",
        "generation 2",
        "generation 3",
        "search",
        "validation",
        "test",
    ]
    assert "up to 12 candidates" in lines[0]
    assert re.search(
        r"9 models scored on 510 items each; best parent 0\.\d{3} \(japanese\)", lines[1]
    )
    assert re.search(r"4 of 12 candidates, under a minute left before validation$", lines[2])
    assert re.search(r"on 126 items; mean 0\.\d{3}, best 0\.\d{3}; best parent", lines[2])
    assert f"1 failed, last: {FAILURE}" in lines[3]
    assert lines[5] == "search: 3 generations done, 12 of 12 candidates"
    assert lines[6] == "validation: 5 models scored on 198 items each"


def test_without_a_terminal_there_are_no_control_characters(new_study: Study) -> None:
    console = plain_console()
    watch(new_study, console)
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text_of(console)) is None


def test_a_resumed_search_says_once_what_it_took_from_the_record(new_study: Study) -> None:
    first = MadeUpSearch(new_study, generations=3, population=4)
    run_through(first.baselines())
    run_through(first.generation(1))
    console = plain_console()
    new_study.close()
    with resume_study(new_study.run_dir) as resumed:
        watch(resumed, console)
    lines = text_of(console).splitlines()
    taken = "taken from the record: 9 baselines, 4 candidates; going on to 12 candidates"
    assert lines[0] == f"kana-arithmetic: {taken}"
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "generation 2",
        "generation 3",
        "search",
        "validation",
        "test",
    ]
    assert lines[1].startswith("generation 2: 3 scored")
    assert "best parent 0." in lines[1]


def test_a_finished_search_says_nothing_new(searched: Study) -> None:
    console = plain_console()
    watch(searched, console)
    [line] = text_of(console).splitlines()
    assert "12 candidates, 5 finalists; going on to" in line


def test_an_interrupted_phase_has_no_summary(new_study: Study) -> None:
    console = plain_console()
    with pytest.raises(KeyboardInterrupt):
        interrupt(new_study, console)
    assert text_of(console).splitlines()[-1].startswith("baselines:")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_shows_where_the_search_is_within_its_width(
    new_study: Study, width: int
) -> None:
    search = MadeUpSearch(new_study, generations=3, population=4)
    progress = SearchProgress(new_study, console=plain_console(width), clock=lambda: 0.0)
    run_through(search.baselines(), progress)
    run_through(search.generation(1), progress)
    run_through(until_recorded(search.generation(2), CandidateKey(2, 2)), progress)
    shown = page_of(progress, width)
    assert max(map(len, shown)) <= width
    page = "\n".join(line.rstrip() for line in shown)
    assert "generation 2" in shown[0]
    assert "58%" in shown[1]
    assert "7 of 12 candidates" in page
    assert re.search(r"this generation +3 scored, mean 0\.\d{3}, best 0\.\d{3}", page)
    assert re.search(r"best parent +0\.\d{3} \(japanese\) on 510 items", page)


def test_the_page_counts_failures_and_gives_the_last_reason(searched: Study) -> None:
    page = "\n".join(page_of(SearchProgress(searched, console=plain_console(120)), 120))
    assert f"1, last: {FAILURE}" in page


def test_a_terminal_keeps_the_lines_of_phases_and_clears_the_rest(new_study: Study) -> None:
    console = terminal(200)
    watch(new_study, console)
    lasting = frames(console)
    assert "baselines: 9 models scored" in lasting
    assert "test: 5 models scored" in lasting
    assert "generation 1:" not in lasting
    assert "\x1b[2K" in text_of(console)  # the live part is wiped


def test_unfinished_generations_are_left_out_of_the_trend(new_study: Study) -> None:
    search = MadeUpSearch(new_study, generations=3, population=4)
    progress = SearchProgress(new_study, console=plain_console(), clock=lambda: 0.0)
    run_through(search.generation(1), progress)
    run_through(until_recorded(search.generation(2), CandidateKey(2, 0)), progress)
    assert "generation means" not in "\n".join(page_of(progress, 80))
    run_through(search.generation(2), progress)
    assert re.search(
        r"generation means +0\.\d{3} [▁█]{2} 0\.\d{3}", "\n".join(page_of(progress, 80))
    )


def test_each_stage_is_announced_once(tmp_path: Path) -> None:
    console = plain_console(200)
    with (
        create_study(tmp_path / "run", hybrid_job()) as study,
        SearchProgress(study, console=console, clock=lambda: 0.0) as progress,
    ):
        search = MadeUpHybrid(study, generations=2)
        run_through(search.steps(), progress)
    starts = [line.partition(":")[0] for line in text_of(console).splitlines()]
    assert starts == [
        "kana-arithmetic",
        "baselines",
        "stage 1 of 2",
        *(f"generation {number}" for number in (1, 2, 3)),
        "search",
        "validation",
        "stage 2 of 2",
        *(f"generation {number}" for number in (4, 5)),
        "search",
        "validation",
        "test",
    ]
    assert "stage 2 of 2: data_flow\n" in text_of(console)


def test_the_live_title_names_the_stage(tmp_path: Path) -> None:
    with create_study(tmp_path / "run", hybrid_job()) as study:
        progress = SearchProgress(study, console=plain_console(), clock=lambda: 0.0)
        search = MadeUpHybrid(study)
        run_through(search.first_stage(), progress)
        run_through(search.routes.generation(4), progress)
        assert "generation 4, stage 2 of 2: data_flow" in page_of(progress, 80)[0]
        run_through(search.routes.finalists(-1, 2), progress)
        assert "stage" not in page_of(progress, 80)[0]


def test_the_display_itself_loads_no_model_library() -> None:
    code = (
        "import sys, evomerge.report.terminal, evomerge.report.status; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'lm_eval')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Clock:
    """Goes on by so many seconds with each model that is recorded."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def watch_all(study: Study, console: Console, *, step_s: float) -> SearchProgress:
    """A whole search whose final selection is planned, as the selection plans it."""
    clock = Clock(step_s)
    search = MadeUpSearch(study, generations=3, population=4)
    progress = SearchProgress(
        study, final_items=FinalItems(validation=198, test=198), console=console, clock=clock
    )

    def observe(step: Step, key: CandidateKey) -> None:
        clock.now_s += step_s if step == "recorded" else 0.0
        progress(step, key)

    with progress:
        run_through(search.baselines(), observe)
        for number in (1, 2, 3):
            run_through(search.generation(number), observe)
        for generation in (-1, -2):
            keys = [CandidateKey(generation, 3 * MOST_FINALISTS + place) for place in range(5)]
            progress.plan(keys, 198)
            run_through(search.finalists(generation, 5), observe)
    return progress


def test_the_time_left_covers_validation_and_test(new_study: Study) -> None:
    console = plain_console(200)
    watch_all(new_study, console, step_s=100.0)
    lines = text_of(console).splitlines()
    [generation] = [line for line in lines if line.startswith("generation 1:")]
    assert re.search(r"4 of 12 candidates, about \d+ min left, validation and test inc", generation)
    [searched] = [line for line in lines if line.startswith("search:")]
    assert re.search(r"12 of 12 candidates, about \d+ min left, validation and test", searched)


def test_validation_and_test_say_what_they_score_and_how_far_they_are(new_study: Study) -> None:
    console = plain_console(200)
    watch_all(new_study, console, step_s=20.0)
    lines = text_of(console).splitlines()
    [begun, between, *_] = [line for line in lines if line.startswith("validation:")]
    assert re.search(r"5 models on 198 items each, about \d+ min left, test included$", begun)
    assert re.search(r": [234] of 5 models scored, about \d+ min left, test included$", between)
    [begun, between, *_, ended] = [line for line in lines if line.startswith("test:")]
    assert re.search(r"5 models on 198 items each, about \d+ min left$", begun)
    assert " of 5 models scored, " in between
    assert ended == "test: 5 models scored on 198 items each"
    assert sum(line.startswith("baselines: ") and "so far" in line for line in lines) > 1


def test_what_is_recorded_is_not_announced_again(new_study: Study) -> None:
    watch_all(new_study, plain_console(), step_s=0.0)
    console = plain_console()
    with read_study(new_study.run_dir) as again:
        watch_all(again, console, step_s=0.0)
    assert len(text_of(console).splitlines()) == 1


def test_an_estimate_outside_of_shares_is_shown_as_the_end_that_it_is_near(
    new_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = MadeUpSearch(new_study, generations=1, population=4)
    console = plain_console(200)
    with SearchProgress(new_study, console=console, clock=lambda: 0.0) as progress:
        run_through(search.baselines(), progress)
        record = new_study.record

        def above(*args: Any, **kept: Any) -> None:
            record(*args, **{**kept, "score": 1.012})

        monkeypatch.setattr(new_study, "record", above)
        run_through(search.generation(1), progress)
        assert "mean ≥ 1, best ≥ 1" in "\n".join(page_of(progress, 120))
    assert "mean ≥ 1, best ≥ 1; best parent 0." in text_of(console)
    assert "1.012" not in text_of(console)
