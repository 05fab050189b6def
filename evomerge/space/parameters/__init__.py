"""Parameter spaces: genes are the coefficients of a merge method."""
