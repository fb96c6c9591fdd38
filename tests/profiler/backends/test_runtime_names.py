"""Every name that is used of TensorRT, CUDA's bindings and NVML exists there, or is said to be unverified.

Nothing of these can run here, but their names can be looked up: TensorRT for RTX's, CUDA's and NVML's in the modules
themselves, classic TensorRT's in its type stubs (`record_names.py`). A name that is in none of them must stand in
docs/unverified.md. Which object a name is used on cannot be seen from the source, so it may belong to any of a module's
classes: a misspelt name is found, one on the wrong object is not.
"""

import ast
import builtins
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent.parent
BACKENDS = ROOT / "profiler" / "backends"
UNVERIFIED = ROOT / "docs" / "unverified.md"
STUBS = Path(__file__).parent / "recorded" / "tensorrt-names.txt"
SHARED = sorted(BACKENDS.glob("trt_*.py"))
"""Used with either TensorRT."""


def read_dotted(node: ast.expr) -> list[str]:
    """The names of `a.b.c`, or nothing where it does not begin with a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [*([node.id] if isinstance(node, ast.Name) else []), *parts[::-1]]


def find_chains(source: str, roots: set[str]) -> set[str]:
    """Names that a source reads from a module it calls by one of the roots: `trt.A.B` gives "A.B"."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        parts: list[str] = []
        if isinstance(node, ast.Attribute):
            parts = read_dotted(node)
        elif isinstance(node, ast.Call) and read_dotted(node.func) == ["getattr"]:
            parts = [*read_dotted(node.args[0]), *_literal(node.args[1])]
        places = [place for place, part in enumerate(parts) if part.lstrip("_") in roots]
        if places and parts[places[0] + 1 :]:
            found.add(".".join(parts[places[0] + 1 :]))
    return found


def find_attributes(source: str) -> set[str]:
    """Every attribute that a source uses, of whatever object; those that it asks `hasattr` for apart."""
    tree = ast.parse(source)
    read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    asked = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and read_dotted(node.func) == ["hasattr"]
        for name in _literal(node.args[1])
    }
    return read - asked


def find_words(source: str, methods: set[str]) -> set[str]:
    """The first arguments of calls that name a function by a string: `self._call("cudaMalloc", …)`."""
    return {
        name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods
        for name in _literal(node.args[0])
    }


def _literal(node: ast.expr) -> list[str]:
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


@cache
def own_names() -> frozenset[str]:
    """Names that this project defines, and those of what its modules use from Python and numpy."""
    found: set[str] = set(dir(builtins)) | set(dir(np)) | set(dir(np.ndarray))
    for kind in (str, bytes, dict, list, set, tuple, int, float, Path, Exception, memoryview, re.Match):
        found |= set(dir(kind))
    for path in [*(ROOT / "profiler").rglob("*.py"), *(ROOT / "lut").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    found.add(name)
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(name)
                case ast.Assign(targets=targets):
                    found |= {item.attr for item in targets if _is_own(item)} | _names(targets)
                case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name)):
                    found.add(name)
                case ast.Import(names=names):
                    found |= _members(name.name for name in names)
    return frozenset(found)


def _is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def _names(targets: list[ast.expr]) -> set[str]:
    flat = [item for target in targets for item in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return {item.attr for item in flat if _is_own(item)} | {item.id for item in flat if isinstance(item, ast.Name)}


def _members(modules: Iterator[str]) -> set[str]:
    """Names in the standard library's modules, and in their classes."""
    found = set()
    for name in modules:
        if name in ("contextlib", "os", "re", "math", "tempfile", "time", "sys", "json", "ctypes", "threading"):
            module = importlib.import_module(name)
            found |= set(dir(module))
            for kind in vars(module).values():
                found |= set(dir(kind)) if isinstance(kind, type) else set()
    return found


def describe(module: ModuleType) -> set[str]:
    """Names of a module, as "A" and "A.b", and "b" alone: for it may be used on an object of class A."""
    found: set[str] = set()
    for name, value in vars(module).items():
        found.add(name)
        if isinstance(value, type):
            found |= {f"{name}.{member}" for member in dir(value)} | set(dir(value))
    return found


@cache
def read_stubs() -> frozenset[str]:
    """Classic TensorRT's names, in the same form."""
    lines = STUBS.read_text(encoding="utf-8").splitlines()[1:]
    return frozenset({name for line in lines if " < " not in line for name in (line, line.rpartition(".")[2])})


def listed() -> str:
    return UNVERIFIED.read_text(encoding="utf-8")


def check(kind: str, used: set[str], known: set[str] | frozenset[str]) -> None:
    """Demand that names are known, or stand in docs/unverified.md as `kind.NAME`."""
    text = listed()
    plain = {name for name in used - known if not name.rpartition(".")[2].startswith("__")}
    missing = sorted(name for name in plain if f"`{kind}.{name}`" not in text)
    assert not missing, f"not in {kind}, nor listed in docs/unverified.md: {missing}"


def used_of_trt(extra: str) -> tuple[set[str], set[str]]:
    """Chains from the module, and attributes of whatever object, in the shared files and one module's own."""
    sources = [path.read_text(encoding="utf-8") for path in [*SHARED, BACKENDS / extra]]
    roots = {"trt", "tensorrt", "tensorrt_rtx"}
    chains = {chain for source in sources for chain in find_chains(source, roots)}
    return chains, {name for source in sources for name in find_attributes(source)} - own_names()


def test_names_used_of_tensorrt_for_rtx_are_the_modules_own() -> None:
    known = describe(pytest.importorskip("tensorrt_rtx"))
    chains, attributes = used_of_trt("tensorrt_rtx.py")
    assert {"Builder", "BuilderFlag.TF32", "OnnxParser"} <= chains
    check("tensorrt_rtx", chains | attributes, known | {"__version__"})


def test_names_used_of_classic_tensorrt_are_in_its_stubs() -> None:
    chains, attributes = used_of_trt("tensorrt.py")
    assert {"Builder", "BuilderFlag.TF32", "OnnxParser"} <= chains
    check("tensorrt", chains | attributes, read_stubs() | {"__version__"})


def test_names_used_of_cuda_are_the_bindings_own() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    source = (BACKENDS / "cuda.py").read_text(encoding="utf-8")
    words = find_words(source, {"_call"})
    assert {"cudaMalloc", "cudaStreamSynchronize"} <= words
    errors = set(re.findall(r'"(cudaError\w+)"', source))
    check("cuda.bindings.runtime", words | errors | (find_attributes(source) - own_names()), describe(runtime))


def test_names_used_of_nvml_are_the_bindings_own() -> None:
    pynvml = pytest.importorskip("pynvml")
    source = (ROOT / "profiler" / "nvml.py").read_text(encoding="utf-8")
    words = find_words(source, {"_ask"})
    assert {"nvmlDeviceGetFieldValues", "nvmlDeviceGetMigMode"} <= words
    errors = set(re.findall(r'"(NVMLError_\w+)"', source))
    chains = find_chains(source, {"pynvml"})
    check("pynvml", words | errors | chains, describe(pynvml))


def test_the_numbers_of_nvmls_fields_are_the_bindings_own() -> None:
    pynvml = pytest.importorskip("pynvml")
    from profiler.gpu_watch import HELD_BY_SETTING, THROTTLING
    from profiler.nvml import INTEGER_VALUES, THROTTLED_FIELDS

    fields = {
        "power cap": "SW_POWER_CAP",
        "software thermal": "SW_THERM_SLOWDOWN",
        "hardware thermal": "HW_THERM_SLOWDOWN",
        "power brake": "HW_POWER_BRAKE_SLOWDOWN",
    }
    assert {
        reason: getattr(pynvml, f"NVML_FI_DEV_CLOCKS_EVENT_REASON_{name}") for reason, name in fields.items()
    } == THROTTLED_FIELDS
    reasons = "SwPowerCap HwSlowdown SyncBoost SwThermalSlowdown HwThermalSlowdown HwPowerBrakeSlowdown".split()
    assert [getattr(pynvml, f"nvmlClocksEventReason{name}") for name in reasons] == list(THROTTLING.values())
    assert pynvml.nvmlClocksEventReasonApplicationsClocksSetting == HELD_BY_SETTING
    kinds = "UNSIGNED_INT UNSIGNED_LONG UNSIGNED_LONG_LONG SIGNED_LONG_LONG SIGNED_INT UNSIGNED_SHORT".split()
    assert [getattr(pynvml, f"NVML_VALUE_TYPE_{kind}") for kind in kinds] == list(INTEGER_VALUES)


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("x = trt.BuilderFlag.TF23", "BuilderFlag.TF23"),
        ("x = self._trt.Bilder(logger)", "Bilder"),
        ("getattr(trt.BuilderFlag, 'TF23', None)", "BuilderFlag.TF23"),
        ("config.max_aux_streems = 0", "max_aux_streems"),
    ],
)
def test_a_misspelt_name_is_found(source: str, wrong: str) -> None:
    used = find_chains(source, {"trt"}) | (find_attributes(source) - own_names())
    assert wrong in used - read_stubs()


def test_what_is_asked_for_with_hasattr_need_not_exist() -> None:
    source = "if hasattr(runtime, 'a_newer_name'):\n    runtime.a_newer_name()"
    assert not find_attributes(source)


def test_what_is_listed_as_unverified_is_still_used() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "profiler").rglob("*.py"))
    for kind, name in re.findall(r"`(tensorrt|tensorrt_rtx|pynvml|cuda\.bindings\.runtime)\.([\w.]+)`", listed()):
        assert name.rpartition(".")[2] in sources, f"{kind}.{name} is not used any more: take it out of unverified.md"
