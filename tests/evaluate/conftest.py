"""Small models and tasks that every test of this room shares."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import lm_eval.tasks
import pytest
import torch
from lm_eval.tasks._index import Entry, TaskIndex

from evomerge.evaluate.engines.base import Continuation, Engine, LogLikelihood, Prompt
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.suite import TaskSuite
from tests.checkpoints import load_tensors, save_tiny_llama, word_tokenizer

TASKS = Path(__file__).parent / "tasks"
SCORABLE = ("toy_choice", "toy_letters", "toy_likely", "toy_said", "toy_filters", "toy_shots")


class Recorder:
    """An engine that keeps every answer it passes on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.likely: list[LogLikelihood] = []
        self.said: list[str] = []

    @property
    def forward_s(self) -> float:
        return self._engine.forward_s

    def load(self, stream: Iterable[tuple[str, torch.Tensor]]) -> None:
        self._engine.load(stream)

    def prepare(self, *, longest_tokens: int, longest_scored: int) -> None:
        self._engine.prepare(longest_tokens=longest_tokens, longest_scored=longest_scored)

    def loglikelihood(self, requests: Sequence[Continuation]) -> list[LogLikelihood]:
        self.likely = self._engine.loglikelihood(requests)
        return self.likely

    def generate(self, requests: Sequence[Prompt]) -> list[str]:
        self.said = self._engine.generate(requests)
        return self.said


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests compare floating-point numbers: the same number of threads everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _own_tasks_are_listed_once() -> Iterator[None]:
    """lm-eval reads ten thousand files of its own for its list, and no test changes them."""
    own, build = [Path(lm_eval.tasks.__file__).parent], TaskIndex.build
    listed = functools.cache(lambda: pickle.dumps(build(own)))

    def build_once(paths: Iterable[Path], **options: bool) -> dict[str, Entry]:
        folders = list(paths)
        if folders != own or options:
            return build(folders, **options)
        index: dict[str, Entry] = pickle.loads(listed())
        return index

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TaskIndex, "build", staticmethod(build_once))
        yield


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "base", seed=0)


@pytest.fixture(scope="session")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "expert", seed=1)


@pytest.fixture(scope="session")
def suite() -> TaskSuite:
    return TaskSuite.load(SCORABLE, folders=[TASKS], tokenizer=word_tokenizer())


@pytest.fixture
def engine(base: Path, expert: Path) -> TransformersEngine:
    """Built from the base's configuration, holding the expert's weights."""
    built = TransformersEngine(base, tokenizer=word_tokenizer(), dtype="float32")
    built.load(load_tensors(expert).items())
    return built
