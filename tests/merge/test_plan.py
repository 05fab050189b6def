"""Recipes that cannot be executed, and how the parameters of the others are resolved."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from evomerge.errors import RecipeError
from evomerge.merge.methods.averages import COPY
from evomerge.merge.methods.registry import METHODS
from evomerge.merge.plan.pieces import Layer
from evomerge.merge.plan.plan import Member, check_recipe, plan_merge
from evomerge.sources import Stack, Structure
from tests.merge.conftest import Document, as_recipe
from tests.merge.memory_sources import document_of

LAYERS = 3
STRUCTURE = Structure(
    architecture="LlamaForCausalLM",
    stacks=(Stack("model.layers.", LAYERS),),
    shapes={
        "model.embed_tokens.weight": (8, 4),
        **{
            f"model.layers.{layer}.{part}.weight": (4, 4)
            for layer in range(LAYERS)
            for part in ("self_attn.q_proj", "mlp.up_proj")
        },
        "model.norm.weight": (4,),
    },
    dtype="float32",
    tied=True,
)


STRUCTURES = dict.fromkeys(("a", "b", "base"), STRUCTURE)


def ties(**changes: object) -> Document:
    models = [{"model": name, "parameters": {"weight": 0.5}} for name in ("a", "b")]
    return {"merge_method": "ties", "base_model": "base", "models": models, **changes}


def with_parameters(**parameters: object) -> Document:
    weighted = {"weight": 0.5, **parameters}
    return ties(models=[{"model": "a", "parameters": weighted}])


REFUSED: dict[str, tuple[Document, str]] = {
    "unknown method": (
        ties(merge_method="tiess"),
        "merge_method: tiess is not known here; did you mean ties?",
    ),
    "method nothing like ours": (
        ties(merge_method="quux"),
        f"merge_method: quux is not known here; use one of {', '.join(METHODS)}",
    ),
    "no base": (
        ties(base_model=None),
        "base_model: ties needs it; name the model the others were fine-tuned from",
    ),
    "unknown parameter": (
        with_parameters(wieght=1.0),
        "models.a.parameters.wieght: ties has no such parameter; "
        "it has weight, lambda, normalize, density, rescale",
    ),
    "unknown parameter of the recipe": (
        ties(parameters={"gamma": 0.1}),
        "parameters.gamma: ties has no such parameter; "
        "it has weight, lambda, normalize, density, rescale",
    ),
    "the recipe's parameter on a model": (
        with_parameters(**{"lambda": 1.0}),
        "models.a.parameters.lambda: belongs to the whole recipe; "
        "move it to the top-level parameters",
    ),
    "missing weight": (
        ties(models=[{"model": "a"}]),
        "models.a.parameters: weight is missing, which ties needs; add it",
    ),
    "weight missing for some tensors": (
        with_parameters(weight=[{"filter": "mlp", "value": 0.5}]),
        "models.a.parameters.weight: no filter matches model.embed_tokens.weight; "
        "end the list with a value that has no filter",
    ),
    "density above 1": (
        with_parameters(density=1.4),
        "models.a.parameters.density: 1.4 is outside [0, 1]; "
        "give the fraction of parameters to keep (mergekit reads more than 1 as 1)",
    ),
    "density below 0 in a gradient": (
        with_parameters(density=[0.5, -0.1]),
        "models.a.parameters.density: -0.1 is outside [0, 1]; "
        "give the fraction of parameters to keep (mergekit reads more than 1 as 1)",
    ),
    "density out of range under a filter": (
        with_parameters(density=[{"filter": "never", "value": [0.1, 7.0]}]),
        "models.a.parameters.density: 7 is outside [0, 1]; "
        "give the fraction of parameters to keep (mergekit reads more than 1 as 1)",
    ),
    "not a number": (
        with_parameters(density="half"),
        "models.a.parameters.density: half is not a number; "
        "give the fraction of parameters to keep (mergekit reads more than 1 as 1)",
    ),
    "not finite": (
        with_parameters(weight=float("nan")),
        "test.yaml: line 6: .nan is no finite number; write one",
    ),
    "not a switch": (
        ties(parameters={"normalize": "perhaps"}),
        "parameters.normalize: perhaps is not a switch; write true or false",
    ),
    "a switch over depth": (
        ties(parameters={"normalize": [0.0, 1.0]}),
        "parameters.normalize: takes no gradient over depth; give one value or filters",
    ),
    "not a choice": (
        ties(parameters={"rescale": "l2"}),
        "parameters.rescale: l2 is not one of l1, density, none",
    ),
    "too many models": (
        {"merge_method": "slerp", "base_model": "base", "models": ties()["models"]},
        "models: slerp takes exactly 2, the base counted, and the recipe names 3",
    ),
    "too few models": (
        {"merge_method": "slerp", "base_model": "base", "models": [{"model": "base"}]},
        "models: slerp takes exactly 2, the base counted, and the recipe names 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_recipe_that_cannot_be_executed_is_refused_in_one_line(case: str) -> None:
    document, message = REFUSED[case]
    document = {key: value for key, value in document.items() if value is not None}
    with pytest.raises(RecipeError, match=f"^{re.escape(message)}$"):
        check_recipe(as_recipe(document), STRUCTURES)


def test_the_base_takes_no_parameters_of_task_vectors_but_weighs_in_an_average() -> None:
    check_recipe(as_recipe(ties()), STRUCTURES)
    average = ties(merge_method="linear")
    with pytest.raises(RecipeError, match=r"models\.base\.parameters: weight is missing"):
        check_recipe(as_recipe(average), STRUCTURES)
    check_recipe(as_recipe({**average, "parameters": {"weight": 1.0}}), STRUCTURES)


def test_what_mergekit_writes_and_ignores_is_read() -> None:
    document = ties(merge_method="task_arithmetic", parameters={"density": 1})
    check_recipe(as_recipe(document), STRUCTURES)


@pytest.mark.parametrize("method", METHODS)
def test_how_mergekit_uses_memory_is_no_matter_of_any_method(method: str) -> None:
    document = document_of(method, base="base", experts=("a", "b", "c"))
    document["parameters"] |= {"int8_mask": True}
    check_recipe(as_recipe(document), {**STRUCTURES, "c": STRUCTURE})


def test_values_are_resolved_by_depth_filter_and_scope() -> None:
    document = ties(
        models=[
            {
                "model": "a",
                "parameters": {
                    "weight": [{"filter": "mlp", "value": [0.0, 1.0]}],
                    "density": [0.2, 0.6],
                },
            }
        ],
        parameters={"weight": 3.0, "rescale": True},
    )
    plan = plan_merge(as_recipe(document), STRUCTURES)
    for tensor in plan.tensors:
        assert tensor.members == (Member("a", tensor.name), Member("base", tensor.name))
        assert tensor.base == 1
    found = {tensor.name: dict(tensor.member_values[0]) for tensor in plan.tensors}
    assert found["model.embed_tokens.weight"] == {"weight": 3.0, "density": 0.2}
    assert found["model.layers.1.self_attn.q_proj.weight"] == {"weight": 3.0, "density": 0.4}
    assert found["model.layers.1.mlp.up_proj.weight"] == {"weight": 0.5, "density": 0.4}
    assert found["model.layers.2.mlp.up_proj.weight"] == {"weight": 1.0, "density": 0.6}
    assert found["model.norm.weight"] == {"weight": 3.0, "density": 0.2}
    recipe_values = plan.tensors[0].recipe_values
    assert recipe_values == {"lambda": 1.0, "normalize": True, "rescale": "l1"}


def llama(layers: int, *, width: int = 4, prefix: str = "model.") -> Structure:
    return Structure(
        architecture="LlamaForCausalLM",
        stacks=(Stack(f"{prefix}layers.", layers),),
        shapes={
            "lm_head.weight": (8, width),
            f"{prefix}embed_tokens.weight": (8, width),
            **{
                f"{prefix}layers.{layer}.{part}.weight": (width, width)
                for layer in range(layers)
                for part in ("self_attn.q_proj", "mlp.up_proj")
            },
            f"{prefix}norm.weight": (width,),
        },
        dtype="float32",
        tied=False,
    )


def seeing(layers: int) -> Structure:
    """A language model behind a prefix, a vision tower and what joins them."""
    language = llama(layers, prefix="model.language_model.")
    vision = {
        f"model.visual.blocks.{layer}.{part}.weight": (2, 2)
        for layer in range(2)
        for part in ("attn.qkv", "mlp.fc")
    }
    joint = {"model.visual.patch_embed.proj.weight": (2, 3), "model.visual.merger.ln.weight": (2,)}
    return Structure(
        architecture="SeeingForConditionalGeneration",
        stacks=(*language.stacks, Stack("model.visual.blocks.", 2)),
        shapes={**joint, **language.shapes, **vision},
        dtype="float32",
        tied=False,
    )


DEEP = {"a": llama(3), "b": llama(3), "deep": llama(5), "wide": llama(3, width=6)}


def source(model: str, first: int, end: int, **parameters: object) -> Document:
    return {"model": model, "layer_range": [first, end], "parameters": parameters}


def sliced(*slices: list[Document], **changes: object) -> Document:
    made = [{"sources": sources} for sources in slices]
    return {"merge_method": "linear", "slices": made, "parameters": {"weight": 0.5}, **changes}


def test_slices_number_the_layers_anew_and_each_has_models_of_its_own() -> None:
    document = sliced(
        [source("a", 0, 2, weight=[0.0, 1.0])],
        [source("deep", 4, 5, weight=[0.25, 0.75]), source("b", 1, 2)],
        [source("b", 1, 3, weight=[{"filter": "layers.2", "value": 0.125}])],
    )
    plan = plan_merge(as_recipe(document), DEEP)
    found = {
        tensor.name: (
            [(member.reference, member.tensor) for member in tensor.members],
            [values["weight"] for values in tensor.member_values],
        )
        for tensor in plan.tensors
        if "mlp" not in tensor.name
    }
    layer = "model.layers.{}.self_attn.q_proj.weight".format
    assert list(found) == [
        "model.embed_tokens.weight",
        *(layer(number) for number in range(5)),
        "lm_head.weight",
        "model.norm.weight",
    ]
    assert found["model.embed_tokens.weight"] == ([("a", "model.embed_tokens.weight")], [0.0])
    assert found[layer(0)] == ([("a", layer(0))], [0.0])
    assert found[layer(1)] == ([("a", layer(1))], [1.0])
    assert found[layer(2)] == ([("deep", layer(4)), ("b", layer(1))], [0.75, 0.5])
    assert found[layer(3)] == ([("b", layer(1))], [0.5])
    # A model's own filter reads the name that the tensor has in that model.
    assert found[layer(4)] == ([("b", layer(2))], [0.125])
    assert found["model.norm.weight"] == ([("b", "model.norm.weight")], [0.5])
    assert plan.lead == "a"
    assert plan.layers == {
        "model.layers.": (
            *(Layer("a", number) for number in (0, 1)),
            Layer("deep", 4),
            *(Layer("b", number) for number in (1, 2)),
        )
    }


def test_parameters_are_looked_up_from_the_source_outwards() -> None:
    document = sliced([source("a", 0, 1, weight=[{"filter": "mlp", "value": 1.0}])], parameters={})
    piece = document["slices"][0]
    piece["parameters"] = {"weight": [{"filter": "q_proj", "value": 2.0}]}
    del document["slices"]
    module = {"slices": [piece], "parameters": {"weight": [{"filter": "norm", "value": 3.0}]}}
    document |= {"modules": {"default": module}, "parameters": {"weight": 4.0}}
    plan = plan_merge(as_recipe(document), DEEP)
    assert {tensor.name: tensor.member_values[0]["weight"] for tensor in plan.tensors} == {
        "model.embed_tokens.weight": 4.0,
        "model.layers.0.self_attn.q_proj.weight": 2.0,
        "model.layers.0.mlp.up_proj.weight": 1.0,
        "lm_head.weight": 4.0,
        "model.norm.weight": 3.0,
    }


def test_a_slice_may_have_a_base_of_its_own() -> None:
    document = sliced(
        [source("a", 0, 1), source("b", 0, 1)],
        [source("a", 1, 2), source("b", 1, 2)],
        merge_method="slerp",
        base_model="a",
        parameters={"t": 0.25},
    )
    document["slices"][1]["base_model"] = "b"
    plan = plan_merge(as_recipe(document), DEEP)
    bases = {tensor.name: tensor.base for tensor in plan.tensors}
    assert bases["model.layers.0.mlp.up_proj.weight"] == 0
    assert bases["model.layers.1.mlp.up_proj.weight"] == 1
    assert bases["model.embed_tokens.weight"] == 0
    assert bases["model.norm.weight"] == 1


MISFITS: dict[str, tuple[Document, str]] = {
    "models of different depth": (
        {**sliced(), "slices": None, "models": [{"model": "a"}, {"model": "deep"}]},
        "models: deep has 5 layers and a 3; say with slices which layers to merge",
    ),
    "models of different width": (
        {**sliced(), "slices": None, "models": [{"model": "a"}, {"model": "wide"}]},
        "models: lm_head.weight of wide has shape [8, 6], and lm_head.weight [8, 4]; "
        "merge models that are built alike",
    ),
    "a tensor too few": (
        {**sliced(), "slices": None, "models": [{"model": "other"}, {"model": "a"}]},
        "models: a has no tensor model.layers.0.mlp.down_proj.weight, which other has; "
        "merge models that are built alike",
    ),
    "a tensor too many": (
        {**sliced(), "slices": None, "models": [{"model": "a"}, {"model": "other"}]},
        "models: other has a tensor model.layers.0.mlp.down_proj.weight, which a does not have; "
        "merge models that are built alike",
    ),
    "models of two architectures": (
        sliced([source("a", 0, 3), source("mistral", 0, 3)]),
        "models: mistral is a MistralForCausalLM and a a LlamaForCausalLM; "
        "merge models of one architecture",
    ),
    "layers that are not there": (
        sliced([source("a", 1, 4)]),
        "slices.0.sources.a.layer_range: [1, 4] is beyond the 3 layers of the model; end it at 3",
    ),
    "slices of different width": (
        sliced([source("a", 0, 3)], [source("a", 0, 2), source("wide", 0, 2)]),
        "slices.1.sources: model.layers.0.self_attn.q_proj.weight of wide has shape [6, 6], and "
        "model.layers.3.self_attn.q_proj.weight [4, 4]; merge models that are built alike",
    ),
    "a model that is not opened": (
        sliced([source("nowhere", 0, 3)]),
        "models: nowhere is not among the models opened here: a, b, deep, wide, vlm, other, "
        "mistral",
    ),
    "a base that a slice leaves out": (
        sliced([source("a", 0, 3), source("b", 0, 3)], merge_method="ties", base_model="deep"),
        "slices.0.sources: deep, the base, is not among them; ties reads its layers too, "
        "so add it with its layer_range",
    ),
    "too few in a slice": (
        sliced([source("a", 0, 3)], merge_method="slerp", base_model="a", parameters={"t": 0.5}),
        "slices.0.sources: slerp takes exactly 2, the base counted, and the slice names 1",
    ),
    "an unknown parameter of a source": (
        sliced([source("a", 0, 3, wieght=1.0)]),
        "slices.0.sources.a.parameters.wieght: linear has no such parameter; "
        "it has weight, normalize",
    ),
    "a value missing": (
        sliced([source("a", 0, 3)], parameters={}),
        "slices.0.sources.a.parameters: weight is missing, which linear needs; add it",
    ),
    "layers that are built in another way": (
        sliced([source("a", 0, 1), source("other", 0, 1)]),
        "slices.0.sources: layer 0 of other and layer 0 of a do not both have "
        "mlp.down_proj.weight; merge layers that are built alike",
    ),
    "several stacks of layers": (
        sliced([source("vlm", 0, 3)]),
        "slices: vlm has several stacks of layers (model.language_model.layers, "
        "model.visual.blocks); name one under modules",
    ),
    "slices of a module without layers": (
        {
            **sliced(),
            "slices": None,
            "modules": {"multi_modal_projector": {"slices": [{"sources": [source("vlm", 0, 1)]}]}},
        },
        "modules.multi_modal_projector.slices: this module has no numbered layers; "
        "write it with models",
    ),
    "an unknown module": (
        {**sliced(), "slices": None, "modules": {"encodre": {"models": [{"model": "vlm"}]}}},
        "modules: encodre is no module of this network; "
        "it has model.language_model, model.visual, multi_modal_projector, shared",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_slices_and_modules_that_do_not_fit_are_refused_in_one_line(case: str) -> None:
    other = llama(3)
    shapes = {**other.shapes, "model.layers.0.mlp.down_proj.weight": (4, 4)}
    opened = {
        **DEEP,
        "vlm": seeing(3),
        "other": replace(other, shapes=shapes),
        "mistral": replace(other, architecture="MistralForCausalLM"),
    }
    document, message = MISFITS[case]
    document = {key: value for key, value in document.items() if value is not None}
    with pytest.raises(RecipeError, match=f"^{re.escape(message)}$"):
        check_recipe(as_recipe(document), opened)


def test_a_vision_language_model_leads_and_keeps_what_it_alone_has() -> None:
    opened = {"base": llama(3), "expert": llama(3), "vlm": seeing(3), "vlm2": seeing(3)}
    models = [{"model": name, "parameters": {"weight": 0.5}} for name in ("expert", "vlm")]
    document: Document = {"merge_method": "ties", "base_model": "base", "models": models}
    plan = plan_merge(as_recipe(document), opened)
    assert plan.lead == "vlm"
    assert [tensor.name for tensor in plan.tensors] == list(opened["vlm"].shapes)
    for tensor in plan.tensors:
        if "visual" in tensor.name:
            assert (tensor.method, tensor.members) == (COPY, (Member("vlm", tensor.name),))
        else:
            plain = tensor.name.replace("model.language_model.", "model.")
            assert tensor.members == (
                Member("expert", plain),
                Member("vlm", tensor.name),
                Member("base", plain),
            )
            assert tensor.base == 2


def test_what_the_base_lacks_has_no_task_vectors_and_is_kept() -> None:
    opened = {"base": llama(3), "vlm": seeing(3), "vlm2": seeing(3)}
    models = [{"model": name, "parameters": {"weight": 0.5}} for name in ("vlm", "vlm2")]
    document: Document = {"merge_method": "ties", "base_model": "base", "models": models}
    plan = plan_merge(as_recipe(document), opened)
    methods = {tensor.name: tensor.method.name for tensor in plan.tensors}
    assert methods["model.visual.blocks.1.mlp.fc.weight"] == "copy"
    assert methods["lm_head.weight"] == "ties"


def test_what_some_models_lack_is_merged_of_the_others() -> None:
    opened = {"expert": llama(3), "vlm": seeing(3), "vlm2": seeing(3)}
    models = [{"model": name, "parameters": {"weight": 0.5}} for name in opened]
    plan = plan_merge(as_recipe({"merge_method": "linear", "models": models}), opened)
    members = {
        tensor.name: [member.reference for member in tensor.members] for tensor in plan.tensors
    }
    assert members["model.visual.blocks.1.mlp.fc.weight"] == ["vlm", "vlm2"]
    assert members["lm_head.weight"] == ["expert", "vlm", "vlm2"]


TIED = replace(llama(2), tied=True)
HEADLESS = replace(
    TIED, shapes={name: shape for name, shape in TIED.shapes.items() if name != "lm_head.weight"}
)


@pytest.mark.parametrize("form", ["models", "slices"])
def test_a_tied_head_that_one_model_stores_is_the_embeddings_of_the_other(form: str) -> None:
    opened = {"with": TIED, "without": HEADLESS}
    for lead, other in (("with", "without"), ("without", "with")):
        document: Document = {"merge_method": "linear", "parameters": {"weight": 0.5}}
        if form == "models":
            document["models"] = [{"model": lead}, {"model": other}]
        else:
            document["slices"] = [{"sources": [source(lead, 0, 2), source(other, 0, 2)]}]
        plan = plan_merge(as_recipe(document), opened)
        read = {tensor.name: tensor.members[1].tensor for tensor in plan.tensors}
        expected = {name: name for name in opened[lead].shapes}
        if lead == "with":
            expected["lm_head.weight"] = "model.embed_tokens.weight"
        assert read == expected


def test_an_untied_head_that_one_model_lacks_is_refused() -> None:
    opened = {"with": llama(2), "without": replace(HEADLESS, tied=False)}
    for names, said in ((("with", "without"), "has no tensor"), (("without", "with"), "has a")):
        models = [{"model": name, "parameters": {"weight": 0.5}} for name in names]
        with pytest.raises(RecipeError, match=rf"{said}.*lm_head\.weight"):
            plan_merge(as_recipe({"merge_method": "linear", "models": models}), opened)


def test_every_method_says_what_a_search_needs() -> None:
    for name, method in METHODS.items():
        assert method.name == name
        assert re.search(r"\d{4}", method.citation)
        searched = {key: spec.search for key, spec in method.parameters.items() if spec.search}
        # Nothing to search is right for a method whose models all count the same.
        assert searched or all(spec.scope == "recipe" for spec in method.parameters.values()), name
        for key, (low, high) in searched.items():
            spec = method.parameters[key]
            assert spec.kind == "number"
            assert spec.allowed[0] <= low < high <= spec.allowed[1]
