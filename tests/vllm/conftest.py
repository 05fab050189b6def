"""These tests need vLLM, which has an environment of its own: `scripts/test --vllm`."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from evomerge.evaluate.engines.vllm.engine import VllmEngine
from evomerge.evaluate.suite import TaskSuite

collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["test_*.py"]

KANA = Path(__file__).parents[2] / "examples" / "kana"
MODELS = KANA / "models"
NAMES = ("base", "arithmetic", "comparison", "counting")
TASKS = ("kana_arithmetic_en", "kana_comparison_ja", "kana_counting_ja")


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Live models of a test, a gigabyte each, are in cycles: they would wait for the collector."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def suite() -> TaskSuite:
    """The tasks of the examples, multiple choice and generation."""
    return TaskSuite.load(TASKS, tokenizer=AutoTokenizer.from_pretrained(MODELS / "base"))


@pytest.fixture(scope="session")
def engine(suite: TaskSuite) -> VllmEngine:
    """A live model of the examples' structure, in float32."""
    return VllmEngine(
        MODELS / "base",
        tokenizer=suite.tokenizer,
        dtype="float32",
        longest_tokens=suite.longest_tokens,
    )
