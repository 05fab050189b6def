"""The recipe: what to merge and how, as a mergekit YAML document and as a typed value.

A recipe says everything that the merge engine needs and nothing about scores. Nothing here opens
checkpoints or knows the mathematics of the methods.

Its YAML is valid for `mergekit-yaml`, that of a merge of merges for `mergekit-multi`; our own facts
(the mask seed, hashes of the sources, the genome, the scores) are under the key `evomerge:`, which
mergekit ignores. A route with scales that it cannot say is ours alone.
"""

from evomerge.recipe.inputs import Module, RecipeModel, Slice, SliceSource, Stretch
from evomerge.recipe.reading import load_recipe, read_recipe
from evomerge.recipe.recipe import DType, Recipe
from evomerge.recipe.reference import PlainName
from evomerge.recipe.settings import (
    Condition,
    Gradient,
    Parameters,
    Scalar,
    Setting,
    Settings,
    resolve,
    resolve_in,
)
from evomerge.recipe.tokenizer import ModelToken, TokenizerSpec, TokenSpec, ZeroToken

__all__ = [
    "Condition",
    "DType",
    "Gradient",
    "ModelToken",
    "Module",
    "Parameters",
    "PlainName",
    "Recipe",
    "RecipeModel",
    "Scalar",
    "Setting",
    "Settings",
    "Slice",
    "SliceSource",
    "Stretch",
    "TokenSpec",
    "TokenizerSpec",
    "ZeroToken",
    "load_recipe",
    "read_recipe",
    "resolve",
    "resolve_in",
]
