"""Imports go one way, pruner → profiler → lut, and each runtime stands behind one file."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("lut", "profiler", "pruner")

AGAINST_THE_ARROWS = {
    "lut": {"profiler", "pruner"},
    "profiler": {"pruner"},
    "pruner": set[str](),
}
HOMES = {
    "cuda": "profiler/backends/cuda.py",
    "onnxruntime": "profiler/backends/onnxruntime.py",
    "openvino": "profiler/backends/openvino.py",
    "tensorrt": "profiler/backends/tensorrt.py",
    "tensorrt_rtx": "profiler/backends/tensorrt_rtx.py",
    "pynvml": "profiler/nvml.py",
}
"""Each runtime and NVML, and the one file that may import it."""
ELSEWHERE = {
    "onnxruntime.quantization": "profiler/precision/quantise.py",
    "onnxruntime.transformers": "profiler/precision/half.py",
}
"""Parts of a runtime that run nothing, and the file that may import them."""

LUT_MAY_IMPORT = sys.stdlib_module_names | {"lut", "numpy"}


def find_imports(source: str) -> Iterator[str]:
    """Name the modules that a source imports: at its top, in a function, for its types, or by a literal name."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(level=0, module=str(module)):
                yield module
            case ast.ImportFrom(level=level):
                yield "." * level
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module


def find_violations(path: str, source: str) -> list[str]:
    """Say what one file (its path from the root, with slashes) imports that it must not."""
    package = path.split("/")[0]
    found = []
    for module in find_imports(source):
        top = module.split(".")[0]
        if not top:
            found.append(f"{path}: a relative import")
        elif top in AGAINST_THE_ARROWS[package]:
            found.append(f"{path}: {package} imports {module}, against the arrows")
        elif package == "lut" and top not in LUT_MAY_IMPORT:
            found.append(f"{path}: lut imports {module}, beyond the standard library and numpy")
        elif HOMES.get(top, path) != path and ELSEWHERE.get(module) != path:
            found.append(f"{path}: only {HOMES[top]} imports {top}")
    return found


def test_no_import_goes_against_the_arrows() -> None:
    sources = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert {path.relative_to(ROOT).parts[0] for path in sources} == set(PACKAGES)
    found = [
        violation
        for path in sources
        for violation in find_violations(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("lut/table.py", "import profiler.trace"),
        ("lut/table.py", "from pruner import plan"),
        ("profiler/trace.py", "from pruner.plan import PrunePlan"),
        ("profiler/trace.py", "def late():\n    import pruner"),
        ("profiler/trace.py", "import importlib\nimportlib.import_module('pruner.plan')"),
        ("lut/table.py", "import torch"),
        ("lut/table.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from scipy import sparse"),
        ("profiler/worker.py", "import onnxruntime"),
        ("pruner/export.py", "import tensorrt_rtx as trt"),
        ("profiler/backends/trt_common.py", "import tensorrt"),
        ("profiler/backends/onnxruntime.py", "from openvino import Core"),
        ("profiler/backends/tensorrt.py", "import pynvml"),
        ("profiler/backends/trt_session.py", "from cuda.bindings import runtime"),
        ("profiler/backends/tensorrt.py", "__import__('tensorrt_rtx')"),
        ("profiler/backends/tensorrt.py", "from . import trt_common"),
        ("profiler/precision/half.py", "import onnxruntime.quantization"),
        ("pruner/main.py", "from .plan import PrunePlan"),
    ],
)
def test_a_forbidden_import_is_found(path: str, source: str) -> None:
    assert len(find_violations(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("lut/table.py", "import sqlite3\nfrom collections.abc import Mapping\nimport numpy as np\nimport lut.errors"),
        ("profiler/trace.py", "import torch\nfrom lut.records import Unit\nimport profiler.rules"),
        ("pruner/main.py", "import lut\nimport profiler\nfrom pruner.plan import PrunePlan"),
        ("profiler/backends/onnxruntime.py", "import onnxruntime\nfrom profiler.backends import trt_common"),
        ("profiler/backends/tensorrt_rtx.py", "def late():\n    import tensorrt_rtx"),
        ("profiler/backends/cuda.py", "def late():\n    from cuda.bindings import runtime"),
        ("profiler/nvml.py", "import pynvml"),
        ("profiler/precision/quantise.py", "def late():\n    import onnxruntime.quantization"),
    ],
)
def test_a_legal_import_passes(path: str, source: str) -> None:
    assert not find_violations(path, source)
