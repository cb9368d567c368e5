"""Lowering: the graph each candidate is compiled from, with its precision in it where the runtime wants that."""
