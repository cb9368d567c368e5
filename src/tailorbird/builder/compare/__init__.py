"""Comparison of two builds: what differs, and which of it explains the change in latency and accuracy."""
