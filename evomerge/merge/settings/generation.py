"""Generation settings of a model and of a merge, as in generation_config.json.

A single model has its own settings. A merge has those of its leading model, except that its answers
end at the end tokens of all its models. A recipe records this under `evomerge.generation`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evomerge.errors import RecipeError, one_line
from evomerge.merge.plan.plan import lead_among
from evomerge.recipe import Recipe
from evomerge.sources import Source, ask, setting
from evomerge.vocabulary import stated_generation

if TYPE_CHECKING:
    from transformers import GenerationConfig

GENERATION_KEY = "generation"
"""Under `evomerge:` in a recipe: generation settings that replace those of the leading model."""

END_TOKENS = "eos_token_id"

_WITHOUT_EFFECT = frozenset(
    {
        "transformers_version",
        "_from_model_config",
        "use_cache",
        "output_attentions",
        "output_hidden_states",
        END_TOKENS,
    }
)


def lead_reference(recipe: Recipe, sources: Mapping[str, Source]) -> str:
    """The model whose configuration a merge takes; a stage by its name."""
    structures = {name: sources[name].structure for name in recipe.references}
    return lead_among(recipe.references, structures)


def changed_generation(recipe: Recipe) -> Mapping[str, Any]:
    """The generation settings that a recipe changes. Raises RecipeError."""
    changes = recipe.evomerge.get(GENERATION_KEY)
    if changes is None:
        return {}
    if not isinstance(changes, Mapping) or not all(isinstance(key, str) for key in changes):
        raise RecipeError(
            f"evomerge.{GENERATION_KEY}: expected a mapping of generation settings, such as "
            "eos_token_id; mend it, or take it out of the recipe's `evomerge:` block"
        )
    return changes


def merged_generation(changes: Mapping[str, Any], lead: Source) -> Mapping[str, Any] | None:
    """The generation_config.json of a merge; None where it has none.

    changes: to the settings of `lead`, the leading model, in the result's vocabulary.
    """
    stated = stated_generation(lead)
    if not changes:
        return stated
    if stated is None:
        stated = generation_config(None, lead.config, where=lead.reference).to_diff_dict()
        stated.pop("_from_model_config", None)
    return {**stated, **changes}


def generation_config(
    stated: Mapping[str, Any] | None, config: Mapping[str, Any], *, where: str
) -> GenerationConfig:
    """The settings that transformers would decode with.

    stated: generation_config.json, or None where config.json alone has the settings. Raises
    RecipeError for settings that transformers does not take.
    """
    from transformers import GenerationConfig

    try:
        if stated is not None:
            return GenerationConfig.from_dict(dict(stated))
        # transformers does the same for a folder without the file. The settings come from
        # config.json itself: the configuration class of the model would drop its generation
        # settings.
        return GenerationConfig.from_model_config(copy.deepcopy(dict(config)))
    except (TypeError, ValueError) as error:
        raise RecipeError(
            f"{where}: its generation settings cannot be read ({one_line(error)}); mend "
            "generation_config.json"
        ) from error


def end_tokens(source: Source) -> tuple[int, ...]:
    """The tokens that end a model's answers, by its own files alone."""
    ends = _settings(source).get(END_TOKENS)
    listed = ends if isinstance(ends, list) else [ends]
    return tuple(end for end in listed if isinstance(end, int))


def united(own: Sequence[int], others: Sequence[Sequence[int]]) -> int | list[int] | None:
    """End tokens of a merge as a file writes them, the lead's first; None if none are added."""
    ends = list(dict.fromkeys([*own, *(end for tokens in others for end in tokens)]))
    if set(ends) == set(own):
        return None
    return ends if len(ends) > 1 else ends[0]


def differing_generation(models: Mapping[str, Source]) -> dict[str, dict[str, Any]]:
    """Setting -> model -> its value, for settings that differ between models, except end tokens."""
    found = {name: _settings(source) for name, source in models.items()}
    keys = dict.fromkeys(key for settings in found.values() for key in settings)
    values = {key: {name: settings.get(key) for name, settings in found.items()} for key in keys}
    return {
        key: by_model
        for key, by_model in values.items()
        if key not in _WITHOUT_EFFECT and len({str(value) for value in by_model.values()}) > 1
    }


def _settings(source: Source) -> Mapping[str, Any]:
    """The settings a model generates with; only the written ones if transformers cannot read them.

    Merging does not generate, so a model that cannot generate is no error here.
    """
    stated = stated_generation(source)
    question = ask("generation", stated, source.config)
    if question.answer is not None:
        return dict(question.answer)
    try:
        found = generation_config(stated, source.config, where=source.reference).to_diff_dict()
    except Exception:  # for example, a configuration of several language models
        found = {END_TOKENS: setting(source.config, END_TOKENS)} if stated is None else stated
    question.keep(dict(found))
    return dict(found)
