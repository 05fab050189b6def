"""One generation scored: its items drawn, scored in blocks, losers stopped, elites scored again."""

from evomerge.generation.generations import Generations, ScoredGeneration

__all__ = ["Generations", "ScoredGeneration"]
