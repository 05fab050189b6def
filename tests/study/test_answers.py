"""Answers in a record: read back to the last bit, bounded, and never in the way of anything."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evomerge.errors import RunError
from evomerge.evaluate.answers import Answers, ItemAnswer, Question, TaskAnswers
from evomerge.evaluate.candidate import Candidate, CandidateKey
from evomerge.study import Study, create_study, read_study, resume_study
from evomerge.study.answers import AnswerFiles, digest_answers
from tests.study.records import SCORED, candidate, job_of, record_one

KEY = CandidateKey(0, 4)

ANSWERS: Answers = {
    "said": TaskAnswers(
        items=(
            ItemAnswer(
                item=3,
                question=Question(prompt="1 + 1\x1b[2J\0 =", target="2"),
                text="二 </script>\n\u202e",
                characters=900,
                tokens=8,
                cut=True,
            ),
            ItemAnswer(item=5, question=None, characters=7),
        ),
        lower_is_better=("words",),
    ),
    "chosen": TaskAnswers(
        items=(
            ItemAnswer(
                item=0,
                question=Question(prompt="", target="", choices=("a", "")),
                loglikelihoods=(-0.1 - 0.2, -1e-300),
            ),
        )
    ),
    "empty": TaskAnswers(items=()),
}


def baseline(place: int = 4) -> Candidate:
    return replace(candidate(0), key=CandidateKey(0, place), kind="baseline", genome=None)


def record(study: Study, answers: Answers = ANSWERS, place: int = 4) -> None:
    study.record(baseline(place), replace(SCORED, answers=answers), score=0.5)


def test_answers_are_read_back_as_they_were_given(tmp_path: Path) -> None:
    with create_study(tmp_path / "run", job_of()) as study:
        record(study)
        record_one(study, 0)
    with read_study(tmp_path / "run") as study:
        assert repr(study.answers_of(KEY)) == repr(ANSWERS)
        assert study.trial(KEY).answers == digest_answers(ANSWERS)
        assert study.answers_of(CandidateKey(1, 0)) == {}
        assert study.trial(CandidateKey(1, 0)).answers is None
    assert [path.name for path in (tmp_path / "run" / "answers").iterdir()] == [f"{KEY}.parquet"]


def test_answers_with_a_flipped_bit_are_lost_or_what_they_were(tmp_path: Path) -> None:
    files, digest = AnswerFiles(tmp_path), digest_answers(ANSWERS)
    files.write(KEY, ANSWERS)
    [path] = (tmp_path / "answers").iterdir()
    content, bits, found = path.read_bytes(), random.Random(5), set()
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << bits.randrange(8)
        path.write_bytes(bytes(changed))
        try:
            found.add(repr(files.read(KEY, digest)))
        except RunError as error:
            found.add("damaged" if "are damaged; put the file back" in str(error) else str(error))
    assert found == {"damaged", repr(ANSWERS)}


def test_lost_answers_are_missed_by_nobody_but_who_asks_for_them(tmp_path: Path) -> None:
    with create_study(tmp_path / "run", job_of()) as study:
        record(study)
    (tmp_path / "run" / "answers" / f"{KEY}.parquet").unlink()
    with read_study(tmp_path / "run") as study:
        assert not study.lacks(KEY)
        assert study.outcome_of(KEY) == SCORED
        with pytest.raises(RunError, match=r"g0000-i004.parquet: the answers of .* are missing"):
            study.answers_of(KEY)


def test_answers_of_another_candidate_are_not_taken_for_its_own(tmp_path: Path) -> None:
    with create_study(tmp_path / "run", job_of()) as study:
        record(study)
        AnswerFiles(study.run_dir).write(KEY, {"said": ANSWERS["said"]})
        with pytest.raises(RunError, match="are damaged"):
            study.answers_of(KEY)


def write_pipe(path: Path) -> None:
    os.mkfifo(path)


def write_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def write_link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere")


def write_more_columns(path: Path) -> None:
    table = read_good(path)
    pq.write_table(table.append_column("more", pa.array(range(len(table)))), path)


def write_fewer_columns(path: Path) -> None:
    pq.write_table(read_good(path).drop_columns(["cut"]), path)


def write_another_type(path: Path) -> None:
    table = read_good(path)
    place = table.column_names.index("tokens")
    column = pa.array([[1]] * len(table))
    pq.write_table(table.set_column(place, "tokens", column), path)


def read_good(path: Path) -> pa.Table:
    files = AnswerFiles(path.parents[1])
    files.write(KEY, ANSWERS)
    return pq.read_table(path)


@pytest.mark.parametrize(
    "write",
    [
        write_pipe,
        write_device,
        write_link_to_nothing,
        Path.mkdir,
        write_more_columns,
        write_fewer_columns,
        write_another_type,
    ],
)
def test_what_is_no_file_of_answers_is_named_and_stops_no_search(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    with create_study(tmp_path / "run", job_of()) as study:
        record(study)
        path = study.run_dir / "answers" / f"{KEY}.parquet"
        path.unlink()
        write(path)
        with pytest.raises(RunError, match=r"g0000-i004.parquet: the answers of .* are"):
            study.answers_of(KEY)
        record(study, place=5)
        assert repr(study.answers_of(CandidateKey(0, 5))) == repr(ANSWERS)


FIRST, CHOICE = ANSWERS["said"].items[0], ANSWERS["chosen"].items[0]


@pytest.mark.parametrize(
    "part",
    [
        {"item": None},
        {"loglikelihoods": (None, -1.0)},
        {"question": Question(prompt="", target=cast(str, None))},
        {"question": Question(prompt="", target="", choices=(cast(str, None),))},
    ],
)
def test_answers_with_a_part_missing_are_damaged_whatever_their_digest(
    tmp_path: Path, part: dict[str, Any]
) -> None:
    files = AnswerFiles(tmp_path)
    odd: Answers = {"chosen": TaskAnswers(items=(replace(CHOICE, **part),))}
    files.write(KEY, odd)
    with pytest.raises(RunError, match="are damaged"):
        files.read(KEY, digest_answers(odd))


def test_a_metric_without_a_name_is_damage_whatever_the_digest(tmp_path: Path) -> None:
    files = AnswerFiles(tmp_path)
    odd: Answers = {"chosen": TaskAnswers(items=(CHOICE,), lower_is_better=cast(Any, [["acc"]]))}
    files.write(KEY, odd)
    with pytest.raises(RunError, match="are damaged"):
        files.read(KEY, digest_answers(odd))


def test_a_small_file_that_becomes_large_when_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, text = AnswerFiles(tmp_path), "x" * 2**16
    odd: Answers = {
        "said": TaskAnswers(items=tuple(replace(FIRST, item=i, text=text) for i in range(200)))
    }
    files.write(KEY, odd)
    digest = digest_answers(odd)
    assert files.read(KEY, digest) == odd
    [path] = (tmp_path / "answers").iterdir()
    assert path.stat().st_size < 2**14
    monkeypatch.setattr("evomerge.study.answers.LIMIT_BYTES", 2**20)
    with pytest.raises(RunError, match="are damaged"):
        files.read(KEY, digest)


def test_results_that_are_scored_again_bring_their_answers_back(tmp_path: Path) -> None:
    with create_study(tmp_path / "run", job_of()) as study:
        record(study)
        path = study.run_dir / "answers" / f"{KEY}.parquet"
        before = path.read_bytes()
        means = study.trial(KEY).means
        path.unlink()
        study.restore_items(KEY, SCORED.tasks, means=means, answers=ANSWERS)
        assert path.read_bytes() == before
        path.unlink()
        other = {"said": ANSWERS["said"]}
        study.restore_items(KEY, SCORED.tasks, means=means, answers=other)
        assert not path.exists()


def test_a_run_keeps_texts_until_its_room_is_used_and_numbers_always(tmp_path: Path) -> None:
    long = random.Random(3).randbytes(3000).hex()
    asked = Question(prompt="?", target="!")
    given: Answers = {
        "said": TaskAnswers(
            items=(ItemAnswer(item=1, question=asked, text=long, characters=6000, tokens=9),)
        )
    }
    with create_study(tmp_path / "run", job_of()) as study:
        study.answers = AnswerFiles(study.run_dir, limit_bytes=20_000)
        for place in range(5):
            record(study, given, place)
    with read_study(tmp_path / "run") as study:
        kept = [study.answers_of(CandidateKey(0, place))["said"].items[0] for place in range(5)]
    texts = [answer.text is not None for answer in kept]
    assert texts == sorted(texts, reverse=True)
    assert 1 <= sum(texts) < 5
    assert {(answer.characters, answer.tokens) for answer in kept} == {(6000, 9)}
    files = (tmp_path / "run" / "answers").iterdir()
    assert sum(path.stat().st_size for path in files) <= 20_000 + 5 * 4000


def test_a_search_that_never_began_leaves_no_folder_of_them(tmp_path: Path) -> None:
    study = create_study(tmp_path / "run", job_of())
    (tmp_path / "run" / "answers").mkdir()
    study.discard()
    assert not (tmp_path / "run").exists()


def test_a_kill_between_the_writes_leaves_nothing_recorded_without_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with create_study(tmp_path / "run", job_of()) as study:
        for owner in (study.items, study.answers):
            with monkeypatch.context() as patch:
                patch.setattr(owner, "write", die)
                with pytest.raises(KeyboardInterrupt):
                    record(study)
            assert study.find(KEY) is None
    with resume_study(tmp_path / "run") as study:
        assert study.find(KEY) is None
        record(study)
        assert repr(study.answers_of(KEY)) == repr(ANSWERS)
