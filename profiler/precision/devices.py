"""Convert a network as it is deployed on devices that lack something: Turing (7.5) has no fp32 matrix product.

What is left in fp32, all of it or what another precision cannot hold, is written with convolutions there.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import onnx

from profiler.backends.interface import Feeds
from profiler.node_fates import name_nodes
from profiler.precision.convert import Converted, convert
from profiler.precision.linear import (
    NO_FP32_PRODUCT,
    PRODUCTS,
    Left,
    linear_as_convolution,
)
from profiler.precision.offered import Precision, Remainder


@dataclass(frozen=True)
class Fitted:
    """A model in another precision, as some devices take it.

    Attributes:
        converted: the model.
        rewritten: linear layers that became 1×1 convolutions.
        left: products in fp32 that no convolution replaces, and that a device among them does not have; an engine
            cannot be built.
    """

    converted: Converted
    rewritten: tuple[str, ...] = ()
    left: tuple[Left, ...] = ()


def remainder_for(precision: Precision, compute_capabilities: Collection[str]) -> Remainder:
    """What runs where an int8 network is not quantised, unless something else is asked for."""
    return "fp16" if precision == "int8" and NO_FP32_PRODUCT & set(compute_capabilities) else "fp32"


def convert_for(
    model: onnx.ModelProto,
    precision: Precision,
    batches: Iterable[Feeds],
    compute_capabilities: Collection[str],
    remainder: Remainder | None = None,
) -> Fitted:
    """Convert a model for these devices; twice where linear layers turn out to stay in fp32.

    Args:
        model: left as it is.
        precision: to convert to.
        batches: as `convert` takes them.
        compute_capabilities: of the devices; none where that does not matter.
        remainder: of int8; None for what the devices need.

    Raises:
        LatpruneError, BackendError: as `convert`.
    """
    remainder = remainder or remainder_for(precision, compute_capabilities)
    given = list(batches)
    if not NO_FP32_PRODUCT & set(compute_capabilities):
        return Fitted(convert(model, precision, given, remainder=remainder))
    if precision == "fp32":
        plain, rewritten, left = linear_as_convolution(model)
        return Fitted(convert(plain, precision), rewritten, left)
    named = name_nodes(model)
    first = convert(named, precision, given, remainder=remainder)
    staying = fp32_products(first.model)
    if not staying:
        return Fitted(first)
    plain, rewritten, left = linear_as_convolution(named, only=staying)
    return Fitted(convert(plain, precision, given, remainder=remainder) if rewritten else first, rewritten, left)


def to_device(
    model: onnx.ModelProto, precision: Precision, batches: Iterable[Feeds], compute_capabilities: Collection[str]
) -> onnx.ModelProto:
    """Convert a model as it is deployed on these devices; `convert_for` tells more of what came of it.

    Products that no convolution replaces stay, and fail to build.
    """
    return convert_for(model, precision, batches, compute_capabilities).converted.model


def fp32_products(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the nodes that multiply matrices in fp32."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    single = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    return frozenset(node.name for node in graph.node if node.op_type in PRODUCTS and single & set(node.output))
