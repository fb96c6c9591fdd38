"""A simulated runtime that times whole networks only; what everything costs in it is known. Nothing here is measured.

    ms = launch + sum over nodes of work + one border for each tensor that enters or leaves the network

Inside a network work takes longer than alone (colder caches), convolutions more so. A node that hands a tensor through
costs a border and nothing else. The simulated compiler tells a kernel for each border.
"""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import shape_inference

from lut.records import DeviceFingerprint, MeasureConfig
from profiler.backends import BuildReport, BuildSettings, KernelRecord, KernelTensor
from profiler.worker_replies import BuildReply, TimeReply

LAUNCH_MS = 0.02
BORDER_MS = 0.004
BORDER_PER_ELEMENT_MS = 2e-8
PER_MAC_MS = 2e-9
PER_ELEMENT_MS = 1e-7
STEP = 8
"""Contractions compute so many output channels at once."""
NOISE = 0.002
IN_PLACE = {"Conv": 1.3}
IN_PLACE_ELSE = 1.15
FINGERPRINT = DeviceFingerprint("a simulated GPU", "simulation", "1", compute_capability="8.6")


class SimulatedRuntime:
    """Stands in a worker's place.

    Attributes:
        refuses: an operation that does not run alone.
        timed: how many engines were timed.
        disturbed: share of the timings that something else on the machine made several times as long.
    """

    pid = None

    def __init__(self, refuses: str | None = None, disturbed: float = 0.0) -> None:
        self.refuses, self.disturbed = refuses, disturbed
        self.timed = 0
        self._generator = np.random.default_rng(0)

    def fingerprint(self) -> DeviceFingerprint:
        return FINGERPRINT

    def time(self, path: Path, config: MeasureConfig, *, reference: Path | None = None, builds: int = 1) -> TimeReply:
        self.timed += 1
        model = onnx.load(path)
        if self.refuses and {node.op_type for node in model.graph.node} == {self.refuses}:
            return TimeReply(failure=f"{self.refuses} does not run alone here")
        ms = true_ms(model) * (1 + NOISE * self._generator.standard_normal())
        if reference is None and self._generator.random() < self.disturbed:
            ms *= self._generator.uniform(3, 30)
        beside = None if reference is None else true_ms(onnx.load(reference))
        return TimeReply(samples_ms=(ms,), median_ms=ms, noise=NOISE, reference_median_ms=beside)

    def build(self, path: Path, out: Path, settings: BuildSettings, *, timeout_s: float = 600.0) -> BuildReply:
        graph = onnx.load(path).graph
        kernels = tuple(
            KernelRecord(f"__myl_Move_{value.name}", "kgen", (), inputs=(tensor(value),), outputs=(tensor(value),))
            for value in [*graph.input, *graph.output]
        )
        return BuildReply(
            BuildReport(str(out), "simulation", "1", settings.compute_capabilities, None, None, None, 0, 0.0, kernels)
        )


def tensor(value: onnx.ValueInfoProto) -> KernelTensor:
    return KernelTensor(value.name, shape_of(value), "Float", "Linear")


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def true_ms(model: onnx.ModelProto) -> float:
    """What a network takes without noise; in one that is packed, every node stands in a copy of its unit."""
    graph = model.graph
    alone = all(node.name.startswith("copy") for node in graph.node)
    borders = sum(border_ms(shape_of(value)) for value in [*graph.input, *graph.output])
    if {node.op_type for node in graph.node} == {"Identity"}:
        borders /= 2  # one kernel from the input to the output
    return LAUNCH_MS + borders + work_ms(model, alone=alone)


def border_ms(shape: Sequence[int]) -> float:
    return BORDER_MS + BORDER_PER_ELEMENT_MS * prod(shape)


def work_ms(model: onnx.ModelProto, *, alone: bool = True) -> float:
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {value.name: shape_of(value) for value in [*graph.input, *graph.value_info, *graph.output]}
    weights = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    total = 0.0
    for node in graph.node:
        if node.op_type == "Identity":
            continue
        made = shapes.get(node.output[0], ())
        ms = PER_ELEMENT_MS * prod(made)
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            weight = weights[node.input[1]]
            each = prod(weight[1:]) if node.op_type == "Conv" else weight[0]
            padded = prod(made) / made[1] * (-(-made[1] // STEP) * STEP)
            ms += PER_MAC_MS * padded * each
        total += ms if alone else ms * IN_PLACE.get(node.op_type, IN_PLACE_ELSE)
    return total
