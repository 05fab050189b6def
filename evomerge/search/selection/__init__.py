"""Which candidate really won: finalists on validation items, the winner on test items."""
