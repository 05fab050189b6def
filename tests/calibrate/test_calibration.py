"""Whole calibrations: what is written, what is kept, what is refused, and the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel
from typer.testing import CliRunner

from evomerge.calibrate import Calibration, live_source
from evomerge.cli import app
from evomerge.errors import InputError, SelfCheckError, SourceError
from evomerge.merge.statistics import Statistics
from evomerge.sources import open_source
from tests.architectures import ARCHITECTURES, save_architecture
from tests.calibrate.conftest import run, write_words
from tests.checkpoints import (
    load_tensors,
    replace_tensors,
    save_fine_tuned,
    save_tiny_llama,
    word_tokenizer,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "model", seed=0, layers=2, dtype=torch.bfloat16)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_words(tmp_path / "words.txt", count=60)


def test_every_model_has_a_file_a_kind_that_the_statistics_find(
    model: Path, text: Path, tmp_path: Path
) -> None:
    expert = save_fine_tuned(tmp_path / "expert", of=model, seed=1)
    written = run([model, expert], text, tmp_path / "out")
    assert [(w.model, w.kind, w.computed) for w in written] == [
        (str(folder), kind, True) for folder in (model, expert) for kind in ("fisher", "inputs")
    ]
    assert sorted(w.path for w in written) == sorted((tmp_path / "out").iterdir())
    sources = {str(folder): open_source(str(folder), where="test") for folder in (model, expert)}
    statistics = Statistics.open(tmp_path / "out", sources)
    for reference, source in sources.items():
        for name, shape in source.structure.shapes.items():
            fisher = statistics.get(reference, "fisher", name)
            assert fisher is not None
            assert (tuple(fisher.shape), fisher.dtype) == (shape, torch.float32)
        gram = statistics.get(reference, "inputs", "model.layers.0.mlp.up_proj.weight")
        assert gram is not None
        torch.testing.assert_close(gram, gram.T)
        assert (torch.linalg.eigvalsh(gram.double()) > -1e-5).all(), "products of real inputs"


def test_what_is_there_for_the_same_weights_text_and_options_is_kept(
    model: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = run([model], text, out, inputs=False)
    kept = {w.path: w.path.stat().st_mtime_ns for w in first}
    second = run([model], text, out)
    assert [(w.kind, w.computed) for w in second] == [("fisher", False), ("inputs", True)]
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    renamed = model.rename(tmp_path / "renamed")
    assert not any(w.computed for w in run([renamed], text, out, batch=2))
    for options in ({"seed": 1}, {"tokens": 6}, {"sequences": 3}, {"dtype": "bfloat16"}):
        assert all(w.computed for w in run([renamed], text, out, **options)), options
    other = write_words(tmp_path / "other.txt", count=60, seed=1)
    assert all(w.computed for w in run([renamed], other, out))
    replace_tensors(renamed, {"model.norm.weight": torch.ones(32)})
    assert all(w.computed for w in run([renamed], other, out))


def save_adapter(base: Path, folder: Path, *, merged: Path) -> None:
    tuned = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules=["q_proj"], r=2)
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    tuned.save_pretrained(folder)
    tuned.merge_and_unload().save_pretrained(merged)
    word_tokenizer().save_pretrained(merged)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_has_the_statistics_of_its_merged_model(text: Path, tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", seed=0, layers=2)
    save_adapter(base, tmp_path / "adapter", merged=tmp_path / "merged")
    files = {
        (w.model, w.kind): load_file(w.path)
        for w in run([base, tmp_path / "adapter", tmp_path / "merged"], text, tmp_path / "out")
    }
    for kind in ("fisher", "inputs"):
        own, merged, before = (
            files[str(tmp_path / name), kind] for name in ("adapter", "merged", "base")
        )
        assert own.keys() == merged.keys()
        for name, statistic in merged.items():
            torch.testing.assert_close(own[name], statistic, rtol=1e-3, atol=1e-7)
        changed = "model.layers.1.self_attn.o_proj.weight"
        assert not torch.allclose(own[changed], before[changed], rtol=1e-2)


@pytest.mark.parametrize("name", ["bert", "t5", "bert_classifier", "llama_classifier"])
def test_a_model_that_does_not_continue_text_is_refused_by_name(
    text: Path, tmp_path: Path, name: str
) -> None:
    folder = save_architecture(tmp_path / name, name)
    word_tokenizer().save_pretrained(folder)
    with pytest.raises(SourceError) as caught:
        run([folder], text, tmp_path / "out")
    message = str(caught.value)
    assert ARCHITECTURES[name][0] in message
    assert "continues text" in message
    assert "\n" not in message
    assert str(folder) in message


def test_a_sequence_is_no_longer_than_the_models_context(text: Path, tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0, layers=1)
    (written,) = run(
        [folder],
        write_words(tmp_path / "long.txt", count=600),
        tmp_path / "out",
        tokens=512,
        inputs=False,
    )
    assert written.settings.startswith("2 x 256 tokens")


def test_a_model_that_fails_leaves_no_file(model: Path, text: Path, tmp_path: Path) -> None:
    tensors = load_tensors(model)
    tensors["model.norm.weight"].fill_(torch.nan)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"model\.norm\.weight in model\.safetensors holds NaN"):
        run([model], text, tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))


def test_options_out_of_range_are_refused() -> None:
    for option, least in (("sequences", 1), ("tokens", 2), ("seed", 0), ("batch", 1)):
        with pytest.raises(InputError, match=f"--{option}: {least - 1} is below {least}"):
            Calibration(**{option: least - 1})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--device: abacus: no such device"):
        Calibration(device="abacus").torch_device()
    with pytest.raises(InputError, match="--device: meta: not usable here"):
        Calibration(device="meta").torch_device()


def command(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["calibrate", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def test_the_command_says_what_it_wrote_and_how_large(
    model: Path, text: Path, tmp_path: Path
) -> None:
    arguments = [str(model), "--text", str(text), "--out", str(tmp_path / "out"), "--tokens", "12"]
    result = command(*arguments, "--fisher")
    assert result.exit_code == 0
    (path,) = (tmp_path / "out").iterdir()
    size = f"{path.stat().st_size / 1e6:,.1f} MB"
    assert result.stdout == (
        f"{path}: fisher of {model}, 5 x 12 tokens, seed 0, float32, {size}, computed\n"
    )
    assert result.stderr == "", "no bar where there is no terminal"
    again = command(*arguments)
    assert [line.rpartition(", ")[2] for line in again.stdout.splitlines()] == [
        "there already",
        "computed",
    ]


def test_the_command_refuses_bad_input_in_a_line(model: Path, tmp_path: Path) -> None:
    result = command(str(model), "--text", str(tmp_path / "no.txt"), "--out", str(tmp_path / "o"))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"evomerge: --text: {tmp_path / 'no.txt'}: cannot be read")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_a_model_that_reads_otherwise_than_plain_transformers_is_not_calibrated(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = live_source.build_model

    def build_with_other_frequencies(*arguments: Any, **options: Any) -> PreTrainedModel:
        built = build(*arguments, **options)
        built.model.rotary_emb.inv_freq.mul_(1.5)
        return built

    monkeypatch.setattr(live_source, "build_model", build_with_other_frequencies)
    with pytest.raises(SelfCheckError, match="plain transformers"):
        run([model], text, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.safetensors"))
