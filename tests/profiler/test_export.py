"""Files are written whole or not at all."""

import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from lut.errors import LatpruneError
from profiler.export import to_onnx, write_onnx


def test_a_file_that_does_not_fit_leaves_nothing_behind_and_says_what_to_do(tmp_path: Path) -> None:
    model = to_onnx(nn.Linear(64, 64), (torch.zeros(1, 64),))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(LatpruneError, match=r"network.onnx \(0.0 MB\) cannot be written into .*TMPDIR"):
            write_onnx(model, tmp_path / "network.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
    write_onnx(model, tmp_path / "network.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    model = to_onnx(nn.Linear(2, 2), (torch.zeros(1, 2),))
    with pytest.raises(LatpruneError, match="No such file or directory"):
        write_onnx(model, tmp_path / "gone" / "network.onnx")
