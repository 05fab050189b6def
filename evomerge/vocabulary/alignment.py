"""Gives models of different vocabularies one vocabulary: its tokenizer, and the aligned models.

After this, the rows, shapes and configurations of all models agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.errors import RecipeError
from evomerge.recipe import Recipe, TokenizerSpec
from evomerge.sources import Source, correspond, lead_of, vocabulary_size
from evomerge.vocabulary.aligned_source import AlignedSource, AlignedTensor
from evomerge.vocabulary.chat_templates import chosen_template
from evomerge.vocabulary.rows import RowPlan, plan_rows
from evomerge.vocabulary.settings import TokenSettings, settings_for
from evomerge.vocabulary.tokenizers import TokenizerReader, Tokens, add_union, without_tokens_beyond

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BLOCK_KEY = "vocabulary"
"""Under `evomerge:` in a recipe: the models that give tokens to the vocabulary, the base first."""


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Models that share a vocabulary.

    sources: the aligned models, by reference. tokenizer: that of the result; None where the recipe
    sets none. tokenizer_source: the model that the tokenizer comes from. If its files differ from
    the tokenizer of the result, it is an AlignedSource that holds that tokenizer.
    """

    sources: Mapping[str, Source]
    tokenizer: PreTrainedTokenizerBase | None
    tokenizer_source: Source


def tokenizer_spec(recipe: Recipe) -> TokenizerSpec | None:
    """The tokenizer settings of a recipe, in the new form or in the old form."""
    if recipe.tokenizer is not None or recipe.tokenizer_source is None:
        return recipe.tokenizer
    return TokenizerSpec(source=recipe.tokenizer_source)


def vocabulary_models(recipe: Recipe) -> tuple[str, ...]:
    """The models that give tokens: all that the recipe merges, and those that its block lists.

    A search lists the models of its vocabulary there, because not every merge of it names every
    model. Raises RecipeError for a block that cannot be read.
    """
    listed = recipe.evomerge.get(BLOCK_KEY)
    if listed is None:
        return recipe.references
    if not isinstance(listed, list) or not all(isinstance(reference, str) for reference in listed):
        raise RecipeError(
            f"evomerge.{BLOCK_KEY}: expected a list of models, the base first; mend it, or take it "
            "out of the recipe's `evomerge:` block"
        )
    return tuple(dict.fromkeys([*listed, *recipe.references]))


def align(
    recipe: Recipe, sources: Mapping[str, Source], *, trust_remote_code: bool = False
) -> Alignment:
    """Give the models of a recipe the vocabulary that it sets.

    sources: opened models by reference: the recipe's, those of `vocabulary_models`, and the one
    that gives the tokenizer. A model with unchanged rows is returned as it is. Raises RecipeError,
    SourceError.
    """
    spec = tokenizer_spec(recipe)
    names = vocabulary_models(recipe)
    merged = {name: sources[name] for name in names}
    reader = TokenizerReader(trust_remote_code=trust_remote_code)
    named = spec is not None and spec.source not in ("base", "union")
    giver = sources[spec.source] if spec is not None and named else merged[names[0]]
    template = None
    if recipe.chat_template is not None:
        template = chosen_template(
            recipe.chat_template, lambda: map(reader.load, map(sources.__getitem__, names))
        )
    if spec is None:
        if template is None:
            return Alignment(sources=merged, tokenizer=None, tokenizer_source=giver)
        tokenizer = reader.load(giver)
        tokenizer.chat_template = template
        written = _with_tokenizer(giver, tokenizer)
        return Alignment(sources=merged, tokenizer=tokenizer, tokenizer_source=written)
    base = names[0] if BLOCK_KEY in recipe.evomerge else recipe.base_model
    return align_sources(
        spec, merged, base=base, giver=giver, reader=reader, chat_template=template
    )


def align_sources(
    spec: TokenizerSpec,
    sources: Mapping[str, Source],
    *,
    base: str | None,
    reader: TokenizerReader,
    giver: Source | None = None,
    chat_template: str | None = None,
) -> Alignment:
    """As `align`, for models without a recipe.

    sources: the models that give tokens, in order; `base` and `union` start from the first. base:
    the model that gives its row for a token that others lack. giver: the model that `spec` names,
    if it is not among the sources.
    """
    first = next(iter(sources.values()))
    if giver is None:
        giver = sources.get(spec.source, first)
    tokens = {name: reader.tokens(source, otherwise=first) for name, source in sources.items()}
    tokenizer, unchanged = _output_tokenizer(spec, giver, first, tokens, reader)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    output = _by_row(tokenizer.get_vocab())
    tensors = _aligned_tensors(spec, sources, tokens, output, base)
    rows = -(-(max(output.values()) + 1) // _multiple(spec)) * _multiple(spec)
    files_match = unchanged and chat_template is None
    lead = lead_of(list(sources.values()))
    aligned: dict[str, Source] = {}
    for name, source in sources.items():
        settings = settings_for(
            source,
            giver=giver,
            rows=rows,
            before=tokens[name].ids,
            after=output,
            leads=source is lead,
        )
        changes = tensors[name] or settings != TokenSettings()
        aligned[name] = (
            AlignedSource(source, tensors=tensors[name], settings=settings) if changes else source
        )
    return Alignment(
        sources=aligned,
        tokenizer=tokenizer,
        tokenizer_source=giver if files_match else _with_tokenizer(giver, tokenizer),
    )


def vocabularies_agree(sources: Mapping[str, Source], reader: TokenizerReader) -> bool:
    """Whether every row belongs to the same token in all models."""
    first = next(iter(sources.values()))
    tokens = [reader.tokens(source, otherwise=first) for source in sources.values()]
    return all(each.same_as(tokens[0]) for each in tokens)


def _with_tokenizer(giver: Source, tokenizer: PreTrainedTokenizerBase) -> Source:
    return AlignedSource(giver, tensors={}, settings=TokenSettings(), tokenizer=tokenizer)


def _output_tokenizer(
    spec: TokenizerSpec,
    giver: Source,
    first: Source,
    tokens: Mapping[str, Tokens],
    reader: TokenizerReader,
) -> tuple[PreTrainedTokenizerBase, bool]:
    """The tokenizer of the result, and whether it equals the giver's files."""
    tokenizer = reader.load(giver)
    before = tokenizer.get_vocab(), tokenizer.added_tokens_decoder
    if spec.source in ("base", "union"):
        rows = vocabulary_size(first.config, first.structure.shapes)
        tokenizer = without_tokens_beyond(tokenizer, rows, named=first.reference)
    if spec.source == "union":
        add_union(tokenizer, list(tokens.values()))
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([token for token in spec.tokens if token not in known])
    if (tokenizer.get_vocab(), tokenizer.added_tokens_decoder) == before:
        return tokenizer, True
    return reader.settled(tokenizer), False


def _by_row(vocabulary: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(vocabulary.items(), key=lambda pair: pair[1]))


def _multiple(spec: TokenizerSpec) -> int:
    return spec.pad_to_multiple_of or 1


def _aligned_tensors(
    spec: TokenizerSpec,
    sources: Mapping[str, Source],
    tokens: Mapping[str, Tokens],
    output: Mapping[str, int],
    base: str | None,
) -> dict[str, dict[str, AlignedTensor]]:
    """Model -> its tensors with rows that change."""
    plans: dict[tuple[str, ...], RowPlan] = {}
    aligned: dict[str, dict[str, AlignedTensor]] = {name: {} for name in sources}
    for named in tensors_by_token(sources):
        members = tuple(named)
        if members not in plans:
            plans[members] = plan_rows(
                output,
                {name: tokens[name] for name in members},
                base=base,
                stated=spec.tokens,
                multiple_of=_multiple(spec),
            )
        plan = plans[members]
        donors = {name: (sources[name], tensor) for name, tensor in named.items()}
        for name, tensor in named.items():
            if not _stays(plan, name, tokens[name].rows):
                aligned[name][tensor] = AlignedTensor(reference=name, plan=plan, donors=donors)
    return aligned


def _stays(plan: RowPlan, name: str, rows: int) -> bool:
    """Whether a model already has the rows of the result, in the same order."""
    own = plan.own[name]
    return plan.count == rows and bool((own == range(rows)).all())


def tensors_by_token(sources: Mapping[str, Source]) -> list[dict[str, str]]:
    """Every tensor with one row for each token, as model -> the tensor's name in it.

    They are found by their shape, outside the layers: matrices, and biases of heads. In every model
    that has such a tensor, it must have one row for each row of that model's vocabulary.
    """
    lead = lead_of(list(sources.values()))
    names = {name: correspond(lead.structure, source.structure) for name, source in sources.items()}
    rows = {
        name: vocabulary_size(source.config, source.structure.shapes)
        for name, source in sources.items()
    }
    found = []
    for tensor in lead.structure.outer:
        named = {name: theirs[tensor] for name, theirs in names.items() if tensor in theirs}
        if all(
            _has_rows(sources[name].structure.shapes[own], own, rows[name])
            for name, own in named.items()
        ):
            found.append(named)
    return found


def _has_rows(shape: tuple[int, ...], name: str, rows: int) -> bool:
    wanted = len(shape) == 2 or (len(shape) == 1 and name.endswith("bias"))
    return wanted and shape[0] == rows
