"""Signing: keys, signatures, and whom this machine trusts."""
