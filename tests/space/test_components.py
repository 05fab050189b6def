"""Which part of a layer a module is, by the names that checkpoints have for it."""

import pytest

from evomerge.space import component_of


@pytest.mark.parametrize(
    ("module", "component"),
    [
        ("self_attn", "attention"),
        ("linear_attn", "attention"),
        ("mixer", "attention"),
        ("conv", "attention"),  # LFM2
        ("mamba_decoder", "attention"),  # Zamba
        ("mlp", "mlp"),
        ("block_sparse_moe", "mlp"),
        ("shared_mlp", "mlp"),  # Granite without experts has no other
        ("mlp_block", "mlp"),  # RecurrentGemma
        ("mlps", "mlp"),  # LongCat
        ("input_layernorm", "rest"),
        ("per_layer_projection", "rest"),
    ],
)
def test_modules_are_known_by_their_names(module, component):
    assert component_of(module) == component
