"""An install that does no harm: lower bounds only, no runtime in the base, nothing that overwrites what a user has."""

import json
import os
import runpy
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import setuptools
from packaging.requirements import Requirement

from tests.profiler.networks import write_conv_net

ROOT = Path(__file__).parent.parent
RUNTIMES = ("onnxruntime", "tensorrt", "openvino", "cuda", "nvidia", "torchvision", "timm")
"""Beginnings of the names of packages that are a runtime, or part of one."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py says."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **said: found.update(said))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return found


def every(told: dict[str, Any]) -> dict[str, list[Requirement]]:
    """The requirements by extra; the base's under ""."""
    listed = {"": told["install_requires"], **told["extras_require"]}
    return {extra: [Requirement(line) for line in lines] for extra, lines in listed.items()}


def test_every_requirement_has_a_lower_bound_and_nothing_else(told: dict[str, Any]) -> None:
    for extra, requirements in every(told).items():
        for requirement in requirements:
            operators = [bound.operator for bound in requirement.specifier]
            assert operators == [">="], f"{requirement} in {extra or 'the base'}"


def test_the_base_brings_no_runtime(told: dict[str, Any]) -> None:
    names = [requirement.name for requirement in every(told)[""]]
    assert not [name for name in names if name.startswith(RUNTIMES)]


def test_no_extra_brings_two_packages_that_overwrite_each_other(told: dict[str, Any]) -> None:
    for extra, requirements in every(told).items():
        names = {requirement.name for requirement in requirements}
        assert len([name for name in names if name.startswith("onnxruntime")]) <= 1, extra
        assert len([name for name in names if name.startswith("tensorrt")]) <= 1, extra
        assert "torch" not in names or not extra, f"{extra} would choose a torch of its own"


def test_what_uses_a_gpu_brings_what_watches_it(told: dict[str, Any]) -> None:
    for extra in ("gpu", "tensorrt", "tensorrt-rtx", "dev"):
        assert "nvidia-ml-py" in {requirement.name for requirement in every(told)[extra]}, extra


def link_packages(folder: Path, *distributions: str) -> None:
    """Link what the distributions have installed, and nothing else, into a folder."""
    for name in distributions:
        for file in metadata.files(name) or ():
            top = file.parts[0]
            target = Path(str(metadata.distribution(name).locate_file(top))).resolve()
            if top not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(target)


def ask_worker(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Ask a worker whose Python knows the standard library and that folder."""
    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-m", "profiler.worker"],
        input=json.dumps(request) + "\n",
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        | {"PYTHONPATH": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])  # behind its lines of progress
    return found


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with numpy and this project's two lower packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    for package in ("lut", "profiler"):
        (folder / package).symlink_to(ROOT / package)
    link_packages(folder, "numpy")
    return folder


def test_the_worker_times_with_numpy_and_the_runtime_alone(bare: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    link_packages(bare, "onnxruntime")
    network = write_conv_net(tmp_path / "network.onnx")
    config = {"warmup_s": 0.0, "min_time_s": 0.0, "max_time_s": 0.1}
    about = {"backend": "onnxruntime", "onnx": str(network), "threads": 1, "config": config}
    timed = ask_worker(bare, {"kind": "time", **about})
    assert timed.get("failure") is None
    assert timed["median_ms"] > 0


def test_the_worker_builds_engines_with_numpy_and_the_runtime_alone(bare: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    link_packages(bare, "tensorrt-rtx-cu13", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs")
    network, out = write_conv_net(tmp_path / "network.onnx", linear=False), tmp_path / "network.engine"
    settings = {"compute_capabilities": ["8.6"]}
    request = {"kind": "build", "backend": "tensorrt-rtx", "onnx": str(network), "out": str(out), "settings": settings}
    assert ask_worker(bare, request).get("failure") is None
    assert out.stat().st_size > 0


def test_a_worker_without_a_runtime_says_what_to_install(bare: Path, tmp_path: Path) -> None:
    network = write_conv_net(tmp_path / "network.onnx")
    request = {"kind": "time", "backend": "onnxruntime", "onnx": str(network), "threads": 1, "config": {}}
    assert 'pip install "latprune[onnxruntime]"' in ask_worker(bare, request)["failure"]
