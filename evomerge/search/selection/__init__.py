"""The selection of the winner: finalists on validation items, the winner on test items."""
