"""What scores allow to say: intervals, differences, shares of a reference, fronts."""
