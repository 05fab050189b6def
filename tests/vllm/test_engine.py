"""The vLLM engine: transformers' and lm-eval's numbers, whatever weights it held before."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import lm_eval
import numpy as np
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from evomerge.errors import SourceError, TaskError
from evomerge.evaluate.engines.base import Continuation, NonFiniteLogits, Prompt
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.engines.vllm.engine import VllmEngine
from evomerge.evaluate.engines.vllm.start import start_vllm
from evomerge.evaluate.suite import TaskSuite
from tests.checkpoints import WORDS, load_tensors, save_tiny_llama, word_tokenizer
from tests.evaluate.conftest import Recorder
from tests.vllm.architectures import CONFIGS, save_model
from tests.vllm.conftest import KANA, MODELS, NAMES, TASKS

ROUNDING = 5e-5
"""Of a sum of float32 log-probabilities from other kernels; 6e-6 was the most that was seen."""

BFLOAT16_ROUNDING = 0.35
"""The same where activations are rounded to bfloat16 in other places."""


def continuations(count: int, *, seed: int) -> list[Continuation]:
    rng = np.random.default_rng(seed)
    return [
        Continuation(tokens=rng.integers(4, len(WORDS), 8 + i % 15), scored=1 + i % 4)
        for i in range(count)
    ]


def prompts(count: int, *, seed: int, stop: tuple[str, ...] = ("cat", "seven")) -> list[Prompt]:
    rng = np.random.default_rng(seed)
    return [
        Prompt(tokens=rng.integers(4, len(WORDS), 6 + i), stop=stop, limit_tokens=4 + i)
        for i in range(count)
    ]


def check_alike(ours: VllmEngine, theirs: TransformersEngine, *, seed: int) -> None:
    """Both engines answer alike; requests are shorter and longer than a context of 64."""
    asked = [*continuations(24, seed=seed), *too_long(seed)]
    likely, expected = ours.loglikelihood(asked), theirs.loglikelihood(asked)
    assert [one[0] for one in likely] == pytest.approx([one[0] for one in expected], abs=ROUNDING)
    assert [one[1] for one in likely] == [one[1] for one in expected]
    wanted = prompts(12, seed=seed)
    assert ours.generate(wanted) == theirs.generate(wanted)
    assert ours.generate_counted(wanted) == theirs.generate_counted(wanted)


def too_long(seed: int) -> list[Continuation]:
    tokens = np.random.default_rng(seed).integers(4, len(WORDS), 90)
    return [Continuation(tokens=tokens, scored=scored) for scored in (1, 3)]


def items_of(suite: TaskSuite, count: int) -> dict[str, tuple[int, ...]]:
    return {task: tuple(range(count)) for task in suite.tasks}


def test_scores_equal_transformers_after_every_change_of_weights(
    suite: TaskSuite, engine: VllmEngine
) -> None:
    plain = TransformersEngine(MODELS / "base", tokenizer=suite.tokenizer, dtype="float32")
    items = items_of(suite, 60)
    means = []
    for name in (*NAMES, "base"):
        found = []
        for each in (engine, plain):
            each.load(load_tensors(MODELS / name).items())
            recorder = Recorder(each)
            found.append((suite.score(recorder, items), recorder.likely, recorder.said))
        (scores, likely, said), (expected, other_likely, other_said) = found
        assert [one[0] for one in likely] == pytest.approx(
            [one[0] for one in other_likely], abs=ROUNDING
        )
        assert [one[1] for one in likely] == [one[1] for one in other_likely]
        assert said == other_said
        assert {task: of.metrics for task, of in scores.items()} == {
            task: of.metrics for task, of in expected.items()
        }
        means.append(tuple(scores[task].mean(metric) for task, metric in METRICS))
    # Otherwise stale weights would go unnoticed.
    assert len(set(means)) == len(NAMES)
    assert means[0] == means[-1]


METRICS = tuple(zip(TASKS, ("exact_match", "acc", "exact_match"), strict=True))


def test_scores_equal_stock_lm_eval(suite: TaskSuite, engine: VllmEngine) -> None:
    folder = MODELS / "comparison"
    engine.load(load_tensors(folder).items())
    results = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=1),
        tasks=list(TASKS),
        limit=40,
        task_manager=TaskManager(
            include_defaults=False, include_path=str(KANA.parents[1] / "evals" / "kana")
        ),
        bootstrap_iters=0,
    )
    assert results is not None
    recorder = Recorder(engine)
    scores = suite.score(recorder, items_of(suite, 40))
    likely, said = iter(recorder.likely), iter(recorder.said)
    for task, metric in METRICS:
        rows = sorted(results["samples"][task], key=lambda row: row["doc_id"])
        assert scores[task].metrics[metric] == tuple(row[metric] for row in rows)
        for row in rows:
            for (response,) in row["resps"]:
                if isinstance(response, str):
                    assert next(said) == response
                else:
                    ours = next(likely)
                    assert ours[0] == pytest.approx(response[0], abs=ROUNDING)
                    assert ours[1] == response[1]
    assert next(likely, None) is None
    assert next(said, None) is None


def test_answers_repeat_to_the_last_bit_whatever_was_asked_or_held_before(
    suite: TaskSuite, engine: VllmEngine
) -> None:
    items = items_of(suite, 20)
    first = Recorder(engine)
    engine.load(load_tensors(MODELS / "base").items())
    suite.score(first, items)
    engine.load(load_tensors(MODELS / "counting").items())
    suite.score(Recorder(engine), items)
    engine.load(load_tensors(MODELS / "base").items())
    engine.generate(
        [Prompt(tokens=np.arange(3, 20, dtype=np.int64), stop=(), limit_tokens=3) for _ in range(5)]
    )
    again = Recorder(engine)
    suite.score(again, items)
    assert again.likely == first.likely
    assert again.said == first.said


def test_beginnings_that_other_weights_have_read_are_read_anew(tmp_path: Path) -> None:
    """Texts are longer than the 128 tokens that vLLM keeps at once on a CPU."""
    folders = [save_tiny_llama(tmp_path / str(n), seed=n, hidden=128) for n in range(2)]
    tokens = np.random.default_rng(0).integers(4, len(WORDS), 200)
    asked = [Continuation(tokens=tokens, scored=1)]
    engines = [
        VllmEngine(folders[0], tokenizer=word_tokenizer(), dtype="float32", longest_tokens=210),
        TransformersEngine(folders[0], tokenizer=word_tokenizer(), dtype="float32"),
    ]
    for folder in (*folders, folders[0]):
        for engine in engines:
            engine.load(load_tensors(folder).items())
        ours, theirs = (engine.loglikelihood(asked)[0][0] for engine in engines)
        assert ours == pytest.approx(theirs, abs=ROUNDING)
        assert engines[0].loglikelihood(asked)[0][0] == ours, "to the last bit"


def test_bfloat16_is_scored_as_closely_as_its_rounding_allows(suite: TaskSuite) -> None:
    engines = [
        VllmEngine(
            MODELS / "base",
            tokenizer=suite.tokenizer,
            dtype="bfloat16",
            longest_tokens=suite.longest_tokens,
        ),
        TransformersEngine(MODELS / "base", tokenizer=suite.tokenizer, dtype="bfloat16"),
    ]
    items = items_of(suite, 60)
    for name in ("arithmetic", "counting"):
        recorders = [Recorder(engine) for engine in engines]
        for engine, recorder in zip(engines, recorders, strict=True):
            engine.load(load_tensors(MODELS / name).items())
            suite.score(recorder, items)
        ours, theirs = recorders
        assert [one[0] for one in ours.likely] == pytest.approx(
            [one[0] for one in theirs.likely], abs=BFLOAT16_ROUNDING
        )
        same = [one == other for one, other in zip(ours.said, theirs.said, strict=True)]
        assert sum(same) >= 0.95 * len(same)


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_class_that_is_served_scores_as_transformers_does(kind: str, tmp_path: Path) -> None:
    first = save_model(tmp_path / "first", kind, seed=1)
    second = save_model(tmp_path / "second", kind, seed=2)
    tokenizer = word_tokenizer()
    ours = VllmEngine(first, tokenizer=tokenizer, dtype="float32", longest_tokens=128)
    theirs = TransformersEngine(first, tokenizer=tokenizer, dtype="float32")
    for folder in (first, second, first):
        for engine in (ours, theirs):
            engine.load(load_tensors(folder).items())
        check_alike(ours, theirs, seed=3)


def test_requests_that_cannot_fit_are_refused(engine: VllmEngine) -> None:
    tokens = np.full(200, 5, dtype=np.int64)
    with pytest.raises(TaskError, match="longer than the model's context of 64"):
        engine.loglikelihood([Continuation(tokens=tokens, scored=65)])
    with pytest.raises(TaskError, match="leaves no room for a prompt"):
        engine.generate([Prompt(tokens=tokens, stop=(), limit_tokens=64)])


def changed(name: str, tensor: torch.Tensor | None) -> list[tuple[str, torch.Tensor]]:
    """The base's tensors with one of them another, or left out."""
    tensors: dict[str, torch.Tensor | None] = {**load_tensors(MODELS / "base"), name: tensor}
    return [(name, tensor) for name, tensor in tensors.items() if tensor is not None]


GAIN = "model.layers.2.input_layernorm.weight"


def test_weights_that_are_not_finite_fail_instead_of_scoring(engine: VllmEngine) -> None:
    engine.load(changed(GAIN, torch.full((128,), float("nan"))))
    tokens = np.arange(3, 13, dtype=np.int64)
    with pytest.raises(NonFiniteLogits):
        engine.loglikelihood([Continuation(tokens=tokens, scored=1)])
    with pytest.raises(NonFiniteLogits):
        engine.loglikelihood([Continuation(tokens=tokens, scored=4)])
    with pytest.raises(NonFiniteLogits):
        engine.generate([Prompt(tokens=tokens, stop=(), limit_tokens=3) for _ in range(3)])
    check_whole(engine)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (changed(GAIN, None), f"{GAIN}: no tensor was given"),
        (changed(GAIN, torch.ones(64)), f"{GAIN}: shape .* does not fit"),
        (changed("model.layers.9.up.weight", torch.ones(4)), "layers.9.up.weight: the live model"),
    ],
    ids=["missing", "shape", "unknown"],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    engine: VllmEngine, stream: Sequence[tuple[str, torch.Tensor]], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        engine.load(stream)
    check_whole(engine)


def test_a_merge_that_breaks_off_leaves_an_engine_that_goes_on(engine: VllmEngine) -> None:
    def breaking() -> object:
        yield from list(load_tensors(MODELS / "counting").items())[:20]
        raise ZeroDivisionError("in the merge")

    with pytest.raises(ZeroDivisionError):
        engine.load(breaking())  # type: ignore[arg-type]
    check_whole(engine)


def check_whole(engine: VllmEngine) -> None:
    """New weights are scored as if nothing had happened."""
    plain = TransformersEngine(MODELS / "base", tokenizer=word_tokenizer(), dtype="float32")
    tokens = np.arange(3, 23, dtype=np.int64)
    asked = [Continuation(tokens=tokens, scored=scored) for scored in (1, 5)]
    for each in (engine, plain):
        each.load(load_tensors(MODELS / "arithmetic").items())
    values = [answer[0] for answer in engine.loglikelihood(asked)]
    expected = [answer[0] for answer in plain.loglikelihood(asked)]
    assert values == pytest.approx(expected, abs=ROUNDING)


def test_nothing_is_written_to_the_terminal(
    suite: TaskSuite, capfd: pytest.CaptureFixture[str]
) -> None:
    quiet = VllmEngine(
        MODELS / "base", tokenizer=suite.tokenizer, dtype="float32", longest_tokens=64
    )
    quiet.load(load_tensors(MODELS / "base").items())
    suite.score(quiet, items_of(suite, 2))
    assert capfd.readouterr() == ("", "")


def test_starting_and_scoring_leave_the_global_generators_alone(suite: TaskSuite) -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(7)
    np.random.seed(7)
    threads = torch.set_num_threads
    VllmEngine(MODELS / "base", tokenizer=suite.tokenizer, dtype="float32", longest_tokens=64)
    assert (torch.rand(1), np.random.rand()) == expected
    assert torch.set_num_threads is threads


def test_an_engine_that_is_dropped_gives_its_memory_back(suite: TaskSuite) -> None:
    dropped = VllmEngine(
        MODELS / "base", tokenizer=suite.tokenizer, dtype="float32", longest_tokens=64
    )
    dropped.load(load_tensors(MODELS / "base").items())
    suite.score(dropped, items_of(suite, 2))
    [layers] = dropped._live.apply_model(
        lambda model: [
            weakref.ref(layer)
            for layer in model.modules()
            if hasattr(layer, "kv_cache") or list(layer.parameters(recurse=False))
        ]
    )
    assert len(layers) > 6
    assert all(layer() is not None for layer in layers)
    del dropped
    gc.collect()
    assert not any(layer() is not None for layer in layers)
    # The first one of a process too, which imports vLLM.
    frames = [found for found in gc.get_objects() if type(found) is FrameType]
    assert start_vllm.__code__ not in [frame.f_code for frame in frames]
