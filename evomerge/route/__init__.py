"""Data-flow routes: layers of several models in the order in which a token passes through them.

Akiba et al. 2025 (arXiv 2403.13187), "merging in the data flow space". A route is read from a
recipe, run on live models without copying a weight, and folded into a plain checkpoint. Nothing
here proposes routes or scores them.
"""

from evomerge.route.architectures import require_foldable
from evomerge.route.folding import fold, published
from evomerge.route.route import Hop, check_route, hops_of, stretches_of

__all__ = [
    "Hop",
    "check_route",
    "fold",
    "hops_of",
    "published",
    "require_foldable",
    "stretches_of",
]
