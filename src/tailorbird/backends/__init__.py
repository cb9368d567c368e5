"""Runtimes behind one interface. The only floor, with the rooms of ``builder``, that touches a vendor package."""
