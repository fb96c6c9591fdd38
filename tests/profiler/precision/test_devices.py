"""What a device lacks is written in another way wherever a conversion leaves it, and the sums stay the same."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from profiler.backends import BuildSettings
from profiler.backends.interface import Array
from profiler.backends.tensorrt_rtx import TensorRtRtx
from profiler.export import to_onnx, write_onnx
from profiler.precision.convert import convert
from profiler.precision.devices import convert_for, fp32_products
from profiler.precision.running import opened

pytest.importorskip("onnxruntime")
TURING = ("7.5",)


@pytest.fixture(scope="module")
def large() -> tuple[onnx.ModelProto, list[list[Array]]]:
    """Two linear layers; the second has weights that fp16 does not hold."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        network[4].weight[0, 0] = 1e5
    inputs = torch.randn(1, 3, 8, 8)
    return to_onnx(network.eval(), (inputs,)), [[inputs.numpy()]]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_linear_layer_that_stays_in_fp32_becomes_a_convolution_on_turing_alone(
    large: tuple[onnx.ModelProto, list[list[Array]]], precision: str, tmp_path: Path
) -> None:
    model, feeds = large
    elsewhere = convert_for(model, precision, feeds, ("8.6",), "fp16")  # type: ignore[arg-type]
    assert elsewhere.rewritten == ()
    assert len(fp32_products(elsewhere.converted.model)) == 1
    found = convert_for(model, precision, feeds, TURING)  # type: ignore[arg-type]
    assert set(found.rewritten) == fp32_products(elsewhere.converted.model)
    assert found.left == ()
    assert not fp32_products(found.converted.model)
    assert {one.node for one in found.converted.kept} >= set(found.rewritten)
    before, after = (next(iter(opened(one.converted.model).outputs(feeds[0]).values())) for one in (elsewhere, found))
    assert np.abs(after - before).max() <= 2e-3 * np.abs(before).max()
    pytest.importorskip("tensorrt_rtx")
    write_onnx(found.converted.model, tmp_path / "network.onnx")
    TensorRtRtx().build(tmp_path / "network.onnx", tmp_path / "network.engine", BuildSettings(TURING))


def test_where_nothing_stays_the_file_is_the_plain_conversion(large: tuple[onnx.ModelProto, list[list[Array]]]) -> None:
    small = onnx.ModelProto()
    small.CopyFrom(large[0])
    weight = next(one for one in small.graph.initializer if list(one.dims) == [4, 16])
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ones((4, 16), np.float32), weight.name))
    found = convert_for(small, "fp16", large[1], TURING)
    assert (found.rewritten, found.left) == ((), ())
    assert found.converted.model == convert(small, "fp16", large[1]).model
