"""The store of versioned bundles, in Triton's layout, and the one place where an engine is loaded."""
