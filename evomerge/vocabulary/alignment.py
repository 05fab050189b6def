"""Models of different vocabularies made to share one: its tokenizer, and every model seen with it.

After this nothing has to know that they ever differed: rows lie by token, shapes and
configurations agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from evomerge.errors import RecipeError
from evomerge.recipe import Recipe, TokenizerSpec
from evomerge.sources import Source, correspond, lead_of, vocabulary_size
from evomerge.vocabulary.aligned_source import AlignedSource, AlignedTensor
from evomerge.vocabulary.chat_templates import chosen_template
from evomerge.vocabulary.rows import RowPlan, plan_rows
from evomerge.vocabulary.settings import TokenSettings, settings_for
from evomerge.vocabulary.tokenizers import TokenizerReader, Tokens, add_union, without_tokens_beyond

BLOCK_KEY = "vocabulary"
"""Under `evomerge:` in a recipe: the models whose tokens count, the base first."""


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Models that share a vocabulary.

    sources: by reference, as a merge is to see them. tokenizer: that of the result; None where
    nothing was asked of it. tokenizer_source: the model that the tokenizer is from; where its files
    are not the tokenizer of the result, an AlignedSource that holds it.
    """

    sources: Mapping[str, Source]
    tokenizer: PreTrainedTokenizerBase | None
    tokenizer_source: Source


def tokenizer_spec(recipe: Recipe) -> TokenizerSpec | None:
    """What a recipe asks of the tokenizer, in its new form or in its old one."""
    if recipe.tokenizer is not None or recipe.tokenizer_source is None:
        return recipe.tokenizer
    return TokenizerSpec(source=recipe.tokenizer_source)


def vocabulary_models(recipe: Recipe) -> tuple[str, ...]:
    """The models whose tokens count: all that the recipe merges, or those that its block lists.

    A search says there what its vocabulary was made of, since not every merge of it names every
    model. Raises RecipeError for a block that cannot be read.
    """
    listed = recipe.evomerge.get(BLOCK_KEY)
    if listed is None:
        return recipe.references
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise RecipeError(
            f"evomerge.{BLOCK_KEY}: expected a list of models, the base first; mend it, or take it "
            "out of the recipe's `evomerge:` block"
        )
    return tuple(dict.fromkeys([*listed, *recipe.references]))


def align(
    recipe: Recipe, sources: Mapping[str, Source], *, trust_remote_code: bool = False
) -> Alignment:
    """Give the models of a recipe the vocabulary that it asks for.

    sources: opened models by reference: the recipe's, those of `vocabulary_models`, and the one
    whose tokenizer it takes. A model whose rows stay as they are comes back as it is. Raises
    RecipeError, SourceError.
    """
    spec = tokenizer_spec(recipe)
    names = vocabulary_models(recipe)
    merged = {name: sources[name] for name in names}
    reader = TokenizerReader(trust_remote_code=trust_remote_code)
    own = spec is not None and spec.source not in ("base", "union")
    giver = sources[spec.source] if spec is not None and own else merged[names[0]]
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
    """The same for models without a recipe.

    sources: the models whose tokens count, in order; the first is what `base` and `union` start
    from. base: the model whose row is taken for a token that others lack. giver: the model that
    `spec` names, where it is not among them.
    """
    first = next(iter(sources.values()))
    if giver is None:
        giver = sources.get(spec.source, first)
    tokens = {name: reader.tokens(source, otherwise=first) for name, source in sources.items()}
    tokenizer, as_it_was = _output_tokenizer(spec, giver, first, tokens, reader)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    output = _by_row(tokenizer.get_vocab())
    tensors = _aligned_tensors(spec, sources, tokens, output, base)
    rows = -(-(max(output.values()) + 1) // _multiple(spec)) * _multiple(spec)
    files_are_it = as_it_was and chat_template is None
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
        tokenizer_source=giver if files_are_it else _with_tokenizer(giver, tokenizer),
    )


def vocabularies_agree(sources: Mapping[str, Source], reader: TokenizerReader) -> bool:
    """Whether every row is the same token's in all the models."""
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
    """The tokenizer of the result, and whether the giver's files are it."""
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
    """Model -> its tensors whose rows change."""
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
    """Whether a model has the rows of the result already, each where it is."""
    own = plan.own[name]
    return plan.count == rows and bool((own == range(rows)).all())


def tensors_by_token(sources: Mapping[str, Source]) -> list[dict[str, str]]:
    """Every tensor that has a row for each token, as model -> its name there.

    They are found by their shape, outside the layers: matrices, and biases of heads. A tensor
    counts only if every model that has it has as many rows as its own vocabulary.
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
