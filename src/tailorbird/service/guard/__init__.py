"""The guard: who may do what, at which door."""
