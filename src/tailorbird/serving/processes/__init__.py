"""Engines in processes of their own, supervised; their tensors in shared memory."""
