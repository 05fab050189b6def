"""The model card: what the hub reads of it, what it admits, and what it does not give away."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from evomerge.evaluate.inference.intervals import Interval
from evomerge.evaluate.inference.summary import Role, ScoreSummary
from evomerge.export.card import MIXED_LICENCE, CardScores, Effort, Story
from evomerge.export.card import write_card as write_merge_card
from evomerge.export.origins import FileFacts, Licence, Origin, public_names, trace
from evomerge.export.use import use_of
from evomerge.merge.methods.registry import METHODS
from evomerge.recipe import Recipe
from evomerge.search.results.selection import ConstraintCheck
from tests.export.conftest import Family, make_family, write_card

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def card_of(family: Family, recipe: Recipe | None = None, **story: object) -> str:
    recipe = recipe or family.recipe()
    sources = family.open(recipe).values()
    names = public_names(sources)
    fields = {"title": "tiny", "opening": "Not scored.", "names": names, **story}
    return write_merge_card(recipe, trace(sources, names), story=Story(**fields))  # type: ignore[arg-type]


def summary(label: str, role: Role, value: float) -> ScoreSummary:
    interval = Interval(value=value, low=value - 0.05, high=value + 0.05)
    return ScoreSummary(
        label=label,
        role=role,
        score=interval,
        tasks={"sums": {"exact_match": interval}, "order": {"acc": interval, "acc_norm": interval}},
    )


def scores_of(family: Family) -> CardScores:
    return CardScores(
        about_items="On unseen items.",
        summaries=(
            summary("mean of the second half", "winner", 0.625),
            summary(str(family.base), "base", 0.25),
            summary(f"soup of {family.arithmetic} + {family.japanese}", "baseline", 0.5),
        ),
        constraints=(
            ConstraintCheck(task="count", metric="acc", score=0.5, wanted=0.9),
            ConstraintCheck(task="count", metric="acc_norm", score=0.95, wanted=0.9),
        ),
    )


def test_the_hub_reads_base_models_tags_library_licence_and_languages(family: Family) -> None:
    data = ModelCard(card_of(family)).data
    assert data.base_model == ["base", "arithmetic", "japanese"]
    assert data["base_model_relation"] == "merge"
    assert data.tags == ["merge", "evomerge", "mergekit"]
    assert data.library_name == "transformers"
    assert data.license == "apache-2.0"
    assert data.language == ["en", "ja"]


def test_the_first_line_is_what_the_selection_says(family: Family) -> None:
    opening = f"No gain: the winner scores -0.020 against {family.arithmetic}."
    lines = ModelCard(card_of(family, opening=opening)).text.strip().splitlines()
    assert lines[:3] == ["# tiny", "", "No gain: the winner scores -0.020 against arithmetic."]


def test_scores_stand_beside_those_of_base_and_soup_with_intervals(family: Family) -> None:
    lines = card_of(family, scores=scores_of(family)).splitlines()
    head = lines.index(
        "| score | **mean of the second half** | base | soup of arithmetic + japanese |"
    )
    cells = "0.625 [0.575, 0.675] | 0.250 [0.200, 0.300] | 0.500 [0.450, 0.550]"
    assert lines[head + 2 : head + 6] == [
        f"| objective | {cells} |",
        f"| sums: exact_match | {cells} |",
        f"| order: acc | {cells} |",
        f"| order: acc_norm | {cells} |",
    ]
    assert "- Constraint NOT kept: count, acc 0.500, wanted at least 0.900." in lines
    assert "- Constraint kept: count, acc_norm 0.950, wanted at least 0.900." in lines


def test_differences_stand_under_the_models_that_the_winner_is_compared_with(
    family: Family,
) -> None:
    difference = Interval(value=0.375, low=0.25, high=0.5)
    scores = replace(
        scores_of(family),
        differences={str(family.base): difference},
        remarks=(f"Left out: {family.japanese}, which could not be scored.",),
    )
    lines = card_of(family, scores=scores).splitlines()
    assert "| mean of the second half minus it | – | +0.375 [+0.250, +0.500] | – |" in lines
    assert "Left out: japanese, which could not be scored." in lines


def test_it_says_how_the_merge_was_found_and_how_to_make_it_again(family: Family) -> None:
    effort = Effort(
        space="per_layer_linear", genes=24, optimizer="cma_es", seed=3, candidates=200, items=12800
    )
    card = card_of(family, effort=effort)
    for said in ("`per_layer_linear` (24 genes)", "`cma_es` (seed 3)", "200 candidates", "12800"):
        assert said in card
    assert "evomerge merge recipe.yaml --out DIR" in card
    assert "mergekit-yaml recipe.yaml DIR" in card
    assert "folders of the machine it was made on (base, arithmetic and japanese)" in card


@pytest.mark.parametrize("method", METHODS)
def test_every_method_that_draws_random_masks_is_said_to_draw_others_in_mergekit(
    family: Family, method: str
) -> None:
    drawn = method in ("dare_linear", "dare_ties", "della", "della_linear")
    card = card_of(family, family.recipe(merge_method=method))
    assert ("its random masks are mergekit's own" in card) is METHODS[method].random is drawn


def test_it_holds_no_path_of_the_machine(family: Family) -> None:
    opening = f"Gained +0.100: the winner against {family.japanese}."
    card = card_of(family, opening=opening, scores=scores_of(family))
    assert str(family.base.parent) not in card
    # A path starts at a slash that follows neither a word (`a/b`) nor another slash (`https://`).
    assert re.findall(r"(?<![\w/:.])/\w+", card) == []


def test_sources_are_listed_with_the_first_digits_of_their_hashes(family: Family) -> None:
    origins = trace(
        family.open(family.recipe()).values(), public_names(family.open(family.recipe()).values())
    )
    card = card_of(family)
    for origin in origins:
        digest = origin.files["model.safetensors"].sha256[:12]
        assert f"| {origin.name} | local folder | apache-2.0 | `{digest}…` |" in card


@pytest.mark.parametrize(
    ("licences", "stated"),
    [
        (("mit", "mit", "apache-2.0"), "base: mit; arithmetic: mit; japanese: apache-2.0"),
        (("mit", "MIT", None), "base: mit; arithmetic: mit; japanese: not stated"),
        ((None, None, None), "base: not stated; arithmetic: not stated; japanese: not stated"),
    ],
)
def test_sources_that_do_not_agree_on_a_licence_are_listed(
    tmp_path: Path, licences: tuple[str | None, ...], stated: str
) -> None:
    family = make_family(tmp_path)
    for model, licence in zip(
        (family.base, family.arithmetic, family.japanese), licences, strict=True
    ):
        (model / "README.md").unlink()
        if licence:
            write_card(model, licence=licence)
    card = ModelCard(card_of(family))
    assert (card.data.license, card.data.license_name) == ("other", MIXED_LICENCE)
    assert stated in card.text


def test_a_licence_of_its_own_that_all_share_keeps_name_and_link(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    for model in (family.base, family.arithmetic, family.japanese):
        write_card(
            model, licence="other\nlicense_name: kana-1.0\nlicense_link: https://kana.example/1.0"
        )
    data = ModelCard(card_of(family)).data
    assert (data.license, data.license_name) == ("other", "kana-1.0")
    assert data.license_link == "https://kana.example/1.0"


@pytest.mark.parametrize(
    "readme",
    ["no metadata", "---\n- a list\n---\n", "---\nlicense: [\n---\n", "---\n\n---\n", b"\xff"],
)
def test_a_source_s_card_that_cannot_be_read_states_nothing(
    tmp_path: Path, readme: str | bytes
) -> None:
    family = make_family(tmp_path)
    raw = readme if isinstance(readme, bytes) else readme.encode()
    (family.base / "README.md").write_bytes(raw)
    assert "base: not stated" in card_of(family)


def test_norwegian_survives_yaml(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    write_card(family.base, licence="apache-2.0", language="no")
    assert ModelCard(card_of(family)).data.language == ["no", "en", "ja"]


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    families = [make_family(tmp_path / name) for name in ("one", "two")]
    sources = [source for family in families for source in family.open(family.recipe()).values()]
    assert list(public_names(sources).values()) == [
        "base", "arithmetic", "japanese", "base-2", "arithmetic-2", "japanese-2",
    ]  # fmt: skip


def test_a_hub_model_is_named_by_its_id_and_its_commit_is_listed() -> None:
    reference = f"org/name@{COMMIT}"
    origin = Origin(
        reference=reference,
        name="org/name",
        revision=COMMIT,
        files={f"model-0000{i}-of-00003.safetensors": FileFacts(sha256=f"{i}" * 64, size_bytes=1)
               for i in (1, 2, 3)},
        licence=Licence(license="mit"),
        languages=(),
    )  # fmt: skip
    recipe = Recipe.model_validate({"merge_method": "linear", "models": [{"model": reference}]})
    story = Story(title="one", opening=f"Beside {reference}.", names={reference: "org/name"})
    card = ModelCard(write_merge_card(recipe, [origin], story=story))
    assert card.data.base_model == ["org/name"]
    assert f"| org/name | `{COMMIT}` | mit | `111111111111…` and 2 more files |" in card.text
    assert "Beside org/name." in card.text
    assert "folders of the machine" not in card.text


def test_code_beside_the_model_is_admitted(family: Family) -> None:
    recipe = family.recipe()
    sources = family.open(recipe).values()
    names = public_names(sources)
    story = Story(title="tiny", opening="Not scored.", names=names)
    for with_code in (False, True):
        card = write_merge_card(recipe, trace(sources, names), story=story, with_code=with_code)
        assert ("trust_remote_code=True" in card) == with_code
        assert ("no code comes with it" in card) != with_code


def test_nothing_in_a_name_shapes_the_page(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    evil = "\x1b[2J<img src=x onerror=alert(1)> ![x](http://a) | `b\n# c"
    write_card(family.base, licence='"<script>alert(1)</script>"')
    named = family.base.rename(family.base.with_name("<b>base](http:a)"))
    renamed = replace(family, base=named)
    effort = Effort(space=evil, genes=1, optimizer=evil, seed=3, candidates=2, items=12)
    scores = CardScores(
        about_items=f"On {evil}.",
        summaries=(summary(evil, "winner", 0.6), summary(str(named), "base", 0.2)),
        constraints=(ConstraintCheck(task=evil, metric=evil, score=0.5, wanted=0.9),),
        remarks=(evil,),
    )
    card = card_of(renamed, title=evil, opening=evil, scores=scores, effort=effort)
    text = ModelCard(card).text
    assert "\x1b" not in card
    assert not re.search(r"<(?!/?(img src=x onerror=alert\(1\)> !\[x\]))", _without_code(text))
    assert "](" not in _without_code(text)
    assert not re.search(r"(?m)^# c", text)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {4, 5}


def _without_code(text: str) -> str:
    return re.sub(r"(`+) .*? \1", "", text)


@pytest.mark.parametrize(
    ("architecture", "beside", "loader", "task"),
    [
        ("LlamaForCausalLM", (), "AutoModelForCausalLM", "text-generation"),
        ("LlavaForConditionalGeneration", (), "AutoModelForImageTextToText", "image-text-to-text"),
        ("BertModel", (), "AutoModel.", "feature-extraction"),
        ("BertModel", ("modules.json",), "SentenceTransformer", "sentence-similarity"),
        ("OfNobody", (), "AutoModelForCausalLM", "text-generation"),
    ],
)
def test_it_says_what_loads_the_model(
    family: Family, architecture: str, beside: tuple[str, ...], loader: str, task: str
) -> None:
    recipe = family.recipe()
    sources = family.open(recipe).values()
    names = public_names(sources)
    card = write_merge_card(
        recipe,
        trace(sources, names),
        story=Story(title="tiny", opening="Not scored.", names=names),
        use=use_of({"architectures": [architecture]}, beside),
    )
    assert f"`{loader}" in card
    assert ModelCard(card).data["pipeline_tag"] == task


@pytest.mark.parametrize("front", [False, True])
def test_it_says_that_the_test_items_were_seen_before(family: Family, front: bool) -> None:
    effort = Effort(space="a", genes=1, optimizer="b", seed=0, candidates=8, items=9, front=front)
    assert "scored once on test items" in card_of(family, effort=effort)
    card = card_of(family, effort=replace(effort, tested_before=2))
    assert "scored once" not in card
    assert "The test items were seen before: 2 selections of this search scored models" in card
