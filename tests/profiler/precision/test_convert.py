"""An fp32 file in other precisions: how far the outputs are, and what stays in fp32."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from lut.errors import LatpruneError
from profiler.backends.interface import Array
from profiler.export import to_onnx
from profiler.precision.convert import convert, to_precision
from profiler.precision.running import opened
from tests.profiler.networks import INPUT_SHAPE, write_conv_net, write_model

pytest.importorskip("onnxruntime")


@pytest.fixture
def model(tmp_path: Path) -> onnx.ModelProto:
    return onnx.load(write_conv_net(tmp_path / "network.onnx"))


@pytest.fixture
def batches() -> list[list[Array]]:
    generator = np.random.default_rng(5)
    return [[generator.standard_normal(INPUT_SHAPE).astype(np.float32)] for _ in range(4)]


def difference(one: onnx.ModelProto, other: onnx.ModelProto, feeds: list[Array]) -> float:
    (a,), (b,) = (list(opened(model).outputs(feeds).values()) for model in (one, other))
    assert np.abs(b).max() > 0
    return float(np.abs(a - b).max() / np.abs(b).max())


def weight_types(model: onnx.ModelProto) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer if numpy_helper.to_array(tensor).ndim == 4}


def test_fp16_is_close_and_callers_notice_nothing(model: onnx.ModelProto, batches: list[list[Array]]) -> None:
    half = to_precision(model, "fp16", batches)
    assert weight_types(half) == {TensorProto.FLOAT16}
    assert [list(half.graph.input), list(half.graph.output)] == [list(model.graph.input), list(model.graph.output)]
    assert 0 < difference(half, model, batches[0]) < 5e-3


@pytest.mark.parametrize(("remainder", "bias"), [("fp32", TensorProto.FLOAT), ("fp16", TensorProto.FLOAT16)])
def test_int8_is_calibrated_and_its_remainder_is_what_was_asked_for(
    model: onnx.ModelProto, batches: list[list[Array]], remainder: str, bias: int
) -> None:
    found = convert(model, "int8", batches, remainder=remainder)  # type: ignore[arg-type]
    assert weight_types(found.model) == {TensorProto.INT8}
    assert {t.data_type for t in found.model.graph.initializer if t.name.endswith(".bias")} == {bias}
    assert 0 < difference(found.model, model, batches[0]) < 0.1
    assert found.remainder == remainder


def test_the_model_given_is_left_as_it_was(model: onnx.ModelProto, batches: list[list[Array]]) -> None:
    before = model.SerializeToString()
    for precision in ("fp16", "int8"):
        to_precision(model, precision, batches)  # type: ignore[arg-type]
    assert model.SerializeToString() == before


def test_a_weight_that_fp16_cannot_hold_stays_in_fp32_and_says_so(
    model: onnx.ModelProto, batches: list[list[Array]]
) -> None:
    for name, factor in (("conv2.weight", 1e6), ("conv3.weight", 1e-6)):
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))
    found = convert(model, "fp16", batches)
    kept = {one.node: one.because for one in found.kept}
    assert "conv2.weight" in kept["conv2"]
    assert "conv3" in kept
    assert "conv1" not in kept
    assert difference(found.model, model, batches[0]) < 5e-3


def test_an_activation_that_overflows_on_the_batches_is_seen(
    model: onnx.ModelProto, batches: list[list[Array]]
) -> None:
    large = [[feeds[0] * np.float32(2e4)] for feeds in batches]
    blind, seen = convert(model, "fp16"), convert(model, "fp16", large)
    assert not blind.kept
    assert not all(np.isfinite(values).all() for values in opened(blind.model).outputs(large[0]).values())
    assert any("on the batches" in one.because for one in seen.kept)
    assert difference(seen.model, model, large[0]) < 5e-3


def test_fp16_is_run_with_the_rounding_of_a_gpu_that_adds_up_in_fp32() -> None:
    value = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        onnx.helper.make_node("Mul", ["h", "h"], ["square"]),
        onnx.helper.make_node("Add", ["square", "h"], ["sum"]),
        onnx.helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = onnx.helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [3])], [value("y", TensorProto.FLOAT, [3])]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 9
    x = np.array([1.001, 37.7, 300.0], np.float32)
    half = x.astype(np.float16)
    with np.errstate(over="ignore"):
        expected = (half * half) + half
    assert np.isinf(expected[2])
    np.testing.assert_array_equal(opened(model).outputs([x])["y"], expected.astype(np.float32))


class Enlarged(nn.Module):
    """A convolution whose map is made twice as large before the next."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """A map of 4 channels."""
        return self.other(functional.interpolate(self.one(x), scale_factor=2.0).relu())


def test_types_are_told_anew_and_nodes_stand_in_order_after_a_conversion(
    batches: list[list[Array]],
) -> None:
    torch.manual_seed(0)
    model = to_onnx(Enlarged(), (torch.zeros(INPUT_SHAPE),))
    found = convert(model, "fp16", batches)
    assert found.kept == ()
    onnx.checker.check_model(found.model, full_check=True)
    assert weight_types(found.model) == {TensorProto.FLOAT16}
    assert 0 < difference(found.model, model, batches[0]) < 5e-3


def test_int8_without_batches_and_bf16_are_refused_with_what_to_do(model: onnx.ModelProto) -> None:
    with pytest.raises(LatpruneError, match="train_batches"):
        convert(model, "int8")
    with pytest.raises(LatpruneError, match="--precision fp16"):
        convert(model, "bf16")
    with pytest.raises(LatpruneError, match="fp32, fp16"):
        convert(model, "fp8")  # type: ignore[arg-type]


def test_operations_that_the_converter_leaves_alone_are_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Max", ["x", "least"], ["a"], name="largest"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("CumSum", ["b", "axis"], ["y"], name="sums"),
        helper.make_node("Min", ["n", "n"], ["m"], name="of whole numbers"),
    ]
    given = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4]),
        helper.make_tensor_value_info("n", TensorProto.INT64, [1]),
    ]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4]),
        helper.make_tensor_value_info("m", TensorProto.INT64, [1]),
    ]
    constants = [
        numpy_helper.from_array(np.zeros(4, np.float32), "least"),
        numpy_helper.from_array(np.array(1, np.int64), "axis"),
    ]
    found = convert(onnx.load(write_model(tmp_path / "net.onnx", nodes, given, outputs, constants)), "fp16")
    assert [kept.node for kept in found.kept] == ["largest", "sums"]
    assert "leaves Max in fp32" in found.kept[0].because


def test_what_the_quantiser_warns_of_is_counted_and_not_printed(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    model: onnx.ModelProto,
    batches: list[list[Array]],
) -> None:
    import onnxruntime.quantization as tool

    given = tool.quantize_static

    def noisy(*args: Any, **options: Any) -> None:
        logging.warning("Please consider to run pre-processing before quantization.")
        for _ in range(2):
            logging.warning("a scale is odd")
        warnings.warn("a value is odd", RuntimeWarning, stacklevel=1)
        given(*args, **options)

    monkeypatch.setattr(tool, "quantize_static", noisy)
    level, handlers = logging.getLogger().level, list(logging.getLogger().handlers)
    found = convert(model, "int8", batches)
    assert found.notes == ("The quantiser warns 2 times: a scale is odd", "The quantiser warns: a value is odd")
    assert capfd.readouterr().err == ""
    assert (logging.getLogger().level, logging.getLogger().handlers) == (level, handlers)
