"""`latprune predict --kernels` tells the compiler's kernels with no GPU and no table."""

import json
import sys
from pathlib import Path

import pytest

from tests.pruner.test_main import call

TASK = Path(__file__).parent / "example_task.py"


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_kernels_are_told_with_units_and_what_they_are_not() -> None:
    pytest.importorskip("tensorrt_rtx")
    done = call("predict", TASK, "--kernels", "--all")
    assert done.exit_code == 0, done.output
    plain = " ".join(done.stdout.split())
    assert "for compute capability 8.6 in fp32" in plain
    assert "ONNX nodes:" in plain
    assert "the cut agrees with the compiler for" in plain
    assert "kernels that pad:" in plain
    assert "not classic TensorRT's. It tells no times" in plain
    assert "ms" not in plain.split()


def test_the_same_in_json_for_another_device_and_precision() -> None:
    pytest.importorskip("tensorrt_rtx")
    done = call("predict", TASK, "--kernels", "--device", "RTX 4090", "--precision", "fp16", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)["kernels"]
    assert report["compute_capabilities"] == ["8.9"]
    assert report["precision"] == "fp16"
    assert report["nodes_unaccounted"] == []
    assert {name for kernel in report["kernels"] for name in kernel["units"]} <= {u["name"] for u in report["units"]}
    assert "classic" in report["caveat"]


def test_without_the_compiler_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    done = call("predict", TASK, "--kernels")
    assert done.exit_code == 2
    assert "needs TensorRT for RTX" in done.output
    assert "pip install" in done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "Predicting needs --table"),
        (("--kernels", "--check"), "Predicting needs --table"),
        (("--kernels", "--precision", "fp7"), "no precision 'fp7'"),
        (("--kernels", "--compute-capability", "9.0"), "Hopper"),
        (("--kernels", "--device", "Voodoo 2"), "Voodoo 2"),
    ],
)
def test_what_cannot_be_told_is_refused_before_any_work(options: tuple[str, ...], said: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    done = call("predict", TASK, *options)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
