"""The use of a merge: the class that loads it, and the task that the hub lists it under.

Names in its configuration and of its files show it; nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.sources import MODULES, ask


@dataclass(frozen=True, kw_only=True)
class Use:
    """loader: the call that loads the folder. task, library: the hub's names."""

    loader: str
    task: str
    library: str = "transformers"


LANGUAGE_MODEL = Use(loader="AutoModelForCausalLM.from_pretrained", task="text-generation")

_SENTENCES = Use(
    loader="SentenceTransformer", task="sentence-similarity", library="sentence-transformers"
)
_KINDS = (
    ("CAUSAL_LM", "AutoModelForCausalLM", "text-generation"),
    ("IMAGE_TEXT_TO_TEXT", "AutoModelForImageTextToText", "image-text-to-text"),
    ("SEQ_TO_SEQ_CAUSAL_LM", "AutoModelForSeq2SeqLM", "text2text-generation"),
    ("SPEECH_SEQ_2_SEQ", "AutoModelForSpeechSeq2Seq", "automatic-speech-recognition"),
    ("SEQUENCE_CLASSIFICATION", "AutoModelForSequenceClassification", "text-classification"),
    ("TOKEN_CLASSIFICATION", "AutoModelForTokenClassification", "token-classification"),
    ("QUESTION_ANSWERING", "AutoModelForQuestionAnswering", "question-answering"),
    ("IMAGE_CLASSIFICATION", "AutoModelForImageClassification", "image-classification"),
    ("MASKED_LM", "AutoModelForMaskedLM", "fill-mask"),
    ("", "AutoModel", "feature-extraction"),
)
"""(list of transformers, its class, the hub's task); the first list with the class name counts."""


def use_of(config: Mapping[str, Any], beside: Collection[str]) -> Use:
    """The use of a model, by its configuration and the files beside its weights.

    A model that transformers does not know is taken as a language model.
    """
    if MODULES in beside:
        return _SENTENCES
    named = next(iter(config.get("architectures") or ()), "")
    question = ask("use", named)
    if question.answer is None:
        found = _listed_use(named)
        question.keep([found.loader, found.task])
        return found
    loader, task = question.answer
    return Use(loader=loader, task=task)


def use_stated(task: object) -> Use | None:
    """The use that a model card states by the hub's name of its task; None for no task of ours."""
    if task == _SENTENCES.task:
        return _SENTENCES
    for _, loader, named in _KINDS:
        if named == task:
            return Use(loader=f"{loader}.from_pretrained", task=named)
    return None


def _listed_use(named: str) -> Use:
    """The use of a class, by the lists of transformers."""
    from transformers.models.auto import modeling_auto

    for kind, loader, task in _KINDS:
        listed = getattr(modeling_auto, f"MODEL_{f'FOR_{kind}_' if kind else ''}MAPPING_NAMES")
        if any(
            named in (entry if isinstance(entry, tuple) else (entry,)) for entry in listed.values()
        ):
            return Use(loader=f"{loader}.from_pretrained", task=task)
    return LANGUAGE_MODEL
