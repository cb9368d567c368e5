"""A server under mixed traffic whose every row carries a number of its own, so that each answer can be told apart."""
