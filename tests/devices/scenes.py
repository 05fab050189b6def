"""What is rehearsed: the parts of a candidate's way over a device, on a family of tiny models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig

from evomerge.calibrate import Calibration, calibrate
from evomerge.evaluate.engines.base import Continuation, Prompt
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.engines.transformers.routed import RoutedEngine
from evomerge.merge.engine import MergeEngine
from evomerge.merge.methods.registry import METHODS
from evomerge.recipe import Recipe
from evomerge.route import Hop, stretches_of
from evomerge.sources import Source, open_source
from tests.checkpoints import WORDS, save_fine_tuned, save_tiny_llama, word_tokenizer
from tests.devices.rehearsal import Rehearsal
from tests.devices.tensors import Counts
from tests.merge.conftest import Document, as_recipe
from tests.merge.memory_sources import document_of

LAYERS = 2
VOCABULARY = 2100
"""So many that DARE takes sums over the embeddings from a table, as over tensors of real size."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A base and three fine-tuned models of it in bfloat16. statistics: of all of them."""

    base: Source
    experts: tuple[Source, ...]
    statistics: Path

    @property
    def sources(self) -> dict[str, Source]:
        """All of them, by reference."""
        return {source.reference: source for source in (self.base, *self.experts)}

    def document(self, method: str) -> Document:
        """A merge by a method with every parameter that is searched at work."""
        return document_of(
            method,
            base=self.base.reference,
            experts=[source.reference for source in self.experts],
            statistics=self.statistics,
        )


def make_family(folder: Path) -> Family:
    """Write and open the models."""
    base = save_tiny_llama(
        folder / "base",
        seed=0,
        layers=LAYERS,
        hidden=64,
        vocabulary=VOCABULARY,
        dtype=torch.bfloat16,
    )
    experts = [save_fine_tuned(folder / f"expert{n}", of=base, seed=n) for n in (1, 2, 3)]
    opened = [open_source(str(path), where="test") for path in (base, *experts)]
    text = folder / "text.txt"
    text.write_text(" ".join(np.random.default_rng(0).choice(WORDS[4:], size=200)))
    statistics = folder / "statistics"
    of_text = Calibration(sequences=2, tokens=12, device="cpu")
    for _ in calibrate(
        [source.reference for source in opened], text, statistics, of_text, lambda *_: None
    ):
        pass
    return Family(base=opened[0], experts=tuple(opened[1:]), statistics=statistics)


def engine_of(family: Family, device: str, **options: object) -> TransformersEngine:
    """A live model of the family; its weights are not loaded."""
    options = {"dtype": "bfloat16", "tokenizer": word_tokenizer(), **options}
    return TransformersEngine(
        family.base.folder,
        device=device,
        **options,  # type: ignore[arg-type]
    )


def changed(document: Document, number: int) -> Recipe:
    """Another candidate of the same search: its numbers differ."""
    models = [
        {
            **model,
            "parameters": {
                name: value * (1.0 - 0.01 * number)
                for name, value in model.get("parameters", {}).items()
            },
        }
        for model in document["models"]
    ]
    return as_recipe({**document, "models": models})


def merge_by(
    method: str, family: Family, rehearsal: Rehearsal, engine: TransformersEngine
) -> tuple[Counts, Counts]:
    """Counts of the first candidate's merge into the live model, and of a later one's."""
    document = family.document(method)
    merge = MergeEngine(family.sources, device="cuda")
    found = []
    for number in range(2):
        recipe = changed(document, number)
        with rehearsal.counting() as counts:
            engine.load(merge.execute(recipe, into=engine.destination))
        found.append(counts)
    return found[0], found[1]


def merged_tensors(method: str, family: Family) -> int:
    """Tensors of a merge."""
    assert method in METHODS
    return len(family.base.structure.shapes)


def tokens_of(count: int, seed: int) -> list[int]:
    """Words of the tiny tokenizer."""
    drawn = np.random.default_rng(seed).integers(4, len(WORDS), size=count)
    return [int(token) for token in drawn]


def choices(count: int, *, shared: int = 12) -> list[Continuation]:
    """Questions with four answers each; all begin with the same words."""
    beginning = tokens_of(shared, 0)
    return [
        Continuation(
            tokens=np.array(
                [*beginning, *tokens_of(4 + item % 3, 1 + item), *tokens_of(1 + choice % 3, choice)]
            ),
            scored=1 + choice % 3,
        )
        for item in range(count // 4)
        for choice in range(4)
    ]


def prompts(count: int, *, limit_tokens: int) -> list[Prompt]:
    """Prompts of different lengths, with answers of at most so many tokens, or fewer."""
    return [
        Prompt(
            tokens=np.array(tokens_of(5 + item % 4, 100 + item)),
            stop=(),
            limit_tokens=limit_tokens - item % 3,
        )
        for item in range(count)
    ]


def routes(family: Family) -> list[Recipe]:
    """Two routes that begin alike."""
    base, expert = family.base.reference, family.experts[0].reference
    common = [Hop(base, 0), Hop(expert, 1, 0.9)]
    ends = [[Hop(base, 1)], [Hop(expert, 1, 1.1), Hop(base, 1)]]
    return [Recipe(merge_method="passthrough", route=stretches_of([*common, *end])) for end in ends]


def routed_engine(family: Family, device: str) -> RoutedEngine:
    """An engine around the base."""
    return RoutedEngine(
        family.base,
        tokenizer=word_tokenizer(),
        dtype="bfloat16",
        device=device,
        prefix_bytes=2**24,
    )


Scene = Callable[[], object]


def scoring(
    family: Family, engine: TransformersEngine, *, penalty: float = 1.0
) -> Mapping[str, Scene]:
    """What is asked of a live model, by name; few requests and many in turn.

    penalty: of repetitions in answers.
    """
    generation = GenerationConfig(repetition_penalty=penalty, eos_token_id=VOCABULARY - 1)
    engine.use(tokenizer=word_tokenizer(), generation=generation, where="test")
    engine.prepare(longest_tokens=32, longest_scored=3)
    few, many = choices(16), choices(128)
    return {
        "16 choices": lambda: engine.loglikelihood(few),
        "128 choices": lambda: engine.loglikelihood(many),
        "4 answers of 8 tokens": lambda: engine.answer(prompts(4, limit_tokens=8)),
        "32 answers of 8 tokens": lambda: engine.answer(prompts(32, limit_tokens=8)),
        "32 answers of 16 tokens": lambda: engine.answer(prompts(32, limit_tokens=16)),
    }


def calibrated(
    family: Family, folder: Path, sequences: int, *, fisher: bool = True, inputs: bool = True
) -> Iterator[None]:
    """Statistics of the base, computed on the device."""
    of_text = Calibration(
        sequences=sequences, tokens=12, batch=1, device="cuda", fisher=fisher, inputs=inputs
    )
    text = family.statistics.parent / "text.txt"
    for _ in calibrate([family.base.reference], text, folder, of_text, lambda *_: None):
        yield
