"""Networks become ONNX, and files are written whole or not at all."""

import resource
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lut.errors import LatpruneError
from profiler.backends.interface import BuildSettings
from profiler.backends.onnxruntime_plain import evaluate
from profiler.backends.tensorrt_rtx import TensorRtRtx
from profiler.export import flat_arrays, largest_difference, output_arrays, to_onnx, write_onnx


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


class OfTwo(nn.Module):
    """Takes its inputs in a dict, and gives its outputs in one."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The difference and the sum."""
        one, other = self.one(batch["one"]), self.other(batch["other"])
        return {"less": one - other, "more": one + other}


def test_inputs_may_stand_in_a_dict() -> None:
    model, inputs = OfTwo(), ({"one": torch.randn(5, 4), "other": torch.randn(5, 2)},)
    written = to_onnx(model, inputs)
    found = evaluate(written.SerializeToString(), flat_arrays(inputs))
    assert largest_difference(list(found.values()), output_arrays(model, inputs)) < 1e-6


class Branching(nn.Module):
    """What it computes decides what it computes next."""

    def forward(self, x: Tensor) -> Tensor:
        """Twice the input, or half of it."""
        return x * 2 if x.sum() > 0 else x / 2


def test_what_the_exporter_says_last_is_told_without_its_advice() -> None:
    with pytest.raises(LatpruneError, match="data-dependent") as told:
        to_onnx(Branching(), (torch.randn(3),))
    assert "\n" not in str(told.value)
    assert "Next steps" not in str(told.value)


def test_convolutions_of_volumes_need_no_bias() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(2, 6, 3, bias=False), nn.BatchNorm3d(6), nn.ReLU(), nn.Conv3d(6, 4, 1)).eval()
    inputs = (torch.randn(1, 2, 5, 6, 7),)
    found = list(evaluate(to_onnx(network, inputs).SerializeToString(), flat_arrays(inputs)).values())
    assert largest_difference(found, output_arrays(network, inputs)) <= 1e-5


TOLD = """
While executing %view_4 : [num_users=1] = call_function[target=torch.ops.aten.view.default]
Original traceback:
File "timm/models/maxxvit.py", line 888, in forward
    x = x + self.drop_path1(self.ls1(self._partition_attn(self.norm1(x))))
  File "timm/models/maxxvit.py", line 334, in forward
    x = x.transpose(1, 2).reshape(restore_shape + (-1,))
Use tlparse to see full graph.
"""
"""Of torch 2.14.1 about timm 1.0.31's maxvit_tiny_rw_224, shortened."""


def test_a_refusal_tells_the_line_of_the_networks_code_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError(f"It cannot be done!\n{TOLD}")

    monkeypatch.setattr("torch.onnx.export", refuse)
    with pytest.raises(LatpruneError, match=r"done! This is line 334 of .*maxxvit\.py: x = .*network\(model\)"):
        to_onnx(nn.Linear(4, 4), (torch.randn(1, 4),))


class Sums(nn.Module):
    """Sums over products, their indices written as people like to write them."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.einsum("B H I D, B H J D -> B H I J", x, y)


def test_indices_of_an_einsum_are_small_letters_which_every_runtime_reads(tmp_path: Path) -> None:
    inputs = (torch.randn(2, 3, 4, 5), torch.randn(2, 3, 6, 5))
    model = to_onnx(Sums(), inputs)
    equations = [a.s for node in model.graph.node for a in node.attribute if a.name == "equation"]
    assert equations == [b"abcd,abed->abce"]
    found = evaluate(model.SerializeToString(), flat_arrays(inputs))
    assert largest_difference(list(found.values()), output_arrays(Sums(), inputs)) < 1e-5
    pytest.importorskip("tensorrt_rtx")
    write_onnx(model, tmp_path / "sums.onnx")
    TensorRtRtx().build(tmp_path / "sums.onnx", tmp_path / "sums.engine", BuildSettings(("8.6",)))
