"""The memory of a traced network as a compiler lays it out: kernels fused, tensors packed, as functions of widths."""

from lut.memory import Liveness, MemoryRules
from profiler.fusion import Kind, Operation
from profiler.groups import Structure
from profiler.lifetimes import lifetimes
from profiler.liveness import activation_bytes, border_bytes, weights_bytes
from profiler.rules import is_elementwise
from profiler.trace import Step, Trace
from profiler.units import CONTRACTIONS, NORMS, free_because

LIBRARY = frozenset(
    "max_pool2d_with_indices max_pool2d avg_pool2d max_pool3d_with_indices avg_pool3d upsample_nearest2d "
    "upsample_bilinear2d _adaptive_avg_pool2d adaptive_max_pool2d".split()
)
SPLITS = frozenset("split split_with_sizes chunk unbind".split())
GENERATED_POINTWISE = frozenset("_prelu_kernel prelu".split())
"""Element by element, but written as kernels of their own."""


def compiled_liveness(structure: Structure, rules: MemoryRules) -> Liveness:
    """Tell what a compiler keeps of a traced network, under its rules."""
    lowered = _Lowered(structure.trace)
    trace = structure.trace
    leaving = {lowered.root(index) for index in trace.outputs}
    contracted = {v for op in lowered.operations if op.kind == "contraction" for v in op.inputs}
    images = [v for v in trace.inputs if v in contracted and len(trace.values[v].shape) == 4]
    found = lifetimes(
        lowered.operations,
        {number: value.shape for number, value in enumerate(trace.values)},
        entering=[v for v in images if trace.values[v].shape[1] > 1],
        leaving=leaving,
        turned={v for v in leaving if len(trace.values[v].shape) == 4},
    )
    activations = tuple(activation_bytes(structure, t.value, t.first, t.last) for t in found)
    steps = max((t.last for t in found), default=0) + 1
    return Liveness(weights_bytes(structure), activations, steps, border_bytes(structure, leaving), rules)


class _Lowered:
    """The trace's operations by kind, views seen as what they are views of."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.source: dict[int, int] = {}
        self.operations: list[Operation] = []
        for step in trace.steps:
            inputs = tuple(self.root(v) for v in step.inputs if trace.values[v].from_input)
            outputs = tuple(v for v in step.outputs if v is not None)
            if free_because(trace, step) or (step.name == "cat" and len(inputs) == 1):
                if inputs:
                    self.source |= dict.fromkeys(outputs, inputs[0])
                continue
            self.operations.append(Operation(_kind(step), inputs, outputs))

    def root(self, value: int) -> int:
        """The value of which this one is a view."""
        return self.source.get(value, value)


def _kind(step: Step) -> Kind:
    name = step.name
    if name in CONTRACTIONS:
        return "contraction"
    if name in LIBRARY:
        return "library"
    if name in NORMS:
        return "norm"
    if name in SPLITS:
        return "split"
    if name in {"mean", "_adaptive_avg_pool2d"}:
        return "mean"
    if name in {"cat", "stack"}:
        return "join"
    if name in GENERATED_POINTWISE or not is_elementwise(step):
        return "generated"
    return "pointwise"
