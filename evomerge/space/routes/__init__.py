"""Data-flow spaces: genes are the layers that a token passes through."""
