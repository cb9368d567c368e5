"""Tests of rollout: no sockets."""
