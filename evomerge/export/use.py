"""What a merge is used by: the class that loads it, and the task that the hub lists it under.

It is told by the names in its configuration and beside its weights; nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from transformers.models.auto import modeling_auto

from evomerge.sources.companions import MODULES


@dataclass(frozen=True, kw_only=True)
class Use:
    """loader: what loads the folder. task, library: in the hub's words."""

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
"""Lists of transformers, the class of each and the hub's task; the first that has a name counts."""


def use_of(config: Mapping[str, Any], beside: Collection[str]) -> Use:
    """What a model with this configuration, and these files beside its weights, is used by.

    One that transformers does not know is taken for a language model.
    """
    if MODULES in beside:
        return _SENTENCES
    named = next(iter(config.get("architectures") or ()), "")
    for kind, loader, task in _KINDS:
        listed = getattr(modeling_auto, f"MODEL_{f'FOR_{kind}_' if kind else ''}MAPPING_NAMES")
        if any(named in (one if isinstance(one, tuple) else (one,)) for one in listed.values()):
            return Use(loader=f"{loader}.from_pretrained", task=task)
    return LANGUAGE_MODEL
