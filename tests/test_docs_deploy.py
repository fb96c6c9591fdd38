"""The program in docs/deploy.md is what it says: it runs up to the missing GPU, and every name that it uses exists."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lut.errors import BackendError
from profiler.backends import BuildSettings
from profiler.backends.tensorrt_rtx import TensorRtRtx
from profiler.nvml import read_gpu
from tests.profiler.networks import write_conv_net

trt = pytest.importorskip("tensorrt_rtx")
cuda = pytest.importorskip("cuda.bindings.runtime")
PAGE = Path(__file__).parent.parent / "docs" / "deploy.md"
OBJECTS = {"engine": trt.ICudaEngine, "context": trt.IExecutionContext, "trt": trt, "cuda": cuda}
"""What the program's names hold."""


@pytest.fixture
def program() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)


def used_names(source: str) -> set[str]:
    """Every dotted name that begins with one of `OBJECTS`."""
    return {
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and re.fullmatch(rf"({'|'.join(OBJECTS)})(\.\w+)+", ast.unparse(node))
    }


def test_every_name_that_it_uses_exists(program: str) -> None:
    names = used_names(program)
    assert {"engine.num_io_tensors", "context.execute_async_v3", "trt.TensorIOMode.OUTPUT", "cuda.cudaMalloc"} <= names
    for name in names:
        first, *rest = name.split(".")
        found = OBJECTS[first]
        for part in rest:
            assert hasattr(found, part), name
            found = getattr(found, part)
    assert trt.Runtime.deserialize_cuda_engine
    assert [cuda.cudaMemcpyKind(number).name for number in (1, 2)] == [
        "cudaMemcpyHostToDevice",
        "cudaMemcpyDeviceToHost",
    ]
    modules = {node.module for node in ast.walk(ast.parse(program)) if isinstance(node, ast.ImportFrom)}
    assert all(importlib.import_module(str(module)) for module in modules)


def test_it_is_about_as_short_as_it_is_said_to_be_and_needs_nothing_of_ours(program: str) -> None:
    assert len([line for line in program.splitlines() if line.strip()]) <= 32
    assert not re.search(r"latprune|lut|profiler|pruner|torch", program)


@pytest.mark.skipif(read_gpu() is not None, reason="there is a GPU: `make gpu` runs the program to its end")
def test_it_runs_up_to_the_missing_gpu(program: str, tmp_path: Path) -> None:
    engine = tmp_path / "network.engine"
    try:
        TensorRtRtx().build(write_conv_net(tmp_path / "network.onnx"), engine, BuildSettings(("8.6",)))
    except BackendError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [sys.executable, "-c", program, str(engine)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "is there an NVIDIA GPU" in done.stderr
    assert "Traceback" not in done.stderr
