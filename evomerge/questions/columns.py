"""Which column is the question, the answer, the choices, the context: by option or by its name.

A name counts in several languages, whatever its case and punctuation. Where names leave two columns
for a part, or none, the user is asked or told: nothing is guessed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evomerge.errors import TaskError
from evomerge.questions.table import Table, shown

Role = Literal["question", "answer", "context", "choices"]

Ask = Callable[[Role, Sequence[str]], str]
"""Gets a part and the columns that it may be; returns one of them."""

_MOST_NAMED = 20

_NAMES: dict[Role, tuple[str, str]] = {
    "question": (
        "question questions 質問 問題 設問 問い frage fragen pregunta domanda pergunta 问题 問題文 "
        "질문 문제 вопрос vraag pytanie soru",
        "q prompt query input instruction instructions problem questiontext text ask request stem "
        "aufgabe eingabe entrada enunciado consigne demande 指示 入力 本問 题目 입력 задача user",
    ),
    "answer": (
        "answer answers 答え 回答 解答 正解 antwort antworten réponse reponse respuesta risposta "
        "resposta 答案 정답 답 답변 ответ antwoord odpowiedź cevap",
        "a answerkey answertext label labels target targets gold goldanswer output response "
        "completion solution expected expectedanswer expectedoutput correct correctanswer "
        "correctoption rightanswer right truth groundtruth reference referenceanswer result "
        "finalanswer answernumber answerindex cop ausgabe lösung sortie solución salida "
        "出力 输出 출력 assistant",
    ),
    "context": (
        "context kontext contexte contexto contesto 文脈 背景 上下文 문맥 지문 контекст",
        "passage document documents article paragraph background evidence source support story "
        "本文 文章 資料 段落 abschnitt texte pasaje",
    ),
    "choices": (
        "choices options 選択肢 选项 選項 선택지 auswahl choix opciones opzioni opções варианты",
        "candidates endings alternatives mogelijkheden",
    ),
}
"""Role -> usual names, as _key writes them: those that say it, and those that often mean it."""

_CHOICE = re.compile(
    r"(?P<stem>choice|option|opt|op|answer|ans|ending|sol|candidate|variant|choix|opcion|opcao|"
    r"opzione|antwort|auswahl|選択肢|选项|선택지|вариант)?(?P<label>[a-z]|\d{1,2})"
)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of the parts. choices: none, one that lists them, or one for each choice."""

    question: str
    answer: str
    context: str | None = None
    choices: tuple[str, ...] = ()

    @property
    def used(self) -> tuple[str, ...]:
        """Every column that is read."""
        context = () if self.context is None else (self.context,)
        return (self.question, *context, *self.choices, self.answer)


def find_columns(
    table: Table,
    *,
    question: str | None = None,
    answer: str | None = None,
    choices: str | Sequence[str] | None = None,
    context: str | None = None,
    ask: Ask | None = None,
) -> Columns:
    """The columns of a table, as the options name them or by their names.

    choices: a column that lists them, or a column for each; "none" (as for context) means none,
    whatever the names say. ask: asks the user where names are not enough. Raises
    TaskError with the columns of the file.
    """
    named_choices = _split(choices, table)
    given = {
        "question": question,
        "answer": answer,
        "context": None if context == "none" else context,
    }
    for role, name in [*given.items(), *(("choices", name) for name in named_choices)]:
        if name is not None and name not in table.columns:
            raise TaskError(
                f"--{role} {shown(name)}: {table.path} has no such column; it has {_listed(table)}"
            )
    taken = {name for name in (*given.values(), *named_choices) if name is not None}
    found_choices = named_choices
    if choices is None:
        found_choices = _choice_columns([name for name in table.columns if name not in taken])
        if not found_choices:
            listed = _by_name("choices", table, taken)
            found_choices = (_only("choices", listed, table, ask),) if listed else ()
    taken |= set(found_choices)
    parts: dict[str, str] = {}
    for part in ("question", "answer"):
        parts[part] = given[part] or _named(part, table, taken, ask)
        taken.add(parts[part])
    found_context = given["context"]
    if context is None and (maybe := _by_name("context", table, taken)):
        found_context = _only("context", maybe, table, ask)
    columns = Columns(**parts, context=found_context, choices=found_choices)
    _refuse_shared(columns, table.path)
    return columns


def _refuse_shared(columns: Columns, path: Path) -> None:
    seen: set[str] = set()
    for name in columns.used:
        if name in seen:
            raise TaskError(
                f"{path}: the column {shown(name)} is given for two parts; name a column for each"
            )
        seen.add(name)


def _split(choices: str | Sequence[str] | None, table: Table) -> tuple[str, ...]:
    """The columns that the option names: one, a list, or names with commas between them."""
    if choices is None or choices == "none":
        return ()
    if isinstance(choices, str):
        if choices in table.columns or "," not in choices:
            return (choices,)
        return tuple(name.strip() for name in choices.split(","))
    return tuple(choices)


def _named(
    role: Literal["question", "answer"], table: Table, taken: set[str], ask: Ask | None
) -> str:
    left = [name for name in table.columns if name not in taken]
    return _only(role, _by_name(role, table, taken) or left, table, ask)


def _only(role: Role, found: Sequence[str], table: Table, ask: Ask | None) -> str:
    """The one column whose name says it; asked where none or several do. Raises TaskError."""
    named = _by_name(role, table, set(table.columns) - set(found))
    if len(found) == 1 and named == list(found):
        return named[0]
    if ask is not None and found:
        chosen = ask(role, found)
        if chosen in found:
            return chosen
    what = {"context": " (or none)", "choices": " (or none)"}.get(role, "")
    raise TaskError(
        f"{table.path}: which column is the {role}? it has {_listed(table)}; give --{role} "
        f"COLUMN{what}{_headless(table)}"
    )


def _headless(table: Table) -> str:
    """Advice for a file whose first row looks like a question, not like names of columns."""
    long = any(len(name) > 60 for name in table.columns)
    return ", and --no-header if the first line is a question already" if long else ""


def _by_name(role: Role, table: Table, taken: set[str]) -> list[str]:
    """The columns whose names mean a part; those that say it go before those that may mean it."""
    for names in _NAMES[role]:
        known = {_key(name) for name in names.split()}
        found = [name for name in table.columns if name not in taken and _key(name) in known]
        if found:
            return found
    return []


def _choice_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Columns named A, B, C or choice1, choice2, in this order; the longest such run."""
    runs: dict[str, dict[str, str]] = {}
    for name in names:
        match = _CHOICE.fullmatch(_key(name))
        if match:
            runs.setdefault(match["stem"] or "", {}).setdefault(match["label"], name)
    best: tuple[str, ...] = ()
    for run in runs.values():
        for labels in ("abcdefghijklmnopqrstuvwxyz", range(1, 100), range(100)):
            found: list[str] = []
            for label in labels:
                if str(label) not in run:
                    break
                found.append(run[str(label)])
            if len(found) > max(1, len(best)):
                best = tuple(found)
    return best


def choice_label(name: str) -> str:
    """The letter or number at the end of a column's name (`option_b` gives b), or the name."""
    match = _CHOICE.fullmatch(_key(name))
    return match["label"] if match else name


def _key(name: str) -> str:
    """A name without case, spaces and punctuation."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "".join(sign for sign in plain if sign.isalnum())


def _listed(table: Table) -> str:
    names = [shown(name) for name in table.columns[:_MOST_NAMED]]
    more = len(table.columns) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
