"""The tokens that end the answers of several models, as rows of the model that they are merged to.

A row of one model may be another token's row in the result. Nothing here decides what the result
ends with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from evomerge.sources import Source
from evomerge.sources.files import read_json
from evomerge.vocabulary.tokenizers import TokenizerReader, tokenizer_folder

_TOKENIZER_CONFIG = "tokenizer_config.json"


def end_rows(
    models: Mapping[str, Source],
    ends: Callable[[Source], Sequence[int]],
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    reader: TokenizerReader,
) -> dict[str, tuple[int, ...]]:
    """Model -> the end tokens of its own files, as rows of the result; those it lacks are left out.

    models: as their own files are, the first being whose tokenizer those without one have. ends:
    what a model's configurations say. tokenizer: of the result; None where every model keeps its
    rows. Where the models' tokenizers name other ends, those count too. Raises SourceError.
    """
    first = next(iter(models.values()))
    apart = len({_named_end(source) for source in models.values()}) > 1
    after = None if tokenizer is None else tokenizer.get_vocab()
    found: dict[str, tuple[int, ...]] = {}
    for name, source in models.items():
        rows = list(ends(source))
        if apart and tokenizer_folder(source) is not None:
            own = reader.load(source).eos_token_id
            rows += [] if own is None else [own]
        if after is not None:
            known = reader.tokens(source, otherwise=first).ids
            before = {row: token for token, row in known.items()}
            rows = [after[before[row]] for row in rows if before.get(row) in after]
        found[name] = tuple(dict.fromkeys(rows))
    return found


def _named_end(source: Source) -> str | None:
    """The end token that a model's tokenizer names, without loading it."""
    folder = tokenizer_folder(source)
    file = None if folder is None else folder / _TOKENIZER_CONFIG
    if file is None or not file.is_file():
        return None
    end = read_json(file, source.reference).get("eos_token")
    return str(end.get("content")) if isinstance(end, Mapping) else end and str(end)
