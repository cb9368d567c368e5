"""Runtimes behind one interface. The only floor, with two rooms of ``build``, that touches a vendor package."""
