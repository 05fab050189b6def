import pytest
import yaml

from evomerge.merge.plan.plan import check_recipe
from evomerge.search.baselines import (
    BASE,
    DARE_TIES,
    SLERP,
    TASK_ARITHMETIC,
    TIES,
    UNIFORM_SOUP,
    Baselines,
    parent_labels,
)
from tests.space.structures import llama

MODELS = ("m/base", "m/a", "m/b", "m/c", "m/d")


def of(count: int, **more) -> Baselines:
    options = {
        "base": MODELS[0],
        "sources": MODELS[1 : count + 1],
        "out_dtype": "bfloat16",
        "seed": 3,
    }
    return Baselines(**{**options, **more})


def play(baselines: Baselines, score) -> tuple[dict, list[tuple[str, ...]]]:
    """Score every stage to the end: all scores, and the labels of each stage."""
    scores, stages = {}, []
    while stage := baselines.stage(scores):
        stages.append(tuple(baseline.label for baseline in stage))
        scores |= {baseline.label: score(baseline) for baseline in stage}
        assert len(stages) < 20
    return scores, stages


def by_label(values: dict):
    return lambda baseline: values.get(baseline.label, 0.1)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_first_stage_is_all_that_needs_no_scores(count):
    labels = [baseline.label for baseline in of(count).stage({})]
    parents = ["a", "b", "c", "d"][:count]
    fixed = [UNIFORM_SOUP, TASK_ARITHMETIC, TIES, DARE_TIES]
    assert labels == [BASE, *parents, *fixed, *([SLERP] if count <= 2 else [])]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_baseline_can_be_executed_and_says_its_dtype(count):
    baselines = of(count)
    scores = {}
    while stage := baselines.stage(scores):
        for place, baseline in enumerate(stage):
            recipe = baseline.recipe
            check_recipe(recipe, dict.fromkeys(recipe.references, llama()))
            assert baseline.recipe.out_dtype == "bfloat16"
            assert (baseline.recipe.evomerge == {"seed": 3}) == (baseline.label == DARE_TIES)
            scores[baseline.label] = 0.5 + 0.01 * place
    assert set(scores) >= {BASE, UNIFORM_SOUP, TASK_ARITHMETIC, TIES, DARE_TIES, SLERP}


def test_the_recipes_are_the_published_defaults():
    recipes = {baseline.label: baseline.recipe for baseline in of(2).stage({})}
    documents = {label: yaml.safe_load(recipe.to_yaml()) for label, recipe in recipes.items()}

    def own(label):
        return [entry.get("parameters") for entry in documents[label]["models"]]

    assert recipes[BASE].references == ("m/base",)
    assert recipes["b"].references == ("m/b",)
    assert own("b") == [{"weight": 1.0}]
    assert own(UNIFORM_SOUP) == [{"weight": 1.0}] * 2
    assert recipes[UNIFORM_SOUP].references == ("m/a", "m/b")
    assert own(TASK_ARITHMETIC) == [{"weight": 0.4}] * 2
    assert own(TIES) == [{"weight": 1.0, "density": 0.2}] * 2
    assert documents[TIES]["parameters"] == {"normalize": True, "lambda": 1.0}
    assert own(DARE_TIES) == [{"weight": 0.5, "density": 0.5}] * 2
    assert documents[SLERP]["base_model"] == "m/a"
    assert documents[SLERP]["parameters"] == {"t": 0.5}


def test_one_source_is_averaged_with_the_base():
    recipes = {baseline.label: baseline.recipe for baseline in of(1).stage({})}
    assert recipes[UNIFORM_SOUP].references == ("m/base", "m/a")
    assert recipes[SLERP].references == ("m/base", "m/a")
    assert play(of(1), by_label({}))[1].__len__() == 1


def test_slerp_takes_the_two_best_of_many():
    scores, stages = play(of(4), by_label({"a": 0.2, "b": 0.5, "c": 0.4, "d": 0.1}))
    second = of(4).stage({label: scores[label] for label in stages[0]})
    slerp = next(baseline for baseline in second if baseline.label == SLERP)
    assert (slerp.recipe.base_model, slerp.recipe.references) == ("m/b", ("m/b", "m/c"))


def test_the_greedy_soup_adds_what_does_not_hurt():
    values = {"a": 0.2, "b": 0.5, "c": 0.4, "d": 0.3}
    values |= {"soup of b + c": 0.45, "soup of b + d": 0.5, "soup of a + b + d": 0.6}
    scores, stages = play(of(4), by_label(values))
    # c is tried and hurts; d scores the same and joins; a is better and joins.
    assert [stage[-1] for stage in stages[1:]] == [
        "soup of b + c",
        "soup of b + d",
        "soup of a + b + d",
    ]
    assert of(4).greedy_soup(scores) == "soup of a + b + d"


def test_a_greedy_soup_of_all_is_the_uniform_soup_and_is_not_scored_twice():
    values = {"a": 0.2, "b": 0.5, "c": 0.4, "soup of b + c": 0.6, UNIFORM_SOUP: 0.7}
    scores, stages = play(of(3), by_label(values))
    assert stages[1:] == [(SLERP, "soup of b + c")]
    assert of(3).greedy_soup(scores) == UNIFORM_SOUP
    two, stages = play(of(2), by_label({"a": 0.5, "b": 0.4, UNIFORM_SOUP: 0.3}))
    assert len(stages) == 1
    assert of(2).greedy_soup(two) == "a"


def test_baselines_that_failed_are_passed_over():
    values = {"a": None, "b": 0.5, "c": 0.4, "soup of b + c": None}
    scores, stages = play(of(3), by_label(values))
    assert stages[1:] == [(SLERP, "soup of b + c")]
    assert of(3).greedy_soup(scores) == "b"
    nothing, stages = play(of(3), lambda baseline: None)
    assert len(stages) == 1
    assert of(3).greedy_soup(nothing) is None


def test_equal_parents_go_in_the_order_of_the_job():
    _, stages = play(of(3), by_label({"a": 0.5, "b": 0.5, "c": 0.5}))
    assert stages[1][-1] == "soup of a + b"


def test_stages_depend_on_scores_alone():
    values = by_label({"a": 0.2, "b": 0.5, "c": 0.4, "d": 0.3, "soup of b + c": 0.9})
    assert play(of(4), values) == play(of(4), values)


def test_no_parent_takes_the_label_of_a_method():
    assert parent_labels(["x/base", "y/TIES", "z/soup"]) == ("x/base", "y/TIES", "soup")
    labels = [
        baseline.label for baseline in of(2, base="m/x", sources=("base", "m/base")).stage({})
    ]
    assert len(set(labels)) == len(labels)
