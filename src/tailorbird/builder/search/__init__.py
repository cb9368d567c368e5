"""The search: candidates, each tried in its own process, measured, chosen."""
