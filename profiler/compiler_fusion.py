"""Compile a network with TensorRT for RTX, with no GPU, and read from its list of kernels how it was fused.

It is that compiler's fusion, not classic TensorRT's, and it tells no times: tactics are chosen on the device.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from profiler.backends.interface import BuildSettings, KernelRecord
from profiler.backends.tensorrt_rtx import TensorRtRtx
from profiler.blocks import Block
from profiler.compiled_units import fusion_of
from profiler.export import flat_arrays, lively, write_onnx
from profiler.fusion_record import Fusion
from profiler.kernel_roles import SYNC
from profiler.node_fates import name_nodes
from profiler.precision.convert import to_precision
from profiler.precision.devices import to_device
from profiler.precision.offered import Precision
from profiler.variants import Variants

STREAMS = 8
"""Streams that may run beside the first where it is asked how many the compiler would use."""


@dataclass(frozen=True)
class FusionSettings:
    """What to compile for.

    Attributes:
        compute_capabilities: such as ("8.6",).
        precision: of the network; int8 takes its scales from the example inputs, which changes no fusion.
        streams: build once more, with several streams allowed, to tell which the compiler would use; engines are
            exported with one.
    """

    compute_capabilities: tuple[str, ...] = ("8.6",)
    precision: Precision = "fp32"
    streams: bool = False


@dataclass(frozen=True)
class Padding:
    """A kernel that pads, or cuts padding off.

    Attributes:
        units: that it works for.
        before, after: the size that it changes; None where it does so along with other work.
    """

    units: tuple[str, ...]
    before: int | None
    after: int | None


def compile_kernels(model: onnx.ModelProto, settings: FusionSettings, streams: int = 0) -> tuple[KernelRecord, ...]:
    """Compile a model whose nodes have names, and return the compiler's list; the engine is thrown away.

    Args:
        model: in the precision that is meant.
        settings: what for.
        streams: how many may run beside the first.

    Raises:
        BackendError: the runtime is missing, or cannot compile the network for this.
    """
    build = BuildSettings(settings.compute_capabilities, max_aux_streams=streams, given="the network")
    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        path = Path(folder, "network.onnx")
        write_onnx(model, path)
        return TensorRtRtx().build(path, Path(folder, "network.engine"), build).kernels


def read_fusion(
    variants: Variants, widths: Mapping[str, int], settings: FusionSettings, blocks: Sequence[Block] = ()
) -> Fusion:
    """Compile the network at these widths, without blocks, and sort its kernels by node and unit.

    Raises:
        BackendError: the runtime is missing, cannot compile the network, or lists kernels in an unknown way.
        LatpruneError: the network cannot be written at this precision.
    """
    written = variants.at(variants.widths_removal(widths), blocks)
    feeds = [flat_arrays(lively(variants.network.inputs))] if settings.precision == "int8" else []
    model = name_nodes(to_device(written, settings.precision, feeds, settings.compute_capabilities))
    lost = [name for block in blocks for name in block.units]
    found = fusion_of(model, compile_kernels(model, settings), variants, lost)
    if not settings.streams:
        return found
    several = [kernel for kernel in compile_kernels(model, settings, STREAMS) if kernel.kind not in SYNC]
    return replace(found, streams=dict(sorted(Counter(kernel.stream or 0 for kernel in several).items())))


def find_padding(
    variants: Variants, candidates: Iterable[Mapping[str, int]], settings: FusionSettings
) -> list[tuple[Padding, ...]]:
    """Tell for each of a solver's candidates, widths of all groups, where padding would appear; one build each."""
    return [paddings(read_fusion(variants, widths, settings)) for widths in candidates]


def paddings(fusion: Fusion) -> tuple[Padding, ...]:
    """The kernels of a network that pad."""
    names = {unit.number: unit.name for unit in fusion.units}
    return tuple(
        Padding(tuple(names[number] for number in kernel.units if number in names), *(kernel.sizes or (None, None)))
        for kernel in fusion.kernels
        if kernel.pads
    )


def probe_padding(operation: str, width: int, settings: FusionSettings) -> tuple[int, int]:
    """Count what a width costs: kernels that pad, alone or along the way, where it is a layer's output or its input.

    Two layers of the operation stand one behind the other, with a ReLU between, of 64, `width` and 64 channels.

    Args:
        operation: "convolution" (3×3 on 16×16 positions), "depthwise" (the second one) or "linear" (on 128 rows).
        width: channels between the two.
        settings: what for.

    Returns:
        Padding kernels that work for the first and for the second layer.
    """
    model = name_nodes(to_precision(_two_layers(operation, width), settings.precision, _feeds(operation, settings)))
    found = fusion_of(model, compile_kernels(model, settings), None)
    first, second = 0, 0
    for kernel in found.kernels:
        if kernel.pads:
            ends = "second" in kernel.record.onnx_nodes
            first, second = first + (not ends), second + ends
    return first, second


def _feeds(operation: str, settings: FusionSettings) -> list[list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]:
    if settings.precision != "int8":
        return []
    return [[np.random.default_rng(0).standard_normal(_shape(operation, 64)).astype(np.float32)]]


def _shape(operation: str, channels: int) -> tuple[int, ...]:
    return (128, channels) if operation == "linear" else (1, channels, 16, 16)


def _two_layers(operation: str, width: int) -> onnx.ModelProto:
    if operation not in {"convolution", "depthwise", "linear"}:
        raise ValueError(f"There is no operation {operation!r} to probe; convolution, depthwise and linear are known.")
    generator = np.random.default_rng(0)
    grouped = operation == "depthwise"
    last = width if grouped else 64
    if operation == "linear":
        shapes: list[tuple[int, ...]] = [(64, width), (width, last)]
        nodes = [helper.make_node("MatMul", ["x", "w"], ["a"], name="first")]
        nodes += [helper.make_node("MatMul", ["b", "v"], ["y"], name="second")]
    else:
        shapes = [(width, 64, 3, 3), (last, 1 if grouped else width, 3, 3)]
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["a"], name="first", pads=[1] * 4),
            helper.make_node("Conv", ["b", "v"], ["y"], name="second", pads=[1] * 4, group=width if grouped else 1),
        ]
    nodes.insert(1, helper.make_node("Relu", ["a"], ["b"], name="between"))
    weights = [
        numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in zip(("w", "v"), shapes, strict=True)
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, _shape(operation, channels))
        for name, channels in (("x", 64), ("y", last))
    ]
    graph = helper.make_graph(nodes, "probe", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
