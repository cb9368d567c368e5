"""Vendor packages load on first use, and no sooner."""

import json

import pytest

from tests.project import tree

VENDORS = [
    *("cuda", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "openvino", "tensorrt", "tensorrt_rtx"),
    *("tensorrt_rtx_bindings", "torch", "transformers"),
]
# The floors that must work in an image that holds one engine's runtime and nothing else of a vendor's.
VENDOR_FREE = ["domain", "repository", "serving", "service", "cli"]

LOADED = """
import json, sys
import {module}
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""

WITHOUT_VENDORS = """
import importlib, sys
for vendor in {vendors}:
    sys.modules[vendor] = None  # makes `import vendor` fail as if it were not installed
for module in {modules}:
    importlib.import_module(module)
"""


@pytest.mark.parametrize("module", ["tailorbird", "tailorbird.api", "tailorbird.cli.main"])
def test_importing_loads_no_vendor_package(module: str) -> None:
    done = tree.run_python(LOADED.format(module=module))
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) & set(VENDORS) == set()


def test_importing_tailorbird_prints_nothing() -> None:
    done = tree.run_python("import tailorbird")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_engine_is_qualified_where_only_its_runtime_is_installed() -> None:
    names = ["tailorbird.builder.qualify", "tailorbird.builder.search.steps"]
    done = tree.run_python(WITHOUT_VENDORS.format(vendors=VENDORS, modules=names))
    assert done.returncode == 0, done.stderr


def test_a_build_kit_is_finished_with_onnx_and_its_runtime() -> None:
    others = [vendor for vendor in VENDORS if vendor != "onnx"]
    done = tree.run_python(WITHOUT_VENDORS.format(vendors=others, modules=["tailorbird.builder.cached"]))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("floor", VENDOR_FREE)
def test_a_floor_imports_where_no_vendor_package_is_installed(floor: str) -> None:
    names = [tree.dotted(path) for path in tree.modules() if tree.label(path).startswith(f"{floor}/")]
    assert names
    done = tree.run_python(WITHOUT_VENDORS.format(vendors=VENDORS, modules=names))
    assert done.returncode == 0, done.stderr
