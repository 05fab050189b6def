"""Statistics of scores: intervals, differences, shares of a reference, fronts."""
