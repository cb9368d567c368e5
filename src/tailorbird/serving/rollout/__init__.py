"""Rollout: which version answers, and how one takes over from another without losing a request."""
