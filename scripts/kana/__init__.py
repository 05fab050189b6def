"""How the kana demo's checkpoints and evaluation items are made: words, problems, training."""
