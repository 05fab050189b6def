"""Structures of checkpoints as several families name their tensors; no tensor exists."""

from evomerge.sources import Stack, Structure

_LLAMA = (
    "input_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.o_proj.weight",
    "mlp.gate_proj.weight",
    "mlp.down_proj.weight",
    "post_attention_layernorm.weight",
)
_OPT = (
    "self_attn.k_proj.weight",
    "self_attn.out_proj.bias",
    "self_attn_layer_norm.weight",
    "fc1.weight",
    "fc2.bias",
    "final_layer_norm.weight",
)
_GPT2 = ("ln_1.weight", "attn.c_attn.weight", "ln_2.weight", "mlp.c_fc.weight")


def _structure(
    prefix: str, inside: tuple[str, ...], outer: tuple[str, ...], depth: int, name: str
) -> Structure:
    names = [outer[0]]
    names += [f"{prefix}{layer}.{part}" for layer in range(depth) for part in inside]
    names += outer[1:]
    return Structure(
        architecture=name,
        stacks=(Stack(prefix, depth),),
        shapes=dict.fromkeys(names, (4, 4)),
        dtype="bfloat16",
        tied=False,
    )


def llama(depth: int = 4) -> Structure:
    outer = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    return _structure("model.layers.", _LLAMA, outer, depth, "LlamaForCausalLM")


def opt(depth: int = 4) -> Structure:
    outer = ("model.decoder.embed_tokens.weight", "model.decoder.final_layer_norm.weight")
    return _structure("model.decoder.layers.", _OPT, outer, depth, "OPTForCausalLM")


def gpt2(depth: int = 4) -> Structure:
    """Without a prefix before the layers, as the original checkpoints have it."""
    return _structure("h.", _GPT2, ("wte.weight", "ln_f.weight"), depth, "GPT2LMHeadModel")


def with_vision(depth: int = 4) -> Structure:
    """Tensors outside the layers that look like parts of layers."""
    outer = (
        "model.embed_tokens.weight",
        "visual.blocks.0.mlp.fc1.weight",
        "visual.blocks.0.self_attn.q_proj.weight",
        "draft.model.layers.0.norm.weight",
        "model.norm.weight",
    )
    return _structure("model.layers.", _LLAMA, outer, depth, "SomeVLForConditionalGeneration")


def hybrid(depth: int = 6) -> Structure:
    """Attention in every third layer only, as in models that mix it with convolutions."""
    whole = llama(depth)
    kept = {
        name: shape
        for name, shape in whole.shapes.items()
        if "self_attn" not in name or whole.layer_of(name) in (0, 3)
    }
    return Structure(
        architecture="HybridForCausalLM",
        stacks=(Stack(whole.layer_prefix, depth),),
        shapes=kept,
        dtype="bfloat16",
        tied=False,
    )


def unknown_parts(depth: int = 2) -> Structure:
    """Layers of which no part has a name that says what it is."""
    return _structure("blocks.", ("theta.weight", "phi.weight"), ("emb.weight",), depth, "OddLM")


def clashing(depth: int = 2) -> Structure:
    """A tensor outside the layers whose name is part of one inside, and that needs a filter."""
    outer = ("emb.weight", "1.self_attn.norm.weight")
    return _structure("layers.", ("self_attn.norm.weight", "mlp.w"), outer, depth, "ClashLM")
