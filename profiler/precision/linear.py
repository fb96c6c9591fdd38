"""Matrix products with constant weights written as 1×1 convolutions, for devices without fp32 products (7.5).

A convolution sums over channels and leaves positions alone, so what is contracted becomes the channels:

    x @ W, W[K, N]           rows of x are positions                 [rows, K, 1, 1]      * W.T
    W @ x, W[M, K]           columns of x are positions              [batch, K, N, 1]     * W
    W @ x, W[G, M, K]        each of G products is a group           [batch, G K, N, 1]   * W as [G M, K], G groups
    W @ x for one x          its products share what is contracted   [batch, K, N, 1]     * W as [G M, K]
    x @ W, W[G, K, N]        (W.T @ x.T).T

The sums are the same ones; what is added or multiplied besides (alpha, beta, C of a Gemm) is folded in or stays apart.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from profiler.backends.interface import Array

NO_FP32_PRODUCT = frozenset({"7.5"})
"""Compute capabilities for which TensorRT for RTX compiles no fp32 matrix product (Turing)."""
RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
"""Operations that multiply their state by weights, step after step."""
PRODUCTS = frozenset({"Gemm", "MatMul"}) | RECURRENT
FREE = -1
"""Stands for the one dimension of a shape that is not fixed."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Left:
    """A product that stays as it is, and why."""

    node: str
    because: str


class _StaysError(Exception):
    """A product has no convolution of the same sums; the message says why."""


def linear_as_convolution(
    model: onnx.ModelProto, only: Collection[str] | None = None
) -> tuple[onnx.ModelProto, tuple[str, ...], tuple[Left, ...]]:
    """Rewrite every Gemm and MatMul of a computed tensor with constant weights, which computes the same sums.

    Args:
        model: left as it is; of no shape more than one dimension free.
        only: names of the nodes that are meant; None for all.

    Returns:
        The model, the names of the nodes that were rewritten, and those that have to stay as they are.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    shapes = _shapes(copy)
    rewritten, left, nodes = [], [], []
    for number, node in enumerate(graph.node):
        name = node.name or f"{node.op_type}_{number}"
        if node.op_type not in PRODUCTS or (only is not None and name not in only):
            nodes.append(node)
            continue
        writer = _Writer(name, arrays, shapes)
        try:
            writer.write(node)
        except _StaysError as why:
            left.append(Left(name, str(why)))
            nodes.append(node)
            continue
        rewritten.append(name)
        nodes.extend(writer.nodes)
        graph.initializer.extend(writer.constants)
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
    return copy, tuple(rewritten), tuple(left)


class _Writer:
    """Writes the nodes of one product."""

    def __init__(self, name: str, arrays: Mapping[str, Array], shapes: Mapping[str, Shape]) -> None:
        self._name, self._arrays, self._shapes = name, arrays, dict(shapes)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def write(self, node: onnx.NodeProto) -> None:
        """Write any product.

        Raises:
            _StaysError: it cannot be.
        """
        if node.op_type in RECURRENT:
            raise _StaysError(f"is a recurrent layer ({node.op_type}), which multiplies its state in a loop")
        (self.gemm if node.op_type == "Gemm" else self.matmul)(node)

    def matmul(self, node: onnx.NodeProto) -> None:
        """Write a MatMul.

        Raises:
            _StaysError: it cannot be.
        """
        first, second = node.input
        weight_first = self._weight_first(first, second)
        self._product(first, second, node.output[0], weight_first, self._shape(node.output[0]))

    def gemm(self, node: onnx.NodeProto) -> None:
        """Write a Gemm: alpha * A' @ B' + beta * C.

        Raises:
            _StaysError: it cannot be.
        """
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        alpha, beta = (np.float32(attributes.get(name, 1.0)) for name in ("alpha", "beta"))
        weight_first = self._weight_first(node.input[0], node.input[1])
        sides: list[Array | str] = []
        for name, flag, is_weight in (
            (node.input[0], "transA", weight_first),
            (node.input[1], "transB", not weight_first),
        ):
            turned = bool(attributes.get(flag))
            if is_weight:
                sides.append((self._arrays[name].T if turned else self._arrays[name]) * alpha)
            else:
                sides.append(self._turned(name) if turned else name)
        added = node.input[2] if len(node.input) > 2 else ""
        shape = self._shape(node.output[0])
        bias = None if weight_first else self._per_column(added, shape[1], beta)
        apart = bool(added) and bias is None
        out = f"{self._name}.as_conv.product" if apart else node.output[0]
        self._product(sides[0], sides[1], out, weight_first, shape, bias)
        if apart:
            self._add("Add", [out, self._scaled(added, beta)], node.output[0])

    def _weight_first(self, first: str, second: str) -> bool:
        constant = [name in self._arrays for name in (first, second)]
        if sum(constant) != 1:
            raise _StaysError("multiplies two constants" if all(constant) else "multiplies two computed tensors")
        return constant[0]

    def _product(
        self,
        first: Array | str,
        second: Array | str,
        out: str,
        weight_first: bool,
        shape: Shape,
        bias: Array | None = None,
    ) -> None:
        """Write `first @ second`, one of which is an array (or the name of one)."""
        given, source = (first, second) if weight_first else (second, first)
        weight = self._arrays[given] if isinstance(given, str) else given
        assert isinstance(source, str)
        if weight.ndim > 2:
            weight = weight.reshape(weight.shape[_leading_ones(weight.shape[:-2]) :])
        if weight.ndim == 1:
            weight = weight[None] if weight_first else weight[:, None]
        if not weight_first and weight.ndim == 2:
            self._convolve(source, weight.T, (FREE, weight.shape[0], 1, 1), out, shape, bias=bias)
            return
        if weight_first:
            self._from_left(source, weight, out, shape)
            return
        product = f"{self._name}.as_conv.turned_product"
        self._from_left(self._turned(source), weight.swapaxes(-1, -2), product, _swapped(shape))
        self._add("Transpose", [product], out, perm=_last_two(len(shape)))

    def _from_left(self, source: str, weight: Array, out: str, shape: Shape) -> None:
        """Write `weight @ source`, the weight of two dimensions or of groups before them."""
        sizes = self._shape(source)
        if len(sizes) == 1:
            sizes = (*sizes, 1)
        *lead, inner, columns = sizes
        groups = weight.shape[:-2]
        facing = tuple(lead[len(lead) - len(groups) :]) if groups else ()
        facing = (1,) * (len(groups) - len(facing)) + facing
        apart = facing == groups
        if not apart and any(size != 1 for size in facing):
            raise _StaysError(f"repeats a part of {list(sizes)} for weights of shape {list(weight.shape)}")
        if inner == FREE:
            raise _StaysError("sums over a dimension that is not fixed")
        batch = prod(lead[: max(len(lead) - len(groups), 0)]) if columns == FREE else FREE
        number = prod(groups) if apart else 1
        into = (batch, inner * number, columns, 1)
        self._convolve(source, weight.reshape(-1, weight.shape[-1]), into, out, shape, groups=number)

    def _convolve(
        self,
        source: str,
        weight: Array,
        into: Shape,
        out: str,
        back: Shape,
        *,
        groups: int = 1,
        bias: Array | None = None,
    ) -> None:
        outputs, inputs = weight.shape
        read = [f"{self._name}.as_conv.input", self._constant("weight", weight.reshape(outputs, inputs, 1, 1))]
        if bias is not None:
            read.append(self._constant("bias", bias))
        sizes = self._constant("into", np.array(into, dtype=np.int64))
        self.nodes.append(helper.make_node("Reshape", [source, sizes], [read[0]], name=f"{self._name}.into"))
        result = f"{self._name}.as_conv.output"
        self.nodes.append(helper.make_node("Conv", read, [result], name=self._name, kernel_shape=[1, 1], group=groups))
        sizes = self._constant("back", np.array(back, dtype=np.int64))
        self.nodes.append(helper.make_node("Reshape", [result, sizes], [out], name=f"{self._name}.back"))

    def _per_column(self, name: str, columns: int, beta: np.float32) -> Array | None:
        """A Gemm's C as the bias of a convolution; None where it is none, or no constant of that kind."""
        if name not in self._arrays:
            return None
        added = self._arrays[name] * beta
        if added.ndim > 1 and any(size != 1 for size in added.shape[:-1]):
            return None
        return np.broadcast_to(added.reshape(-1), (columns,))

    def _scaled(self, name: str, beta: np.float32) -> str:
        if beta == 1:
            return name
        if name in self._arrays:
            return self._constant("added", self._arrays[name] * beta)
        self._add("Mul", [name, self._constant("beta", np.array(beta))], f"{self._name}.as_conv.scaled")
        return f"{self._name}.as_conv.scaled"

    def _turned(self, source: str) -> str:
        """The source with its last two dimensions exchanged."""
        sizes = self._shape(source)
        if len(sizes) < 2:
            raise _StaysError(f"multiplies a tensor of shape {list(sizes)} with several matrices")
        out = f"{self._name}.as_conv.turned"
        self._add("Transpose", [source], out, perm=_last_two(len(sizes)))
        self._shapes[out] = _swapped(sizes)
        return out

    def _shape(self, name: str) -> Shape:
        if name not in self._shapes:
            raise _StaysError(f"has a tensor whose shape is not known ({name})")
        return self._shapes[name]

    def _add(self, op_type: str, inputs: Sequence[str], out: str, **attributes: Any) -> None:
        name = f"{self._name}.{out.rsplit('.', 1)[-1]}.{op_type}"
        self.nodes.append(helper.make_node(op_type, inputs, [out], name=name, **attributes))

    def _constant(self, kind: str, values: Array) -> str:
        name = f"{self._name}.as_conv.{kind}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


def _leading_ones(sizes: Sequence[int]) -> int:
    return next((number for number, size in enumerate(sizes) if size != 1), len(sizes))


def _last_two(rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]


def _swapped(shape: Shape) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2])


def _shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Shapes of the tensors of which at most one dimension is not fixed."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found = {}
    for value in (*inferred.value_info, *inferred.output, *inferred.input):
        kind = value.type.tensor_type
        sizes = tuple(dim.dim_value if dim.HasField("dim_value") else FREE for dim in kind.shape.dim)
        if kind.HasField("shape") and sizes.count(FREE) < 2 and 0 not in sizes:
            found[value.name] = sizes
    return found
