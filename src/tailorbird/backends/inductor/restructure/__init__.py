"""Graph passes on exported programs: patterns told by structure, each result equal to what it replaces."""

from tailorbird.backends.inductor.restructure.passes import restructured

__all__ = ["restructured"]
