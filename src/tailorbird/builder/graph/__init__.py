"""The graph: normalised, understood, costed."""
