"""The facade's functions: what a Python program calls, and what every CLI command is made of."""

from tailorbird.api.building import build, publish
from tailorbird.api.elsewhere import make_kit, qualify, rebuild
from tailorbird.api.result import Result
from tailorbird.api.using import bill_of_materials, compare, doctor, inspect, open, serve  # noqa: A004 - as in gzip

__all__ = [
    "Result",
    "bill_of_materials",
    "build",
    "compare",
    "doctor",
    "inspect",
    "make_kit",
    "open",
    "publish",
    "qualify",
    "rebuild",
    "serve",
]
