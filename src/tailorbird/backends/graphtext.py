"""The text in an exported program's graph: names, sizes, operators and containers, and nothing that could run.

``torch`` writes Python from a graph and executes it, unaltered names included; evaluates sizes; resolves an operator's
name as attributes of the package ``torch``; and imports the modules that containers name (torch 2.13:
``_export/serde/serialize.py``, ``fx/graph.py``, ``utils/_pytree.py``). So every string of the graph must be of the
kind that belongs where it stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from tailorbird.domain.errors import BackendError

_SIZE = re.compile(
    r"(?:[A-Z]\w*+|[szu][a-z]*+\d++|floor|ceiling|true|false|oo|[a-z][a-z_]*+(?==)|'\w*+'|'[\d.e+-]*+'|\d[\d.]*+"
    r"|[-+*/%(),=<>&|~ ])*+"
)
"""Symbolic sizes as SymPy's printers write them: names of symbols, numbers, and classes that are called. No function
of Python's begins with a capital letter, and no text that could be evaluated anew has more than letters in it."""

_PATH = re.compile(r"[\w.\-+/:@ ]*+")
"""Names of weights and modules, types of devices, releases: in generated Python they may stand between quotes, and
none of these characters ends a string."""

_CONTEXT = re.compile(r"null|\[(\"[A-Za-z_]\w*+\"(, (?=\"))?)*+\]")
"""What a container has besides its children: a dict has its keys, which become the names of arguments."""

_TREES = frozenset({None, "None", "builtins.tuple", "builtins.list", "builtins.dict"})
"""Of other containers ``torch`` imports the module that an archive names."""

_TARGET = re.compile(
    r"torch\.ops\.(?P<space>aten|prims)\.(\w++)\.(\w++)"
    r"|torch\.ops\.higher_order\.(?:cond|wrap_with_autocast|wrap_with_set_grad_enabled)"
    r"|_operator\.(?:getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|lshift|rshift)"
    r"|math\.(?:ceil|floor|trunc)|torch\._?sym_\w++"
)
"""Operators on tensors and sizes, and those that call a part of the same graph."""

_MAPS = ("tensor_values", "sym_int_values", "sym_float_values", "sym_bool_values", "as_string_to_argument")
"""Objects whose keys are the graph's own names, not the format's."""

_STRING = re.compile(r"[ !#-\[\]-~]*+")
"""Arguments of operators, which Inductor puts between quotes in C++: no quote, backslash or line's end."""

_DROPPED = "guards_code"
"""Python by design; loading a program does not run it, and :mod:`~tailorbird.backends.program` then drops it."""

_OBJECTS = ("as_operator", "as_custom_obj", "custom_obj")
"""Arguments that no plain program has: functions by name, and objects that only a pickle can hold."""


def check_graph(record: dict[str, Any]) -> None:
    """Refuse a graph with a text in it that ``torch`` would run, import or look up outside its operators.

    Args:
        record: the graph as ``torch.export`` writes it as JSON.

    Raises:
        BackendError: naming the first such text.
    """
    for key, value in _texts(record, ""):
        if key != _DROPPED:
            _RULES.get(key, _check_path)(value)


def is_operator(space: str, name: str, overload: str) -> bool:
    """Whether PyTorch has that operator, and it opens no file by name.

    Args:
        space: ``aten`` or ``prims``.
        name: ``add``, or whatever an archive says, as the next.
        overload: ``Tensor``.
    """
    import torch

    packet = getattr(getattr(torch.ops, space), name, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket) or overload not in packet.overloads():
        return False
    return all(argument.name != "filename" for argument in getattr(packet, overload)._schema.arguments)


def _texts(tree: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every string with the key that it stands under; objects of a graph's own names give these, too, as names."""
    if isinstance(tree, dict):
        for inner, value in tree.items():
            if key in _MAPS:
                yield "name", inner
            elif inner in _OBJECTS:
                yield inner, value
            yield from _texts(value, "" if key in _MAPS else inner)
    elif isinstance(tree, list):
        for one in tree:
            yield from _texts(one, key)
    elif isinstance(tree, str):
        yield key, tree


def _check_path(text: str) -> None:
    _hold(_PATH.fullmatch(text), "a text that is none of an exported program's", text, "names, types and numbers")


def _check_name(text: str) -> None:
    _hold(not text or text.isidentifier(), "a name that is none", text, "identifiers")


def _check_string(text: str) -> None:
    _hold(_STRING.fullmatch(text), "a string that ends itself", text, "no quotes and no control characters")


def _check_size(text: str) -> None:
    _hold(_SIZE.fullmatch(text), "a size that is none", text, "symbols and numbers")


@cache
def _check_target(text: str) -> None:
    found = _TARGET.fullmatch(text)
    known = found and (not found["space"] or _is_absent(*found.groups()) or is_operator(*found.groups()))
    _hold(known, "an operator that is none of PyTorch's on tensors and sizes", text, "ATen's")


def _is_absent(space: str, name: str, overload: str) -> bool:
    """Whether this torch has nothing of that name, which a newer one may have: it says so itself then."""
    import torch

    missing = object()
    packet = getattr(getattr(torch.ops, space), name, missing)
    return packet is missing or not hasattr(packet, overload)


def _check_object(what: object) -> None:
    _hold(False, "an object or a function as an argument", str(what), "tensors and numbers")


def _check_spec(text: str) -> None:
    """Hold a tree's description against the containers that need no module of their own."""
    _, *trees = json.loads(text)
    while trees:
        tree = trees.pop()
        if (kind := tree["type"]) not in _TREES:
            raise BackendError("the exported program takes or gives containers of its own",
                               got=ascii(str(kind)[:80]).strip("'"),
                               expected="tensors, tuples, lists and dicts")  # fmt: skip
        _hold(_CONTEXT.fullmatch(tree["context"] or "null"), "a container that is none", str(tree["context"]),
              "names of a dict's entries")  # fmt: skip
        trees += tree["children_spec"]


def _hold(is_right: object, what: str, got: str, expected: str) -> None:
    if not is_right:
        raise BackendError(f"the exported program holds {what}", got=ascii(got[:80]), expected=expected,
                           hint="export it again")  # fmt: skip


_RULES: dict[str, Callable[[Any], None]] = {
    "name": _check_name,
    "as_name": _check_name,
    "forward_arg_names": _check_name,
    "as_string": _check_string,
    "as_strings": _check_string,
    "expr_str": _check_size,
    "in_spec": _check_spec,
    "out_spec": _check_spec,
    "target": _check_target,
    **{key: _check_object for key in _OBJECTS},  # noqa: C420 - dict.fromkeys would lose the type
}
