"""What mergekit reads from our recipes, by its own code."""

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from mergekit.common import ModelReference
from mergekit.config import ConfigReader, MergeConfiguration, evaluate_setting
from mergekit.merge_methods import get as mergekit_method
from mergekit.parameter_resolver import resolve_parameters

from evomerge.recipe import read_recipe
from tests.space.building import METHODS, build, depth_of, spaces


@settings(max_examples=60, deadline=None)
@given(spaces())
def test_mergekit_reads_the_same_values_from_the_yaml(case):
    structure, space, genome, grains = case
    recipe = space.decode(genome)
    theirs = MergeConfiguration.model_validate(yaml.safe_load(recipe.to_yaml()))
    assert read_recipe(recipe.to_yaml(), where="r") == recipe
    for parameter in grains:
        for model in theirs.models:
            written = (model.parameters or {}).get(
                parameter, (theirs.parameters or {}).get(parameter)
            )
            for tensor in structure.shapes:
                depth = depth_of(structure, tensor)
                ours = recipe.setting_of(
                    parameter, model=str(model.model), tensor_name=tensor, depth=depth
                )
                assert evaluate_setting(tensor, written, depth, validate=float) == ours


@pytest.mark.parametrize("method", sorted(METHODS))
def test_mergekit_resolves_every_parameter_of_a_decoded_recipe(method):
    document = {
        "method": method,
        "layers": "each",
        "components": ["attention", "mlp", "rest"],
        "parameters": {name: {"low": 0.2, "high": 0.9} for name in METHODS[method]},
    }
    space = build(document)
    recipe = space.decode(np.linspace(0.0, 1.0, len(space.genes)))
    config = MergeConfiguration.model_validate(yaml.safe_load(recipe.to_yaml()))
    theirs = mergekit_method(method)
    references = [ModelReference.parse(entry.model) for entry in recipe.models]
    base = config.base_model
    inputs = [*references, *([base] if base and base not in references else [])]
    theirs.validate_inputs(inputs, base)
    by_model = {entry.model: entry.parameters for entry in config.models}
    reader = ConfigReader(config=config, t=0.0)
    tensor = "model.layers.2.mlp.down_proj.weight"
    shared, own = resolve_parameters(
        theirs.spec,
        tensor_name=tensor,
        inputs=dict.fromkeys(inputs, tensor),
        sources=lambda model: [by_model.get(model), *reader.parameter_sources(model)],
        base_model=base,
        t=2 / 3,
    )
    for name in METHODS[method]:
        for model, values in own.items():
            if name in values and model in by_model:
                ours = recipe.setting_of(name, model=str(model), tensor_name=tensor, depth=2 / 3)
                assert values[name] == ours
        if name in shared:
            assert shared[name] == recipe.setting_of(
                name, model=None, tensor_name=tensor, depth=2 / 3
            )
