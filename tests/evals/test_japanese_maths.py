"""Japanese maths: an answer counts when its last number is right and it is said in Japanese.

Hand-written problems stand for MGSM's, which are not shipped. Where EVOMERGE_DATA names a folder
with `mgsm/mgsm_ja.tsv`, answers written by hand to MGSM's own problems are scored as well.
"""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from pathlib import Path

import pytest

from evomerge.conditions import read_last_number
from evomerge.conditions.language import Language
from evomerge.errors import TaskError
from evomerge.evaluate import public_data
from evomerge.evaluate.public_data import FOLDER_VARIABLE
from evomerge.evaluate.suite import TaskSuite
from tests.checkpoints import word_tokenizer
from tests.evals.scripted import score_by_both

REAL = Path(os.environ.get(FOLDER_VARIABLE, "."), "mgsm")

PROBLEMS = (
    (
        "卵が16個あり、3個を食べ、4個を使い、残りを1個2ドルで売ります。売り上げは何ドルですか？",
        "18",
    ),
    ("家を13万ドルで買って20万ドルで売りました。利益は何ドルですか？", "70,000"),
    ("60メートルを1日に3回、週に3日走ります。1週間で何メートル走りますか？", "540"),
)

# Problem, answer, and whether it has the right number (separated, published) and is Japanese.
ANSWERS = (
    (0, "残りは16-3-4=9個です。9×2=18なので、答えは18ドルです。", 1, 1, 1),
    (0, "She has 16 - 3 - 4 = 9 eggs left and makes 9 * 2 = 18 dollars.", 1, 1, 0),
    (0, "残りは9個なので、答えは9ドルです。", 0, 0, 1),
    (0, "答えは18ドルです。なお、卵は毎日16個生まれます。", 0, 0, 1),
    (0, "９×２＝１８なので、答えは１８ドルです。", 1, 1, 1),
    (1, "売値から買値を引くので、利益は70,000ドルです。", 1, 0, 1),
    (1, "利益は７０，０００ドルになります。", 1, 0, 1),
    (1, r"したがって利益は $\boxed{70{,}000}$ ドルです。", 1, 0, 1),
    (1, "したがって、利益は七万ドルです。", 0, 0, 1),
    (1, "したがって、利益は7万ドルです。", 0, 0, 1),
    (1, "利益は70000ドルです。", 1, 1, 1),
    (2, r"\[ 60 \times 3 \times 3 = 540 \] よって、答えは $\boxed{540}$ メートルです。", 1, 1, 1),
    (2, "60 * 3 * 3 = 540", 1, 1, 0),
    (2, "因此，一周总共跑了540米。", 1, 1, 0),
    (2, "Each day is 60 * 3 = 180 meters and he runs on three days.\n答えは540です。", 1, 1, 0),
    (2, "1日に180メートル走り、それを3日続けます。合計は540.0メートルです。", 1, 1, 1),
    (2, "わかりません。", 0, 0, 1),
    (2, "", 0, 0, 0),
)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A problem for each answer in MGSM's own file format, named as the user would name it."""
    (tmp_path / "mgsm").mkdir()
    lines = ["\t".join(PROBLEMS[problem]) for problem, *_ in ANSWERS]
    path = tmp_path / "mgsm/mgsm_ja.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return path


def test_an_answer_counts_when_its_last_number_is_right_and_it_is_japanese(written: Path) -> None:
    answers = {item: answer for item, (_, answer, *_) in enumerate(ANSWERS)}
    stock, ours = score_by_both("japanese_maths", answers)
    assert ours == stock
    right = [separated for _, _, separated, _, _ in ANSWERS]
    japanese = [said for *_, said in ANSWERS]
    assert ours["right_number"] == tuple(right)
    assert ours["language"] == tuple(japanese)
    assert ours["right_number_kept"] == tuple(
        number * said for number, said in zip(right, japanese, strict=True)
    )


def test_the_published_extraction_reads_no_separators(written: Path) -> None:
    answers = {item: answer for item, (_, answer, *_) in enumerate(ANSWERS)}
    stock, ours = score_by_both("japanese_maths_published", answers)
    assert ours == stock
    assert ours["right_number"] == tuple(published for *_, published, _ in ANSWERS)


def test_the_published_extraction_is_that_of_the_papers_code() -> None:
    """`extract_answer_number` of evomerge/eval/ja_mgsm.py, as its repository has it."""

    def extract(completion: str) -> float | None:
        matches = re.findall(r"\d*\.?\d+", completion)
        return float(matches[-1].replace(",", "")) if matches else None

    for _, answer, *_ in ANSWERS:
        assert read_last_number(answer, "published") == extract(answer)


def test_the_prompt_is_that_of_the_papers_code(written: Path) -> None:
    from evomerge.evaluate.catalogue import TaskCatalogue

    task = TaskCatalogue([]).find("japanese_maths").task
    document = next(iter(task.test_docs()))
    assert task.fewshot_context(document, num_fewshot=0) == (
        "以下に、あるタスクを説明する指示があります。リクエストを適切に完了するための回答を日本語で"
        f"記述してください。一歩一歩考えましょう。\n\n### 指示:\n{PROBLEMS[0][0]}\n\n### 応答:"
    )


def test_without_the_file_and_the_hub_the_file_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(public_data, "load_dataset", unreachable)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(TaskError, match=r"juletxara/mgsm: .*no route.*has no mgsm/mgsm_ja\.tsv"):
        TaskSuite.load(["japanese_maths"], tokenizer=word_tokenizer())


def test_the_hubs_rows_make_the_same_items_as_the_file(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise an item would change sides of the split with the place its data came from."""
    from_file = TaskSuite.load(["japanese_maths"], tokenizer=word_tokenizer())
    asked = []

    def hub(name: str, config: str, *, split: str) -> list[dict[str, object]]:
        asked.append((name, config, split))
        rows = [PROBLEMS[problem] for problem, *_ in ANSWERS]
        return [
            {
                "question": question,
                "answer": None,
                "answer_number": int(answer.replace(",", "")),
                "equation_solution": None,
            }
            for question, answer in rows
        ]

    monkeypatch.setattr(public_data, "load_dataset", hub)
    monkeypatch.delenv(FOLDER_VARIABLE)
    from_hub = TaskSuite.load(["japanese_maths"], tokenizer=word_tokenizer())
    assert asked == [("juletxara/mgsm", "ja", "test")]
    assert from_hub.task_files == from_file.task_files


REAL_ANSWERS = {
    0: ("毎日の残りは16-3-4=9個で、9×2=18ドルになります。", 1, 1),
    1: ("It takes 2 bolts of blue and 1 bolt of white fiber, so the answer is 3.", 1, 0),
    2: ("売値は200,000ドルなので、利益は70,000ドルです。", 1, 1),
    3: (r"\[ 60 \times 3 \times 3 = 540 \] したがって $\boxed{540}$ メートルです。", 1, 1),
    4: ("３×２０＝６０、６０－１５－２５＝２０なので、２０カップです。", 1, 1),
    5: ("答えは64ドルです。グラスは全部で16個です。", 0, 1),
    6: ("羊は全部で20+80+160=260頭います。", 1, 1),
    7: ("从头开始下载需要100分钟，因此总共需要160分钟。", 1, 0),
    8: ("引き返してから45マイル進んだので、ジョンは家から135マイル離れています。", 0, 1),
    9: ("She earns 400 dollars, and overtime of 5 hours brings 60 more.\n460です。", 1, 0),
    10: ("60+180+126=366回です。", 1, 1),
    11: ("合計は六百九十四ドルです。", 0, 1),
    12: ("12年で元が取れるので、13年目から収益が出ます。つまり13年かかります。", 1, 1),
    13: ("最初に18台持っていました。", 1, 1),
    14: ("ヒップホップダンスを学んでいるのは60%の生徒です。", 1, 1),
    15: ("5,000×0.025=125ドル、8,000×0.012=96ドルなので、最大の利益は125ドルです。", 1, 1),
    146: ("合計は500+1,500+125=2,125個です。", 1, 1),
}
"""Item of MGSM's Japanese file -> an answer, whether its number is right and it is Japanese."""


@pytest.mark.skipif(not REAL.is_dir(), reason=f"{FOLDER_VARIABLE} names no folder with mgsm/")
def test_answers_to_the_real_problems_are_scored_as_a_person_would() -> None:
    stock, ours = score_by_both(
        "japanese_maths", {item: answer for item, (answer, *_) in REAL_ANSWERS.items()}
    )
    assert ours == stock
    assert ours["right_number"] == tuple(right for _, right, _ in REAL_ANSWERS.values())
    assert ours["language"] == tuple(japanese for _, _, japanese in REAL_ANSWERS.values())


@pytest.mark.skipif(not REAL.is_dir(), reason=f"{FOLDER_VARIABLE} names no folder with mgsm/")
def test_the_language_of_every_real_problem_is_told() -> None:
    """An error rate of nil over 250 problems in each language, as it was measured."""
    wrong = defaultdict(list)
    for code in ("ja", "en"):
        with (REAL / f"mgsm_{code}.tsv").open(encoding="utf-8", newline="") as lines:
            questions = [
                row[0] for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            ]
        assert len(questions) == 250
        for question in questions:
            if not Language(language=code, throughout=True).kept(question):
                wrong[code].append(question)
            if Language(language={"ja": "en", "en": "ja"}[code]).kept(question):
                wrong[f"not {code}"].append(question)
    assert not wrong
