"""A job made ready: sources opened, tasks built, space and objective made, everything checked."""
