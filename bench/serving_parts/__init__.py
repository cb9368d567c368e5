"""The contests of :mod:`bench.serving`, and what they share."""
