"""The choice of a generation's items, and estimates over all items from a few."""
