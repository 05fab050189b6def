"""From a recipe to its pieces: what each tensor of the result is merged from, and how."""
