"""Where the layers of an architecture read the residual stream and where they add to it.

Folding needs only this knowledge of an architecture; see `folding`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.errors import RecipeError
from evomerge.sources import Structure


@dataclass(frozen=True, kw_only=True)
class Block:
    """The tensors of a layer that read the stream or add to it, each by a part of its name.

    outputs: projections that add to the stream, with their biases. outputs_elsewhere: their names
    in mergekit, which puts the experts of a layer into one tensor. output_gains: gains of norms
    that add to the stream. inputs: weights that multiply the stream itself. gains: gains, without
    biases, of the norms that read the stream. final_gain: gain of the last norm, before the head.
    offset: what a norm adds to each stored gain (Gemma multiplies by 1 + g).
    """

    outputs: tuple[str, ...] = ()
    outputs_elsewhere: tuple[str, ...] = ()
    output_gains: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    gains: tuple[str, ...] = ()
    final_gain: str
    offset: float = 0.0

    @property
    def in_layers(self) -> tuple[str, ...]:
        """All name parts that every layer must have."""
        return (*self.outputs, *self.output_gains, *self.inputs, *self.gains)


_LLAMA_GAINS = ("input_layernorm.weight", "post_attention_layernorm.weight")
_GEMMA_GAINS = ("input_layernorm.weight", "pre_feedforward_layernorm.weight")
_BEHIND_BRANCHES = ("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")

_LLAMA = Block(
    outputs=("self_attn.o_proj", ".down_proj"),  # of every expert, where there are experts
    gains=_LLAMA_GAINS,
    final_gain="model.norm.weight",
)
_MIXTRAL = Block(
    outputs=("self_attn.o_proj", ".w2."),
    outputs_elsewhere=("experts.down_proj",),
    gains=_LLAMA_GAINS,
    final_gain="model.norm.weight",
)
_GPT2 = Block(
    outputs=("attn.c_proj.", "mlp.c_proj."),
    gains=("ln_1.weight", "ln_2.weight"),
    final_gain="ln_f.weight",
)
_GPT_NEOX = Block(
    outputs=("attention.dense.", "mlp.dense_4h_to_h."),
    gains=_LLAMA_GAINS,
    final_gain="final_layer_norm.weight",
)
_GEMMA = Block(
    outputs=("self_attn.o_proj", ".down_proj"),
    gains=_LLAMA_GAINS,
    final_gain="model.norm.weight",
    offset=1.0,
)
_GEMMA_2 = Block(
    output_gains=_BEHIND_BRANCHES,
    gains=_GEMMA_GAINS,
    final_gain="model.norm.weight",
    offset=1.0,
)
_OLMO_2 = Block(
    output_gains=_BEHIND_BRANCHES,
    inputs=(
        "q_proj.weight",
        "k_proj.weight",
        "v_proj.weight",
        "gate_proj.weight",
        "up_proj.weight",
    ),
    final_gain="model.norm.weight",
)

BLOCKS: Mapping[str, Block] = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "Qwen2ForCausalLM": _LLAMA,
    "Qwen3ForCausalLM": _LLAMA,
    "Qwen3MoeForCausalLM": _LLAMA,
    "SmolLM3ForCausalLM": _LLAMA,
    "Phi3ForCausalLM": _LLAMA,
    "MixtralForCausalLM": _MIXTRAL,
    "GPT2LMHeadModel": _GPT2,
    "GPTNeoXForCausalLM": _GPT_NEOX,
    "GemmaForCausalLM": _GEMMA,
    "Gemma2ForCausalLM": _GEMMA_2,
    "Gemma3ForCausalLM": _GEMMA_2,
    "Olmo2ForCausalLM": _OLMO_2,
    "Olmo3ForCausalLM": _OLMO_2,
}
"""Class that `config.json` names -> its layers. Scales are refused for all other classes."""


def require_foldable(structure: Structure, where: str) -> Block:
    """How the layers of a model are built.

    where: the field that sets scales. Raises RecipeError where they cannot be folded.
    """
    block = BLOCKS.get(structure.architecture)
    if block is None:
        raise RecipeError(
            f"{where}: scales cannot be folded into a plain checkpoint of a "
            f"{structure.architecture}; leave them out (in a search space: `scales: none`)"
        )
    misplaced = _misplaced(block, structure)
    if misplaced is not None:
        raise RecipeError(
            f"{where}: scales cannot be folded into this {structure.architecture}: its tensors "
            f"have unusual names ({misplaced}); leave them out (in a search space: `scales: none`)"
        )
    return block


def _misplaced(block: Block, structure: Structure) -> str | None:
    """A name part that a layer lacks, or that matches other tensors too; None where all fit."""
    layers: set[int | None] = set(range(structure.depth))
    wanted = {**dict.fromkeys(block.in_layers, layers), block.final_gain: {None}}
    for part, places in wanted.items():
        if places != {structure.layer_of(name) for name in structure.shapes if part in name}:
            return part
    return None
