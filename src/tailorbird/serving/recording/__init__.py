"""Recording: what was asked of a server over time, written down for planning and for benchmarks."""
