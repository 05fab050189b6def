"""The recipe: what to merge and how, as a mergekit YAML document and as a typed value.

A recipe holds everything that the merge engine needs.

Its YAML is valid for `mergekit-yaml`, or for `mergekit-multi` if it is a merge of merges. Our own
facts (the mask seed, hashes of the sources, the genome, the scores) are under the key `evomerge:`,
which mergekit ignores. Only evomerge reads a route with scales that mergekit cannot express.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
