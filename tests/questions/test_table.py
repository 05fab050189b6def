"""Tables of questions are read as they are, or refused in one line that names the place."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evomerge.errors import TaskError
from evomerge.questions import parquet_rows, table
from evomerge.questions.parquet_process import RefusedError, read_lists
from evomerge.questions.table import Table, read_table, shown, text_of


def read(folder: Path, name: str, content: str | bytes, **options: Any) -> Table:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, **options)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("question,answer\none?,1\n", {}),
        ("question;answer\r\none?;1\r\n", {}),
        ("question\tanswer\none?\t1", {}),
        ("question|answer\n\none?|1\n\n", {}),
        ("question~answer\none?~1\n", {"delimiter": "~"}),
        ("\ufeffquestion,answer\none?,1\n", {}),
        ("question,answer\none?,1\n".encode("utf-16"), {}),
    ],
)
def test_a_csv_file_is_read_whatever_its_delimiter_ends_and_marks(
    tmp_path: Path, content: str | bytes, options: dict[str, str]
) -> None:
    found = read(tmp_path, "q.csv", content, **options)
    assert found.columns == ("question", "answer")
    assert found.rows == (("one?", "1"),)


def test_quoted_line_breaks_and_delimiters_stay_in_their_cell(tmp_path: Path) -> None:
    found = read(tmp_path, "q.csv", 'question,answer\n"a,\n""b""",c\nd,e\n')
    assert found.column("question") == ['a,\n"b"', "d"]
    assert found.places == ("line 2", "line 4")


def test_tabs_without_quoting_divide_texts_with_quotation_marks(tmp_path: Path) -> None:
    found = read(tmp_path, "q.tsv", 'q\ta\nhe said "no\tb\n"x" y\td\n')
    assert found.rows == (('he said "no', "b"), ('"x" y', "d"))


def test_a_file_without_a_header_names_its_columns_by_number(tmp_path: Path) -> None:
    found = read(tmp_path, "q.tsv", "one?\t1\ntwo?\t2\n", header=False)
    assert found.columns == ("1", "2") and found.places == ("line 1", "line 2")


def test_json_lines_and_a_json_list_give_the_same_rows(tmp_path: Path) -> None:
    rows = [{"question": "a\u2028b", "answer": 1}, {"question": "c", "note": [1]}]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    lines = read(tmp_path, "q.jsonl", text)
    assert lines.columns == ("question", "answer", "note")
    assert lines.rows == (("a\u2028b", 1, None), ("c", None, [1]))
    listed = read(tmp_path, "q.json", json.dumps(rows))
    assert listed.rows == lines.rows and listed.places == ("row 1", "row 2")


def test_parquet_keeps_types_and_takes_nan_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    columns = {"question": ["a", "b"], "answer": [18.0, float("nan")], "choices": [["x"], ["y"]]}
    pq.write_table(pa.table(columns), path)
    assert read_table(path).rows == (("a", 18.0, ["x"]), ("b", None, ["y"]))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("q.csv", "", "empty"),
        ("q.csv", " \n", "empty"),
        ("q.csv", "question,answer\n", "no rows below its header"),
        ("q.csv", "a,b,a\n1,2,3\n", "two columns are named 'a'"),
        ("q.csv", "a,b\n1,2\n1,2,3\n", "line 3: 3 cells, and the first has 2"),
        ("q.csv", 'a,b\n"1,2\n', "line 2: a quotation mark is opened and never closed"),
        ("q.csv", 'a,b\n"1"x,2\n', "line 2: text after a closing quotation mark"),
        ("q.csv", b"a,b\n\xe4,1\n", r"line 2: not utf-8 text \(byte 0xe4\).*--encoding cp1252"),
        ("q.csv", b"a,b\n1\0,2\n", "line 2: has a NUL character; give a text file"),
        ("q.csv", "a,b\n1,2\n".encode("utf-16-le"), "line 1: .*--encoding utf-16-le"),
        ("q.csv", "a,b\n1,2\n".encode("utf-16-be"), "line 1: .*--encoding utf-16-be"),
        ("q.jsonl", "{}\n", "has no columns; give questions and answers"),
        ("q.csv", "a,b\n" + "x" * 1_100_000 + ",2\n", "line 2: a cell is longer than"),
        ("q.csv", b"PK\x03\x04xx", "a spreadsheet or a zip archive; save"),
        ("q.csv", b"\x1f\x8bxx", "compressed; unpack it"),
        ("q.parquet", "a,b\n1,2\n", "not a Parquet file"),
        ("q.parquet", b"PAR1cut off", "cannot be read as Parquet"),
        ("q.jsonl", '{"a": 1}\n{oops}\n', "line 2: character 2: not JSON"),
        ("q.jsonl", "3\n", "line 1: not an object"),
        ("q.jsonl", '{"a": 1, "a": 2}\n', "line 1: has the key 'a' twice"),
        ("q.jsonl", '{"a": ' + "[" * 100_000, "line 1: nested too deep"),
        ("q.jsonl", '{"a": ' + "[" * 65 + "]" * 65 + "}", "line 1: 'a': nested too deep"),
        ("q.jsonl", '{"a": ' + '{"b": ' * 900 + "1" + "}" * 901, "'a': nested too deep"),
        ("q.jsonl", '{"a": ' + "1" * 5000 + "}", "line 1: has a number of thousands of digits"),
        ("q.jsonl", '{"a": "x\\ud800"}', "line 1: 'a': has half of a character"),
        ("q.jsonl", '{"a": "x\\u0000"}', "line 1: 'a': has a NUL"),
        ("q.json", "[1]", "row 1: not an object"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str | bytes, problem: str
) -> None:
    with pytest.raises(TaskError, match=problem) as refused:
        read(tmp_path, name, content)
    assert str(refused.value).startswith(str(tmp_path / name))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_a_named_encoding_is_used_and_an_unknown_one_refused(tmp_path: Path) -> None:
    content = "question,answer\nwo läuft es?,hier\n".encode("cp1252")
    assert read(tmp_path, "q.csv", content, encoding="cp1252").rows[0][0] == "wo läuft es?"
    with pytest.raises(TaskError, match="--encoding nonsense: no such encoding"):
        read(tmp_path, "q.csv", content, encoding="nonsense")


@pytest.mark.parametrize("delimiter", ["ab", "", '"', "\n", "\0"])
def test_a_delimiter_that_is_not_one_sign_is_refused(tmp_path: Path, delimiter: str) -> None:
    with pytest.raises(TaskError, match=r"--delimiter '.*': not one character"):
        read(tmp_path, "q.csv", "a,b\n1,2\n", delimiter=delimiter)


def test_large_files_rows_and_columns_are_refused_before_they_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "LARGEST_BYTES", 1000)
    with pytest.raises(TaskError, match="larger than"):
        read(tmp_path, "q.csv", "a,b\n" + "x" * 2000)
    monkeypatch.setattr(table, "MOST_ROWS", 3)
    with pytest.raises(TaskError, match="more than 3 rows"):
        read(tmp_path, "q.csv", "a,b\n" + "1,2\n" * 4)
    with pytest.raises(TaskError, match="more than 3 rows"):
        read(tmp_path, "q.jsonl", '{"a":1}\n' * 5)
    assert len(read(tmp_path, "q.csv", "a,b\n" + "1,2\n" * 3).rows) == 3
    monkeypatch.setattr(table, "LARGEST_BYTES", 100_000)
    with pytest.raises(TaskError, match="1,001 columns"):
        read(tmp_path, "q.csv", ",".join(map(str, range(1001))) + "\n" + "," * 1000)


def packed(**columns: Any) -> bytes:
    """A Parquet file with compressed texts and nothing that is left out where it repeats."""
    sink = io.BytesIO()
    pq.write_table(
        pa.table(columns), sink, compression="zstd", use_dictionary=False, write_statistics=False
    )
    return sink.getvalue()


def restated(data: bytes, true: int, said: int) -> bytes:
    """A Parquet file whose footer states another number, written in as many bytes."""
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    groups = max(1, -(-(true << 1).bit_length() // 7))

    def varint(value: int) -> bytes:
        zigzag = value << 1
        parts = [zigzag >> 7 * place & 127 | 128 for place in range(groups)]
        return bytes([*parts[:-1], parts[-1] & 127])

    footer = data[start:]
    assert varint(true) in footer
    return data[:start] + footer.replace(varint(true), varint(said))


def test_a_parquet_file_that_unpacks_to_too_much_is_refused_before_its_rows_are_read() -> None:
    data = packed(question=["a" * 2**21], answer=["1"])
    lists = read_lists(data, most_bytes=2**20, most_rows=9, most_columns=9)
    with pytest.raises(RefusedError, match="more than 1 MiB when unpacked"):
        next(lists)


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_small_parquet_file_that_holds_much_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dictionary: bool
) -> None:
    monkeypatch.setattr(parquet_rows, "LARGEST_BYTES", 2**20)
    path = tmp_path / "q.parquet"
    text = pa.table({"question": ["a" * 10_000] * 1000, "answer": ["1"] * 1000})
    pq.write_table(text, path, compression="zstd", use_dictionary=dictionary)
    assert path.stat().st_size < 2**18
    with pytest.raises(TaskError, match="MiB when unpacked"):
        read_table(path)


def test_a_parquet_file_that_understates_its_size_ends_at_a_limit_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_rows, "_MEMORY_BYTES", 2**25)
    honest = packed(question=["a" * 2**27])
    (size,) = {pq.ParquetFile(io.BytesIO(honest)).metadata.row_group(0).total_byte_size}
    with pytest.raises(TaskError, match=r"q\.parquet: .*(unpacked|memory)") as refused:
        read(tmp_path, "q.parquet", restated(honest, size, 100))
    assert "\n" not in str(refused.value)


def test_a_parquet_file_with_another_number_of_rows_than_it_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = packed(question=["a"] * 3000, answer=["1"] * 3000)
    with pytest.raises(TaskError, match="says that it has 8,000 rows, and has 3,000"):
        read(tmp_path, "q.parquet", restated(honest, 3000, 8000))
    monkeypatch.setattr(parquet_rows, "MOST_ROWS", 2999)
    with pytest.raises(TaskError, match="more than 2,999 rows"):
        read(tmp_path, "q.parquet", honest)


def test_a_reader_of_parquet_that_dies_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = tmp_path / "reader.py"
    reader.write_text("import os\nos.abort()")
    monkeypatch.setattr(parquet_rows, "_READER", reader)
    with pytest.raises(TaskError, match="within its limits of memory and time; write it again"):
        read(tmp_path, "q.parquet", packed(question=["a"]))


def test_bytes_of_a_parquet_file_are_no_text_and_dates_are(tmp_path: Path) -> None:
    date = datetime.date(2026, 1, 2)
    found = read(tmp_path, "q.parquet", packed(question=["ü\n"], answer=[date], more=[[date]]))
    assert found.rows == (("ü\n", "2026-01-02", ["2026-01-02"]),)
    with pytest.raises(TaskError, match="row 1: 'question': holds bytes"):
        read(tmp_path, "q.parquet", packed(question=[b"a"]))


def test_a_file_that_is_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"none\.csv: cannot be read"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(TaskError, match="is a folder"):
        read_table(tmp_path)


def test_cells_are_written_as_people_write_them() -> None:
    values = [None, float("nan"), float("inf"), True, 18.0, 0.5, 1e-7, 7, " x ", ["a"], {"k": "ü"}]
    texts = ["", "", "", "true", "18", "0.5", "0.0000001", "7", "x", '["a"]', '{"k": "ü"}']
    assert text_of("cafe\u0301") == "caf\u00e9"
    assert list(map(text_of, values)) == texts


def test_texts_of_the_file_are_shown_without_acting_on_a_terminal() -> None:
    assert shown("a\x1b[31m\nb") == r"'a\x1b[31m b'"
    assert shown("x" * 100) == f"'{'x' * 40}...'"
