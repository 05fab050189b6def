"""Which architectures of transformers are merged, scored, routed and exported, and how it is known.

    python benchmarks/architectures.py [--only NAME ...] [--again] [--seconds 90] [--folder FOLDER]

Every class of transformers' own list of causal language models, and others that people merge, is
made small with random weights and taken through everything that a search does with it. Each is
tried in a process of its own with a time limit. Results are kept in the folder, so that an
interrupted sweep goes on where it was; `--only` tries some (by class or type), `--again` tries them
anew. The table is docs/architectures.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.resources
import json
import multiprocessing
import re
import resource
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file
from tiny_configs import ROWS, tiny_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto import modeling_auto

from evomerge.errors import EvomergeError, JobError
from evomerge.evaluate.engines.base import Continuation, Prompt
from evomerge.evaluate.engines.live_model import check_model
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.engines.transformers.routed import RoutedEngine, check_routable
from evomerge.export.checkpoint import write_checkpoint
from evomerge.merge.engine import MergeEngine
from evomerge.recipe import Recipe, read_recipe
from evomerge.route import Hop, stretches_of
from evomerge.route.architectures import require_foldable
from evomerge.sources import (
    Source,
    UnbuildableModelError,
    meta_model,
    open_source,
    shared_structure,
)
from evomerge.space import build_space
from evomerge.vocabulary import TokenSettings
from evomerge.workers.preparation.preparation import _check_moved_layers

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"

COLUMNS = (
    "open",
    "merge",
    "space",
    "choices",
    "answers",
    "route",
    "fold",
    "restack",
    "export",
    "mergekit",
)

OTHERS: Mapping[str, tuple[str, ...]] = {
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES": (
        *("albert", "bert", "deberta-v2", "distilbert", "electra", "eurobert", "modernbert"),
        *("mpnet", "nomic_bert", "roberta", "xlm-roberta"),
    ),
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES": (
        *("bart", "marian", "mbart", "mt5", "m2m_100", "pegasus", "t5", "t5gemma", "umt5"),
    ),
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES": (
        *("aya_vision", "gemma3", "gemma4", "glm4v", "glm4v_moe", "idefics3", "internvl"),
        *("lfm2_vl", "llama4", "llava", "llava_next", "llava_onevision", "mistral3", "mllama"),
        *("paligemma", "qwen2_5_vl", "qwen2_vl", "qwen3_5", "qwen3_5_moe", "qwen3_vl"),
        *("qwen3_vl_moe", "smolvlm"),
    ),
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES": (
        *("granite_speech", "moonshine", "speech_to_text", "voxtral", "whisper"),
    ),
}
"""Lists of transformers beside that of causal language models -> the types that are tried."""

LENGTHS = (3, 9, 9, 14, 5)
"""Tokens of the texts that are scored."""

_PATIENCE = 20
"""How many times the limit of processor time a step may wait."""

_LONGEST = 400
"""The most characters of a refusal on the page."""

CLOSE = 1e-4
"""Of logits near 1, and of sums of log-probabilities."""


class NotMade(Exception):
    """No small checkpoint could be made of this architecture; the text says why."""


class Wrong(Exception):
    """Something was not as it must be."""


def main() -> None:
    """Try what has no result yet, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--seconds", type=int, default=90, help="of processor time, for each")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "architectures"))
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    results = arguments.folder / f"transformers-{transformers.__version__}.jsonl"
    known = read_results(results)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for model_type, kind in architectures():
        named = not arguments.only or {model_type, kind} & set(arguments.only)
        if not named or ((model_type, kind) in known and not arguments.again):
            continue
        row = try_alone(model_type, kind, limit_s=arguments.seconds)
        known[model_type, kind] = row
        with results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(f"{kind} ({model_type}): {shortly(row)}", flush=True)
    rows = [known[key] for key in architectures() if key in known]
    arguments.page.write_text(page(rows), encoding="utf-8")


def read_results(file: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The last row of each architecture."""
    if not file.exists():
        return {}
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {(row["type"], row["class"]): row for row in rows}


def architectures() -> Iterator[tuple[str, str]]:
    """(type, class) of all that is tried, each once."""
    seen: set[tuple[str, str]] = set()
    for mapping, types in {"MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": None, **OTHERS}.items():
        names = getattr(modeling_auto, mapping)
        for model_type in names if types is None else types:
            kinds = names.get(model_type, "")
            key = model_type, kinds if isinstance(kinds, str) else kinds[0]
            if key not in seen:
                seen.add(key)
                yield key


def try_alone(model_type: str, kind: str, *, limit_s: int) -> dict[str, str]:
    """The row of one architecture, from a process that ends with the time limit at the latest."""
    context = multiprocessing.get_context("fork")  # what is imported already is imported once
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=try_one, args=(model_type, kind, theirs, limit_s))
    child.start()
    theirs.close()
    row = {"type": model_type, "class": kind}
    stage = "made"
    try:
        while ours.poll(_PATIENCE * limit_s):
            stage, cell = ours.recv()
            if cell is not None:
                row[stage] = cell
        row[stage] = f"FAILED: nothing in {_PATIENCE * limit_s} s"
    except EOFError:
        child.join()
        if child.exitcode:
            late = -child.exitcode in (signal.SIGXCPU, signal.SIGKILL)
            ending = f"not done in {limit_s} s" if late else f"it ended with {child.exitcode}"
            row[stage] = f"FAILED: {ending}"
    finally:
        child.kill()
        child.join()
    return row


def try_one(model_type: str, kind: str, out: Connection, limit_s: int) -> None:
    """Send (column, cell) for every column; a cell of None says that the column has begun."""
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))  # a busy machine makes none late
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        try:
            out.send(("made", None))
            family = Family(Path(folder), model_type, kind)
            out.send(("made", family.made))
        except NotMade as error:
            out.send(("made", f"no: {error}"))
            return
        for column in COLUMNS:
            out.send((column, None))
            cell = cell_of(getattr(family, f"try_{column}"))
            out.send((column, cell))
            if column == "open" and not cell.startswith("yes"):
                return


def cell_of(check: Callable[[], str]) -> str:
    """A cell: what a check found, a refusal of the product, or a failure."""
    try:
        return check()
    except EvomergeError as error:
        return f"refused: {error}"
    except Wrong as error:
        return f"WRONG: {error}"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]} ({place})"


class Family:
    """A base and two experts of one architecture, and everything that is tried with them."""

    def __init__(self, folder: Path, model_type: str, kind: str) -> None:
        """Save the checkpoints. Raises NotMade."""
        self.folder = folder
        if not kind:
            raise NotMade("this version of transformers does not have it")
        self.kind = getattr(transformers, kind)
        try:
            config = tiny_config(model_type)
            model = self._build(config, kind)
        except ImportError as error:
            raise NotMade(f"a package is missing: {shortened(error)}") from error
        except Exception as error:
            raise NotMade(f"{type(error).__name__}: {shortened(error)}") from error
        size = sum(parameter.numel() for parameter in model.parameters())
        if size > 10**6:
            raise NotMade(f"{size:,} parameters")
        self.made = f"{size:,} parameters"
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
                if not parameter.isfinite().all():
                    parameter.copy_(0.05 * torch.randn(parameter.shape))
        self.base = folder / "base"
        try:
            model.save_pretrained(self.base)
        except Exception as error:
            raise NotMade(f"save_pretrained: {type(error).__name__}: {shortened(error)}") from error
        tokenizer().save_pretrained(self.base)
        kept = {name for name, _ in model.named_buffers()}  # training does not change them
        self.experts = [self._expert(seed, kept) for seed in (1, 2)]
        self.references = [str(self.base), *map(str, self.experts)]
        self.sources: dict[str, Source] = {}
        self.engine: TransformersEngine | None = None
        self.plain: PreTrainedModel | None = None

    def _build(self, config: Any, kind: str) -> PreTrainedModel:
        if self.kind.config_class is not None and not isinstance(config, self.kind.config_class):
            # The configuration of several modalities names the class of its language model.
            config = config.get_text_config(decoder=True)
        model: PreTrainedModel = self.kind._from_config(config)
        model.config.architectures = [kind]
        return model.float()

    def _expert(self, seed: int, kept: set[str]) -> Path:
        folder = self.folder / f"expert{seed}"
        shutil.copytree(self.base, folder)
        generator = torch.Generator().manual_seed(seed)
        for file in folder.glob("*.safetensors"):
            tensors = {
                name: tensor
                + 0.02 * torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
                if tensor.is_floating_point() and name not in kept
                else tensor
                for name, tensor in load_file(file).items()
            }
            save_file(tensors, file, metadata={"format": "pt"})
        return folder

    def try_open(self) -> str:
        """The structure that is found, also of a configuration with the class's own sizes."""
        self._check_usual_sizes()
        self.sources = {name: open_source(name, where="models") for name in self.references}
        structure = self.sources[self.references[0]].structure
        return f"yes: {structure.depth} layers"

    def _check_usual_sizes(self) -> None:
        """Raise Wrong if the class's defaults cannot be built here, and can in transformers."""
        try:
            config = self.kind.config_class()
            usual = json.loads(config.to_json_string(use_diff=False))
            with torch.device("meta"):
                self.kind(config)
        except Exception:  # some classes have no defaults that suit them
            return
        try:
            meta_model({**usual, "architectures": [self.kind.__name__]})
        except UnbuildableModelError as error:
            raise Wrong(f"the class's own sizes: {error}") from error

    def merge(self, document: Mapping[str, Any]) -> Recipe:
        """A document as a recipe."""
        return read_recipe(yaml.safe_dump(dict(document)), where="recipe.yaml")

    def arithmetic(self) -> Recipe:
        """The merge that is scored and exported."""
        base, *experts = self.references
        models = [
            {"model": name, "parameters": {"weight": weight}}
            for name, weight in zip(experts, (0.6, 0.3), strict=True)
        ]
        return self.merge({"merge_method": "task_arithmetic", "base_model": base, "models": models})

    def try_merge(self) -> str:
        """Task arithmetic against its formula; TIES and SLERP finite and of the right shapes."""
        base, first, second = self.references
        engine = MergeEngine(self.sources)
        tensors = [self.sources[name] for name in self.references]
        count = 0
        for name, tensor in engine.execute(self.arithmetic()):
            a, b, c = (source.tensor(name).double() for source in tensors)
            expected = a + 0.6 * (b - a) + 0.3 * (c - a) if tensor.is_floating_point() else a
            if not torch.allclose(tensor.double(), expected, atol=1e-6):
                raise Wrong(f"task_arithmetic: {name}")
            count += 1
        density = {"parameters": {"density": 0.5, "weight": 0.7}}
        documents = (
            {
                "merge_method": "ties",
                "base_model": base,
                "models": [{"model": name, **density} for name in (first, second)],
            },
            {
                "merge_method": "slerp",
                "base_model": first,
                "models": [{"model": first}, {"model": second}],
                "parameters": {"t": 0.4},
            },
        )
        for document in documents:
            for name, tensor in engine.execute(self.merge(document)):
                if tensor.shape != tensors[0].structure.shapes[name] or not tensor.isfinite().all():
                    raise Wrong(f"{document['merge_method']}: {name}")
        return f"yes: {count} tensors"

    def try_space(self) -> str:
        """The space with a weight for each component, and the components that it has."""
        base, *experts = self.references
        structure = shared_structure(list(self.sources.values()))
        build = partial(
            build_space,
            base=base,
            sources=experts,
            structure=structure,
            out_dtype="float32",
            seed=0,
        )
        try:
            space = build("per_component_task_arithmetic")
        except JobError as error:
            if "write components: all" not in str(error):
                raise
            space = build("per_layer_task_arithmetic")
        found = dict.fromkeys(gene.component for gene in space.genes)
        MergeEngine(self.sources).plan(space.decode(space.start))
        return f"yes: {', '.join(found)}"

    def _live(self) -> TransformersEngine:
        """An engine that holds the merge."""
        if self.engine is None:
            source = self.sources[self.references[0]]
            check_model(source, trust_remote_code=False, settings=TokenSettings())
            engine = TransformersEngine(
                self.base, tokenizer=tokenizer(), dtype="float32", config=source.config
            )
            merge = MergeEngine(self.sources)
            engine.load(merge.execute(self.arithmetic(), into=engine.destination))
            self.engine = engine
        return self.engine

    def _exported(self) -> PreTrainedModel:
        """The exported merge as plain transformers loads it."""
        if self.plain is None:
            self.plain = self._written(self.arithmetic(), "merged")
        return self.plain

    def _written(self, recipe: Recipe, name: str) -> PreTrainedModel:
        folder = self.folder / name
        folder.mkdir()
        write_checkpoint(recipe, self.sources, self.sources[self.references[0]], folder)
        model, found = self.kind.from_pretrained(folder, output_loading_info=True)
        for problem, keys in found.items():
            if keys:
                raise Wrong(f"{name}: {problem} {sorted(map(str, keys))[:3]}")
        loaded: PreTrainedModel = model.eval()
        return loaded

    def try_choices(self) -> str:
        """Log-likelihoods of the live merge, and those of the export by plain transformers."""
        engine, plain = self._live(), self._exported()
        requests = [
            Continuation(tokens=words(length, seed), scored=1 + seed % 2)
            for seed, length in enumerate(LENGTHS)
        ]
        for request, (value, _) in zip(requests, engine.loglikelihood(requests), strict=True):
            ids = torch.from_numpy(request.tokens)
            rows = logits_of(plain, ids[None, :-1])[-request.scored :].log_softmax(-1)
            expected = float(rows.gather(1, ids[-request.scored :, None]).sum())
            if not abs(value - expected) < CLOSE:
                raise Wrong(f"{value:.5f}, not {expected:.5f}")
        return "yes"

    def try_answers(self) -> str:
        """Greedy answers of the live merge, and those of the export by plain transformers."""
        engine, plain = self._live(), self._exported()
        requests = [
            Prompt(tokens=words(length, 50 + seed), stop=(), limit_tokens=2 + seed)
            for seed, length in enumerate(LENGTHS)
        ]
        for request, answer in zip(requests, engine.answer(requests), strict=True):
            ids = torch.from_numpy(request.tokens)[None]
            said = plain.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=request.limit_tokens,
                pad_token_id=0,
            )
            expected = said[0, ids.shape[1] :].tolist()
            if answer != expected[: len(answer)] or len(answer) < len(expected) - 1:
                raise Wrong(f"{answer}, not {expected}")
        return "yes"

    def _hops(self, scale: float = 1.0) -> tuple[Hop, ...]:
        """A route through two models, longer than one of them."""
        first, second = self.references[1:]
        depth = self.sources[first].structure.depth
        middle = (*range(depth - 1), *range(1, depth - 1))
        inner = [Hop(second if n % 2 else first, layer) for n, layer in enumerate(middle)]
        hops = [*inner, Hop(second, depth - 1), Hop(first, depth - 1)]
        return (hops[0], Hop(hops[1].model, hops[1].layer, scale), *hops[2:])

    def _route(self, scale: float = 1.0) -> Recipe:
        hops = stretches_of(self._hops(scale))
        return Recipe.model_validate({"merge_method": "passthrough", "route": hops})

    def _routable(self) -> Source:
        """The leading model of routes, after all checks before a search."""
        first = self.sources[self.references[1]]
        check_model(first, trust_remote_code=False, settings=TokenSettings())
        _check_moved_layers(first)
        check_routable(first, trust_remote_code=False, settings=TokenSettings())
        return first

    def try_route(self) -> str:
        """A route over loaded layers, and the same as a checkpoint by plain transformers."""
        first = self._routable()
        engine = RoutedEngine(first, tokenizer=tokenizer(), dtype="float32")
        engine.follow(self._route(), self.sources)
        return self._same(engine, self._written(self._route(), "routed"))

    def try_fold(self) -> str:
        """A route with a scale, folded into a plain checkpoint."""
        require_foldable(self.sources[self.references[1]].structure, "scales")
        first = self._routable()
        engine = RoutedEngine(first, tokenizer=tokenizer(), dtype="float32")
        engine.follow(self._route(0.9), self.sources)
        return self._same(engine, self._written(self._route(0.9), "folded"), close=2e-3)

    def _same(
        self, engine: TransformersEngine, plain: PreTrainedModel, close: float = CLOSE
    ) -> str:
        requests = [
            Continuation(tokens=words(length, 80 + seed), scored=1)
            for seed, length in enumerate(LENGTHS)
        ]
        for request, (value, _) in zip(requests, engine.loglikelihood(requests), strict=True):
            ids = torch.from_numpy(request.tokens)
            expected = float(logits_of(plain, ids[None, :-1])[-1].log_softmax(-1)[ids[-1]])
            if not abs(value - expected) < close:
                raise Wrong(f"{value:.5f}, not {expected:.5f}")
        return "yes"

    def try_restack(self) -> str:
        """Slices of two models, one layer deeper, exported and loaded."""
        first, second = self.references[1:]
        depth = self.sources[first].structure.depth
        slices = [
            {"sources": [{"model": first, "layer_range": [0, depth - 1]}]},
            {"sources": [{"model": second, "layer_range": [depth - 2, depth]}]},
        ]
        self._written(self.merge({"merge_method": "passthrough", "slices": slices}), "restacked")
        return f"yes: {depth + 1} layers"

    def try_export(self) -> str:
        """Plain transformers loads the export with no tensor missing or left over."""
        self._exported()
        return "yes"

    def try_mergekit(self) -> str:
        """The same merge by mergekit, where it has the architecture."""
        if self.kind.__name__ not in mergekit_architectures():
            return "n/a"
        from mergekit.config import MergeConfiguration
        from mergekit.merge import run_merge
        from mergekit.options import MergeOptions

        base, *experts = self.references
        models = [{"model": name, "parameters": {"weight": 0.4}} for name in experts]
        document = {
            "merge_method": "task_arithmetic",
            "base_model": base,
            "models": models,
            "dtype": "float32",
        }
        out = self.folder / "mergekit"
        try:
            run_merge(
                MergeConfiguration.model_validate(document),
                str(out),
                MergeOptions(quiet=True, copy_tokenizer=False, write_model_card=False),
            )
        except Exception as error:
            return f"n/a: mergekit fails ({type(error).__name__}: {shortened(error)})"
        theirs = {k: v for file in out.glob("*.safetensors") for k, v in load_file(file).items()}
        ours = dict(MergeEngine(self.sources).execute(self.merge(document)))
        lost = ours.keys() ^ theirs.keys()
        for name in ours.keys() & theirs.keys():
            if not torch.allclose(ours[name].double(), theirs[name].double(), atol=1e-6):
                raise Wrong(f"{name} differs from mergekit's")
        if lost:
            return f"n/a: mergekit leaves out {min(lost)}"
        return "yes"


def mergekit_architectures() -> frozenset[str]:
    """The classes that mergekit describes in its own files."""
    data = importlib.resources.files("mergekit") / "_data" / "architectures"
    found = set()
    for file in data.iterdir():
        if file.name.endswith(".json"):
            found.update(json.loads(file.read_text(encoding="utf-8")).get("architectures", ()))
    return frozenset(found)


def logits_of(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """(length, vocabulary) of one text, read at once."""
    with torch.no_grad():
        found: torch.Tensor = model(ids, use_cache=False).logits[0].double()
    return found


def words(count: int, seed: int) -> np.ndarray:
    """Tokens that no tiny configuration gives a meaning."""
    return np.random.default_rng(seed).integers(5, ROWS, count)


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of ROWS words."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    vocabulary |= {f"w{number}": number for number in range(4, ROWS)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=64,
    )


def shortened(error: Exception) -> str:
    """A message on one line of limited length."""
    return " ".join(str(error).split())[:200]


def shortly(row: Mapping[str, str]) -> str:
    """A row for the terminal."""
    cells = [f"{column}: {row[column]}" for column in COLUMNS if column in row]
    if not row.get("made", "").endswith("parameters"):
        return row.get("made", "nothing")
    bad = [cell for cell in cells if not cell.partition(": ")[2].startswith(("yes", "n/a"))]
    return "; ".join(bad) or "all yes"


GROUPS = {
    "Causal language models": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "Images and text": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "Speech": "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "Sequence to sequence": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "Masked language models": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
}
"""Headings of the page -> the list of transformers that it shows."""

INTRODUCTION = """# Architectures

<!-- Written by benchmarks/architectures.py. -->

Each architecture is a tiny checkpoint with random weights (two to four layers, {rows} words) and
two experts with noise, made from transformers' own class. evomerge knows none by name, except to
fold scales. All causal language models of transformers {version} are here, and others that people
merge. {date}, torch {torch}, mergekit {mergekit}, one thread of a CPU:

    python benchmarks/architectures.py

- **open**: the layers are found; transformers also builds the model at the class's own sizes;
- **merge**: task arithmetic equals its formula; TIES and SLERP are finite and of the right shapes;
- **space**: a search space is built: `parts` with a weight for attention and one for the MLP, or
  `layers`, where the names of the tensors do not tell the two;
- **choices**, **answers**: log-likelihoods and greedy answers of the live merge equal those of its
  export in plain transformers;
- **route**: a route through two models scores as the same layers in a plain checkpoint;
- **fold**: the same with a scale, folded into the weights;
- **restack**: slices of two models, one layer deeper, are exported and load whole;
- **export**: plain transformers loads the merge, no tensor missing and none left over;
- **mergekit**: the merge equals mergekit's (– where mergekit does not have the architecture, or
  does not execute the merge).

A number is that of a [refusal](#refusals): one line, exit code 2, before a candidate is scored.

"""


def page(rows: list[dict[str, str]]) -> str:
    """docs/architectures.md."""
    made = [row for row in rows if "open" in row]
    refusals: dict[str, int] = {}
    tables = []
    left = list(made)
    for title, mapping in GROUPS.items():
        kinds = getattr(modeling_auto, mapping)
        own = [row for row in left if kinds.get(row["type"]) == row["class"]]
        left = [row for row in left if row not in own]
        if own:
            tables += [f"## {title}", "", *table(own, refusals), ""]
    assert not left, left
    text = INTRODUCTION.format(
        rows=ROWS,
        version=transformers.__version__,
        date=datetime.date.today().isoformat(),
        torch=torch.__version__,
        mergekit=importlib.metadata.version("mergekit"),
    )
    parts = [*counts(rows), *tables, "## Refusals", ""]
    parts += [f"{number}. {reason}" for reason, number in refusals.items()]
    parts += ["", "## Not made", ""]
    not_made = [
        f"- `{row['class']}` ({row['type']}): {reason_of(row)}" for row in rows if row not in made
    ]
    return text + "\n".join([*parts, *(not_made or ["None."])]) + "\n"


def counts(rows: list[dict[str, str]]) -> list[str]:
    """How many architectures do all, and how many each."""
    made = [row for row in rows if "open" in row]
    refused = [{c for c in COLUMNS if not fits(row.get(c, "n/a"))} for row in made]
    whole, folding = refused.count(set()), refused.count({"fold"})
    done = {column: sum(fits_here(row, column) for row in made) for column in COLUMNS}
    each = ", ".join(f"{column} {count}" for column, count in done.items())
    return [
        f"Of {len(rows)} architectures {whole} do everything, {folding} everything but folding, "
        f"{len(made) - whole - folding} have other refusals, and {len(rows) - len(made)} could not "
        f"be made. By column: {each}.",
        "",
    ]


def fits_here(row: Mapping[str, str], column: str) -> bool:
    """Whether a cell is a yes."""
    return row.get(column, "").startswith("yes")


def fits(cell: str) -> bool:
    """Whether a cell is a yes, or does not apply."""
    return cell.startswith(("yes", "n/a"))


def table(rows: list[dict[str, str]], refusals: dict[str, int]) -> list[str]:
    """A table's lines; new refusals get the next numbers."""
    lines = [f"| architecture | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for row in sorted(rows, key=lambda row: (row["class"].lower(), row["type"])):
        cells = [cell_text(row, column, refusals) for column in COLUMNS]
        lines.append(f"| {row['class']} ({row['type']}) | {' | '.join(cells)} |")
    return lines


def cell_text(row: Mapping[str, str], column: str, refusals: dict[str, int]) -> str:
    """A cell of the table."""
    cell = row.get(column, "n/a")
    if cell.startswith("n/a"):
        return "–"
    if cell.startswith("yes"):
        return "yes" if column != "space" else "parts" if "mlp" in cell else "layers"
    reason = plainly(cell.removeprefix("refused: "), row["class"])
    number = refusals.setdefault(reason, len(refusals) + 1)
    return str(number) if cell.startswith("refused") else f"**{number}**"


def plainly(reason: str, kind: str) -> str:
    """A refusal without the names of folders, classes and layers."""
    reason = reason.replace(f"{PAGE.parents[1]}/", "")
    reason = re.sub(r"(models: )?/\S*/(base|expert\d)\b", "MODEL", reason).replace(kind, "CLASS")
    reason = re.sub(r"\b\d+\b", "N", reason)
    reason = re.sub(r"\((model|language_model|vision\w*|audio\w*)\.[\w., ]*\)", "(...)", reason)
    reason = reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}…"
    return f"`` {reason} ``"


def reason_of(row: Mapping[str, str]) -> str:
    """Why an architecture was not made."""
    return row.get("made", "").removeprefix("no: ")


if __name__ == "__main__":
    main()
