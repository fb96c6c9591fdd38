"""Products written as convolutions compute the same sums, whichever side the weights are on and however many."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lut.errors import BackendError
from profiler.backends import BuildSettings, get_backend
from profiler.backends.onnxruntime_plain import evaluate
from profiler.precision.linear import linear_as_convolution

RTX = pytest.mark.skipif(not get_backend("tensorrt-rtx").status().installed, reason="tensorrt-rtx is not installed")
pytest.importorskip("onnxruntime")
GENERATOR = np.random.default_rng(0)

MATMULS = {
    "rows": ("x", (2, 5, 4), (4, 3)),
    "one row": ("x", (4,), (4, 3)),
    "one column": ("x", (2, 5, 4), (4,)),
    "weights first": ("w", (2, 4, 5), (3, 4)),
    "weights first, one column": ("w", (4,), (3, 4)),
    "one row of weights first": ("w", (2, 4, 5), (4,)),
    "a weight of three dimensions, of which one is 1": ("x", (2, 5, 4), (1, 4, 3)),
    "a weight for each matrix": ("x", (2, 6, 5, 4), (6, 4, 3)),
    "a weight for each matrix, first": ("w", (2, 6, 4, 5), (6, 3, 4)),
    "a weight for each of two dimensions": ("w", (2, 6, 4, 5), (2, 6, 3, 4)),
    "several weights for one matrix": ("x", (5, 4), (6, 4, 3)),
    "several weights for each matrix, first": ("w", (2, 1, 4, 5), (6, 3, 4)),
}

GEMMS: dict[str, dict[str, Any]] = {
    "plain": {"shapes": ((5, 4), (4, 3), None)},
    "turned weights": {"shapes": ((5, 4), (3, 4), (3,)), "transB": 1, "alpha": 0.5, "beta": 2.0},
    "turned rows": {"shapes": ((4, 5), (4, 3), (1, 3)), "transA": 1},
    "a bias for each row": {"shapes": ((5, 4), (4, 3), (5, 1)), "beta": 2.0},
    "weights first": {"shapes": ((5, 4), (4, 3), (3,)), "first": True, "alpha": 3.0},
    "weights first, both turned": {"shapes": ((4, 5), (3, 4), (5, 3)), "first": True, "transA": 1, "transB": 1},
    "a computed bias": {"shapes": ((5, 4), (4, 3), (5, 3)), "computed": True, "beta": 0.5},
}


def model_of(
    node: onnx.NodeProto, given: dict[str, tuple[Any, ...]], constants: dict[str, tuple[int, ...]]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in given.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(GENERATOR.standard_normal(shape).astype(np.float32), name)
            for name, shape in constants.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    return model


def matmul(name: str) -> onnx.ModelProto:
    first, given, weight = MATMULS[name]
    order = ["x", "w"] if first == "x" else ["w", "x"]
    return model_of(helper.make_node("MatMul", order, ["y"], name="product"), {"x": given}, {"w": weight})


def gemm(name: str) -> onnx.ModelProto:
    options = dict(GEMMS[name])
    a, b, c = options.pop("shapes")
    first, computed = options.pop("first", False), options.pop("computed", False)
    tensors = {"a": a, "b": b} | ({} if c is None else {"c": c})
    given = {"b" if first else "a"} | ({"c"} if computed else set())
    node = helper.make_node("Gemm", list(tensors), ["y"], name="product", **options)
    return model_of(
        node,
        {name: shape for name, shape in tensors.items() if name in given},
        {name: shape for name, shape in tensors.items() if name not in given},
    )


def inputs_of(model: onnx.ModelProto, free: int = 0) -> list[np.ndarray]:
    shapes = [[dim.dim_value or free for dim in value.type.tensor_type.shape.dim] for value in model.graph.input]
    return [GENERATOR.standard_normal(shape).astype(np.float32) for shape in shapes]


def assert_same(before: onnx.ModelProto, free: int = 0) -> onnx.ModelProto:
    after, rewritten, left = linear_as_convolution(before)
    assert (rewritten, left) == (("product",), ())
    assert not {"MatMul", "Gemm"} & {node.op_type for node in after.graph.node}
    given = inputs_of(before, free)
    (wanted,), (found,) = (evaluate(model.SerializeToString(), given).values() for model in (before, after))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert found.shape == wanted.shape
    return after


@pytest.mark.parametrize("name", MATMULS)
def test_a_product_with_constant_weights_is_a_convolution(name: str) -> None:
    assert_same(matmul(name))


@pytest.mark.parametrize("name", GEMMS)
def test_a_gemm_is_a_convolution_and_what_is_added_stays(name: str) -> None:
    assert_same(gemm(name))


@pytest.mark.parametrize("shape", [("batch", 5, 4), (2, "batch", 4)])
def test_a_free_dimension_stays_free(shape: tuple[Any, ...]) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    assert_same(model_of(node, {"x": shape}, {"w": (4, 3)}), free=7)


@pytest.mark.parametrize("shape", [("batch", 4, 5), (2, 4, "batch")])
def test_a_free_dimension_stays_free_after_weights(shape: tuple[Any, ...]) -> None:
    node = helper.make_node("MatMul", ["w", "x"], ["y"], name="product")
    assert_same(model_of(node, {"x": shape}, {"w": (3, 4)}), free=7)


@pytest.mark.parametrize(
    ("given", "constants", "because"),
    [
        ({"x": (5, 4), "w": (4, 3)}, {}, "two computed tensors"),
        ({"x": (2, 6, 5, 4)}, {"w": (2, 1, 4, 3)}, r"repeats a part of \[2, 6, 4, 5\]"),
        ({"x": (5, "k")}, {"w": (4, 3)}, None),
        ({"x": ("a", "b", 4)}, {"w": (4, 3)}, "shape is not known"),
    ],
)
def test_what_stays_says_why(given: Any, constants: Any, because: str | None) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    model = model_of(node, given, constants)
    after, rewritten, left = linear_as_convolution(model)
    if because is None:
        assert rewritten == ("product",)
        return
    assert rewritten == ()
    assert after == model
    (one,) = left
    assert one.node == "product"
    assert re.search(because, one.because)


@RTX
@pytest.mark.parametrize("name", ["weights first", "a weight for each matrix", "several weights for one matrix"])
def test_turing_takes_the_convolution_and_not_the_product(name: str, tmp_path: Path) -> None:
    before, after = matmul(name), assert_same(matmul(name))
    backend = get_backend("tensorrt-rtx")
    for model, fails in ((before, True), (after, False)):
        onnx.save(model, tmp_path / "product.onnx")
        try:
            backend.build(tmp_path / "product.onnx", tmp_path / "product.engine", BuildSettings(("7.5",)))
        except BackendError:
            assert fails
        else:
            assert not fails
