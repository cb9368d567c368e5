"""Tests of the serving floor: no sockets."""
