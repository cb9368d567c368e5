"""Many requests, few runs: rows joined by what the engine's latency table says."""
