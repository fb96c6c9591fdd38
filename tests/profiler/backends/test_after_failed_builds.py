"""A build that fails must leave nothing behind for the next one: TensorRT for RTX keeps the failed one's capability."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lut.errors import BackendError
from profiler.backends import BuildSettings
from profiler.backends.tensorrt_rtx import TensorRtRtx
from profiler.export import to_onnx, write_onnx


def test_a_network_weighs_the_same_before_and_after_a_build_that_failed(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    depthwise, linear, out = tmp_path / "depthwise.onnx", tmp_path / "linear.onnx", tmp_path / "engine"
    write_onnx(to_onnx(nn.Conv2d(16, 16, 3, groups=16).eval(), (torch.randn(1, 16, 20, 20),)), depthwise)
    write_onnx(to_onnx(nn.Sequential(nn.Linear(8, 8)).eval(), (torch.randn(1, 8),)), linear)
    backend, settings = TensorRtRtx(), BuildSettings(("8.6",))
    before = backend.build(depthwise, out, settings)
    turing = backend.build(depthwise, out, BuildSettings(("7.5",)))
    assert turing.weights_bytes != before.weights_bytes
    with pytest.raises(BackendError):
        backend.build(linear, out, BuildSettings(("7.5",), workspace_bytes=1 << 10))
    after = backend.build(depthwise, out, settings)
    assert (after.weights_bytes, after.activation_bytes) == (before.weights_bytes, before.activation_bytes)
