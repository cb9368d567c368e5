"""The gate: what the source answers, how close an engine comes, and the verdict."""
