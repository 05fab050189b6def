"""The recipe: what to merge and how, as a mergekit YAML document and as a typed value.

A recipe says everything that the merge engine needs and nothing about scores.

Its YAML is valid for `mergekit-yaml`, that of a merge of merges for `mergekit-multi`; our own facts
(the mask seed, hashes of the sources, the genome, the scores) are under the key `evomerge:`, which
mergekit ignores. A route with scales that it cannot say is ours alone.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
