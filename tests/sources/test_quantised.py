"""Checkpoints of packed weights: read as transformers unpacks them, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers import FineGrainedFP8Config, Mxfp4Config, PreTrainedModel

from evomerge.errors import SourceError
from evomerge.evaluate import load_plain
from evomerge.export.checkpoint import write_checkpoint
from evomerge.recipe import Recipe
from evomerge.sources import Checkpoint, Source, open_source
from tests.architectures import save_architecture, write_tensors
from tests.checkpoints import load_tensors, word_tokenizer

BLOCK = 8
"""Rows and columns that share a scale; no side of a matrix of the tests is smaller."""


def quantised(scale: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Scales for each element of a matrix."""
    grown = scale.float().repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)
    return grown[..., : shape[-2], : shape[-1]]


def pack_fp8(
    folder: Path, *, only: str = "_proj.weight", scales: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """Store matrices in FP8 with a scale for each block; returns what they stand for, by name."""
    tensors, meant = load_tensors(folder), {}
    for name in [name for name in tensors if name.endswith(only) and "lm_head" not in name]:
        weight = tensors[name]
        rows, columns = (-(-length // BLOCK) for length in weight.shape)
        scale = torch.exp2(torch.randint(-9, -3, (rows, columns)).float())
        if scales == torch.float32:
            scale = scale * (1 + torch.rand(scale.shape))
        grown = quantised(scale, weight.shape)
        packed = (weight / grown).clamp(-440, 440).to(torch.float8_e4m3fn)
        meant[name] = packed.float() * grown
        tensors[name], tensors[f"{name}_scale_inv"] = packed, scale.to(scales)
    write_tensors(folder, tensors)
    state_method(folder, quant_method="fp8", weight_block_size=[BLOCK, BLOCK])
    return meant


def state_method(folder: Path, **settings: object) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "quantization_config": settings}))


def opened(folder: Path) -> Source:
    return open_source(str(folder), where="models.base")


def refused(folder: Path) -> str:
    with pytest.raises(SourceError) as caught:
        opened(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def by_transformers(folder: Path, kind: str, config: object) -> PreTrainedModel:
    loaded: PreTrainedModel = getattr(transformers, kind).from_pretrained(
        folder, quantization_config=config, dtype="auto"
    )
    return loaded


def assert_same(source: Source, loaded: PreTrainedModel, folder: Path) -> None:
    """What is read is bit for bit what transformers has, once it saves it unpacked."""
    loaded.config.quantization_config = None
    loaded.hf_quantizer = None
    loaded._weight_conversions = None
    loaded.save_pretrained(folder)
    theirs = load_tensors(folder)
    assert theirs.keys() == source.structure.shapes.keys()
    for name, tensor in theirs.items():
        ours = source.tensor(name)
        assert ours.dtype == tensor.dtype
        assert str(ours.dtype).removeprefix("torch.") == source.structure.dtypes[name]
        assert tuple(ours.shape) == source.structure.shapes[name]
        assert torch.equal(ours, tensor), name


@pytest.mark.parametrize("scales", [torch.float32, torch.float8_e8m0fnu])
@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
def test_fp8_is_read_as_transformers_unpacks_it(
    kind: str, scales: torch.dtype, tmp_path: Path
) -> None:
    folder = save_architecture(tmp_path / "model", kind, dtype=torch.bfloat16)
    pack_fp8(folder, only="q_proj.weight", scales=scales)
    source = opened(folder)
    loaded = by_transformers(
        folder, source.structure.architecture, FineGrainedFP8Config(dequantize=True)
    )
    assert_same(source, loaded, tmp_path / "theirs")


def test_blocks_may_be_cut_off_at_the_end_of_a_matrix(tmp_path: Path) -> None:
    """As in DeepSeek V3, where a projection has 576 rows and a block has 128."""
    folder = save_architecture(tmp_path / "model", "phi3", dtype=torch.bfloat16)
    gate, down = (f"model.layers.0.mlp.{part}_proj.weight" for part in ("gate_up", "down"))
    tensors = load_tensors(folder)
    tensors[gate] = tensors[gate][:44]
    tensors[down] = tensors[down][:, :22]
    write_tensors(folder, tensors)
    meant = pack_fp8(folder, only="mlp.gate_up_proj.weight") | pack_fp8(folder, only=down)
    source = opened(folder)
    assert source.structure.shapes[gate] == (44, 16)
    for name in (gate, down):
        assert torch.equal(source.tensor(name), meant[name].bfloat16())


def test_one_scale_may_be_for_a_whole_matrix(tmp_path: Path) -> None:
    folder = save_architecture(tmp_path / "model", "llama", dtype=torch.bfloat16)
    name = "model.layers.1.self_attn.o_proj.weight"
    tensors = load_tensors(folder)
    packed = tensors[name].to(torch.float8_e4m3fn)
    scale = torch.tensor(0.37)
    seen = name.replace("weight", "activation_scale")
    extra = {f"{name}_scale_inv": scale, seen: torch.tensor(2.5)}
    write_tensors(folder, {**tensors, name: packed, **extra})
    state_method(folder, quant_method="fp8", weight_block_size=None, activation_scheme="static")
    source = opened(folder)
    assert source.structure.shapes.keys() == tensors.keys()
    assert torch.equal(source.tensor(name), (packed.float() * scale).bfloat16())


def test_experts_in_fp4_are_read_as_transformers_unpacks_them(tmp_path: Path) -> None:
    """Two numbers in a byte, one scale for 32 numbers of a row: DeepSeek V4."""
    folder = save_architecture(tmp_path / "model", "qwen3_moe", dtype=torch.bfloat16)
    tensors = load_tensors(folder)
    for name in [name for name in tensors if "experts" in name and "gate_proj" in name]:
        rows, columns = tensors[name].shape
        tensors[name] = torch.randint(-128, 128, (rows, columns // 2), dtype=torch.int8)
        exponents = torch.randint(-6, -2, (rows, columns // BLOCK))
        tensors[f"{name}_scale_inv"] = torch.exp2(exponents.float()).to(torch.float8_e8m0fnu)
    write_tensors(folder, tensors)
    state_method(folder, quant_method="fp8", weight_block_size=[BLOCK, BLOCK], expert_dtype="fp4")
    config = FineGrainedFP8Config(dequantize=True, expert_dtype="fp4")
    loaded = by_transformers(folder, "Qwen3MoeForCausalLM", config)
    assert_same(opened(folder), loaded, tmp_path / "theirs")


def save_gpt_oss(folder: Path) -> Path:
    """gpt-oss with its experts in MXFP4, as they are published."""
    config = transformers.GptOssConfig(
        vocab_size=len(word_tokenizer()),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_local_experts=2,
        num_experts_per_tok=1,
        pad_token_id=0,
        eos_token_id=2,
    )
    transformers.GptOssForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tensors = load_tensors(folder)
    for name in [name for name in tensors if name.endswith("experts.down_proj")]:
        for each in (name, name.replace("down", "gate_up")):
            experts, columns, rows = tensors.pop(each).shape
            blocks = (experts, rows, columns // 32)
            tensors[f"{each}_blocks"] = torch.randint(0, 256, (*blocks, 16), dtype=torch.uint8)
            tensors[f"{each}_scales"] = torch.randint(115, 125, blocks, dtype=torch.uint8)
    write_tensors(folder, tensors)
    state_method(folder, quant_method="mxfp4", modules_to_not_convert=["lm_head"])
    return folder


def test_mxfp4_is_read_as_transformers_unpacks_it(tmp_path: Path) -> None:
    folder = save_gpt_oss(tmp_path / "model")
    loaded = by_transformers(folder, "GptOssForCausalLM", Mxfp4Config(dequantize=True))
    assert_same(opened(folder), loaded, tmp_path / "theirs")


@pytest.mark.parametrize("packing", ["fp8", "mxfp4"])
def test_a_merge_of_packed_models_is_exported_as_a_plain_one(packing: str, tmp_path: Path) -> None:
    if packing == "mxfp4":
        folders = [save_gpt_oss(tmp_path / name) for name in "ab"]
    else:
        folders = [
            save_architecture(tmp_path / name, "llama", seed=seed, dtype=torch.bfloat16)
            for seed, name in enumerate("ab")
        ]
        for folder in folders:
            pack_fp8(folder)
    for folder in folders:
        word_tokenizer().save_pretrained(folder)
    sources = {str(folder): opened(folder) for folder in folders}
    models = [{"model": name, "parameters": {"weight": 0.5}} for name in sources]
    recipe = Recipe.model_validate({"merge_method": "linear", "models": models})
    out = tmp_path / "out"
    out.mkdir()
    first, second = sources.values()
    write_checkpoint(recipe, sources, first, out)
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    merged = load_tensors(out)
    assert merged.keys() == first.structure.shapes.keys()
    for name, tensor in merged.items():
        mean = (first.tensor(name).float() + second.tensor(name).float()) / 2
        assert torch.equal(tensor, mean.bfloat16()), name
    model, found = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(found.values()), found
    assert model.dtype == torch.bfloat16


def test_hashes_are_of_the_packed_files_and_a_code_that_is_no_number_is_refused(
    tmp_path: Path,
) -> None:
    folder = save_architecture(tmp_path / "model", "llama", dtype=torch.bfloat16)
    pack_fp8(folder)
    before = opened(folder).sha256()
    tensors = load_tensors(folder)
    name = "model.layers.2.self_attn.v_proj.weight"
    tensors[name].view(torch.uint8)[3, 5] ^= 1
    write_tensors(folder, tensors)
    after = opened(folder).sha256()
    assert [file for file in after if after[file] != before[file]] == ["model.safetensors"]
    tensors[name].view(torch.uint8)[3, 5] = 0x7F
    write_tensors(folder, tensors)
    with pytest.raises(
        SourceError, match="v_proj.weight in model.safetensors holds NaN".replace(".", r"\.")
    ):
        opened(folder).sha256()


METHODS: Mapping[str, tuple[Mapping[str, object], str]] = {
    "bitsandbytes": (
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        "call model.dequantize(), and give the folder that model.save_pretrained writes",
    ),
    "compressed-tensors": ({"quant_method": "compressed-tensors"}, "run_compressed=False"),
    "gptq": ({"quant_method": "gptq", "bits": 4}, "give the model before quantisation"),
    "awq": ({"quant_method": "awq", "bits": 4}, "give the model before quantisation"),
}


@pytest.mark.parametrize("method", METHODS)
def test_what_needs_more_than_transformers_is_refused_with_its_name(
    method: str, tmp_path: Path
) -> None:
    folder = save_architecture(tmp_path / "model", "llama")
    settings, mend = METHODS[method]
    state_method(folder, **settings)
    message = refused(folder)
    assert f"is quantised ({method}, by quantization_config in config.json)" in message
    assert mend in message


def test_packed_weights_that_their_scales_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = save_architecture(tmp_path / "model", "llama", dtype=torch.bfloat16)
    pack_fp8(folder)
    tensors = load_tensors(folder)
    name = "model.layers.0.mlp.up_proj.weight"
    write_tensors(folder, {**tensors, f"{name}_scale_inv": torch.ones(5, 2)})
    assert f"{name}_scale_inv has shape [5, 2], which fits no blocks of {name}" in refused(folder)
    left = {key: value for key, value in tensors.items() if key != f"{name}_scale_inv"}
    write_tensors(folder, left)
    assert f"is quantised ({name}, stored as float8_e4m3fn)" in refused(folder)


def packed_llama(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    saved = save_architecture(folder, "llama", dtype=torch.bfloat16)
    pack_fp8(saved, only="o_proj.weight")
    return saved, load_tensors(saved)


O_PROJ = "model.layers.0.self_attn.o_proj.weight"


def test_the_stated_size_of_blocks_counts_where_another_would_fit_too(tmp_path: Path) -> None:
    """12 rows in blocks of 8: the second block has 4, and not both have 6."""
    folder, tensors = packed_llama(tmp_path / "model")
    packed = tensors[O_PROJ][:12].clone()
    scale = torch.tensor([[0.5, 2.0], [4.0, 8.0]])
    write_tensors(folder, {**tensors, O_PROJ: packed, f"{O_PROJ}_scale_inv": scale})
    source = opened(folder)
    meant = packed.float() * quantised(scale, packed.shape)
    assert torch.equal(source.tensor(O_PROJ), meant.bfloat16())
    assert isinstance(source, Checkpoint)
    assert not source.unpacked_alike("bfloat16")


def test_plain_transformers_is_no_reference_in_another_dtype(tmp_path: Path) -> None:
    """It would not round to the stored dtype."""
    folder, _ = packed_llama(tmp_path / "model")
    source = opened(folder)
    assert isinstance(source, Checkpoint)
    assert source.unpacked_alike("bfloat16")
    assert not source.unpacked_alike("float32")
    theirs = load_plain(folder, dtype="float32").model.get_parameter(O_PROJ)
    assert not torch.equal(theirs, source.tensor(O_PROJ).float())


def test_plain_transformers_unpacks_on_every_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a GPU it would keep the codes, and round activations to eight bits too."""
    folder, _ = packed_llama(tmp_path / "model")
    source = opened(folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    model = load_plain(folder, dtype="bfloat16").model
    assert torch.equal(model.get_parameter(O_PROJ), source.tensor(O_PROJ))


BLOCKS: Sequence[object] = (
    [0, 0],
    [8, -8],
    ["8", 8],
    [8],
    "8",
    [8.0, 8],
    [True, True],
    8,
    [[8], 8],
)


@pytest.mark.parametrize("size", BLOCKS, ids=str)
def test_an_impossible_size_of_blocks_is_refused(size: object, tmp_path: Path) -> None:
    folder, _ = packed_llama(tmp_path / "model")
    state_method(folder, quant_method="fp8", weight_block_size=size)
    assert "weight_block_size in config.json is" in refused(folder)


@pytest.mark.parametrize("stated", [["fp8"], "fp8", 8, {"quant_method": ["fp8"]}], ids=str)
def test_a_quantisation_of_an_unknown_form_is_refused(stated: object, tmp_path: Path) -> None:
    folder, _ = packed_llama(tmp_path / "model")
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": stated}))
    assert "is quantised (" in refused(folder)


ODD_SCALES: Mapping[str, tuple[torch.Tensor, str]] = {
    "whole numbers": (torch.ones(2, 2, dtype=torch.int32), "is stored as int32"),
    "doubles": (torch.ones(2, 2, dtype=torch.float64), "is stored as float64"),
    "a list": (torch.ones(2), "fits no blocks"),
    "none": (torch.ones(0, 2), "fits no blocks"),
    "of experts": (torch.ones(1, 2, 2), "fits no blocks"),
}


@pytest.mark.parametrize("kind", ODD_SCALES)
def test_scales_that_cannot_be_are_refused(kind: str, tmp_path: Path) -> None:
    folder, tensors = packed_llama(tmp_path / "model")
    scale, message = ODD_SCALES[kind]
    write_tensors(folder, {**tensors, f"{O_PROJ}_scale_inv": scale})
    assert message in refused(folder)


def test_scales_of_one_matrix_are_not_used_for_every_expert(tmp_path: Path) -> None:
    folder, tensors = packed_llama(tmp_path / "model")
    experts = torch.zeros(2, 16, 16).to(torch.float8_e4m3fn)
    more = {"experts.up": experts, "experts.up_scale_inv": torch.ones(2, 1)}
    write_tensors(folder, {**tensors, **more})
    assert "fits no blocks of experts.up" in refused(folder)


def test_packed_weights_without_values_are_refused(tmp_path: Path) -> None:
    folder, tensors = packed_llama(tmp_path / "model")
    empty = torch.zeros(0, 16).to(torch.float8_e4m3fn)
    write_tensors(folder, {**tensors, O_PROJ: empty, f"{O_PROJ}_scale_inv": torch.ones(1, 1)})
    assert "fits no blocks" in refused(folder)


def test_codes_without_scales_are_refused_whatever_their_name(tmp_path: Path) -> None:
    folder, tensors = packed_llama(tmp_path / "model")
    codes = torch.zeros(2, 16, 8, dtype=torch.int8)
    write_tensors(folder, {**tensors, "model.layers.0.mlp.experts.gate_up_proj": codes})
    assert "is quantised (model.layers.0.mlp.experts.gate_up_proj" in refused(folder)


EXPERTS = "model.layers.0.mlp.experts.down_proj"
MXFP4: Mapping[str, tuple[Mapping[str, torch.Tensor | None], str]] = {
    "no blocks": ({"_blocks": None}, "is quantised ("),
    "no scales": ({"_scales": None}, "is quantised ("),
    "plain too": ({"": torch.ones(2, 32, 32)}, f"stores {EXPERTS} twice"),
    "blocks of numbers": ({"_blocks": torch.ones(2, 32, 1, 16)}, "is stored as float32"),
    "scales of numbers": ({"_scales": torch.ones(2, 32, 1)}, "is stored as float32"),
    "short blocks": (
        {"_blocks": torch.ones(2, 32, 1, 8, dtype=torch.uint8)},
        "holds no blocks of 16 bytes",
    ),
}


@pytest.mark.parametrize("fault", MXFP4)
def test_odd_blocks_of_mxfp4_are_refused(fault: str, tmp_path: Path) -> None:
    folder = save_gpt_oss(tmp_path / "model")
    changed, message = MXFP4[fault]
    found: dict[str, torch.Tensor | None] = {
        **load_tensors(folder),
        **{EXPERTS + ending: tensor for ending, tensor in changed.items()},
    }
    write_tensors(folder, {name: each for name, each in found.items() if each is not None})
    assert message in refused(folder)


def test_weights_that_overflow_once_they_are_unpacked_are_refused(tmp_path: Path) -> None:
    """Codes and scales are finite, or whole numbers, so their files do not show it."""
    plain, tensors = packed_llama(tmp_path / "plain")
    scale = f"{O_PROJ}_scale_inv"
    write_tensors(plain, {**tensors, scale: torch.full_like(tensors[scale], 3e38)})
    experts = save_gpt_oss(tmp_path / "experts")
    tensors = load_tensors(experts)
    tensors[f"{EXPERTS}_scales"][1, 2] = 255
    write_tensors(experts, tensors)
    for folder, name in ((plain, O_PROJ), (experts, EXPERTS)):
        source = opened(folder)
        for read in (source.sha256, lambda source=source, name=name: source.tensor(name)):
            with pytest.raises(SourceError, match="once it is unpacked") as caught:
                read()
            assert name in str(caught.value)


def test_scales_may_be_in_another_file(tmp_path: Path) -> None:
    folder, tensors = packed_llama(tmp_path / "model")
    whole = opened(folder)
    expected = whole.tensor(O_PROJ).clone()
    scales = {name: each for name, each in tensors.items() if name.endswith("_scale_inv")}
    rest = {name: each for name, each in tensors.items() if name not in scales}
    (folder / "model.safetensors").unlink()
    places: dict[str, str] = {}
    for number, part in enumerate((scales, rest), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    source = opened(folder)
    source.prefetch(O_PROJ)
    assert torch.equal(source.tensor(O_PROJ), expected)
    assert len(source.sha256()) >= 2
