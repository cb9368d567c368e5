"""Tests about the project: imports, sizes, documents, and the public names."""
