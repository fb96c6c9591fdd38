"""Packed copies compute what the unit does, each on its own input; a compiler tells which borders it changes."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from lut.errors import BackendError
from profiler import packed_graphs
from profiler.backends import Settings, get_backend
from profiler.packed_graphs import border_key, pack, pass_through
from profiler.packed_units import told_by
from profiler.worker_client import WorkerClient
from tests.profiler.networks import write_conv_net


@pytest.fixture
def piece(tmp_path: Path) -> onnx.ModelProto:
    return onnx.load(write_conv_net(tmp_path / "unit.onnx"))


@pytest.mark.parametrize("shared", [False, True])
def test_each_copy_computes_the_unit_on_an_input_of_its_own(
    piece: onnx.ModelProto, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    if shared:
        monkeypatch.setattr(packed_graphs, "LARGEST_BYTES", 0)
    onnx.save(pack(piece, 3), tmp_path / "packed.onnx")
    onnx.checker.check_model(tmp_path / "packed.onnx", full_check=True)
    generator = np.random.default_rng(0)
    shape = [dim.dim_value for dim in piece.graph.input[0].type.tensor_type.shape.dim]
    inputs = [generator.standard_normal(shape).astype(np.float32) for _ in range(3)]
    backend = get_backend("onnxruntime")
    one, three = (backend.open(tmp_path / name, Settings()) for name in ("unit.onnx", "packed.onnx"))
    expected = [next(iter(one.outputs([each]).values())) for each in inputs]
    found = list(three.outputs(inputs).values())
    for mine, theirs in zip(expected, found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    one.close()
    three.close()
    weights = len(onnx.load(tmp_path / "packed.onnx").graph.initializer)
    assert weights == len(piece.graph.initializer) * (1 if shared else 3)


def test_a_network_of_borders_hands_its_tensors_through(piece: onnx.ModelProto) -> None:
    tensors = [*piece.graph.input, *piece.graph.output]
    found = pass_through(piece, tensors)
    onnx.checker.check_model(found, full_check=True)
    assert [node.op_type for node in found.graph.node] == ["Identity"] * len(tensors)
    assert border_key(tensors) == border_key(tensors[::-1]) != border_key(tensors[:1])


def test_the_compiler_tells_which_tensors_change_their_layout(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    path = write_conv_net(tmp_path / "unit.onnx", linear=False)
    with WorkerClient("tensorrt-rtx") as worker:
        changed = told_by(worker, "8.6")
        assert changed(onnx.load(path), path) == {"x"}  # pooling writes its output as it is wanted
        handed = pass_through(onnx.load(path), onnx.load(path).graph.input)
        onnx.save(handed, tmp_path / "border.onnx")
        assert changed(handed, tmp_path / "border.onnx") == {"in0", "out0"}
        with pytest.raises(BackendError):
            told_by(worker, "5.0")(onnx.load(path), path)
