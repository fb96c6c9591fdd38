"""The memory of a traced network as a compiler lays it out: kernels fused, tensors packed, as functions of widths."""

from collections import Counter
from dataclasses import replace

from lut.memory import Liveness, MemoryRules
from profiler.fusion import Kind, Operation
from profiler.groups import Structure
from profiler.lifetimes import network_lifetimes
from profiler.liveness import activation_bytes, border_bytes, weights_bytes
from profiler.rules import is_elementwise
from profiler.trace import Step, Trace
from profiler.units import CONTRACTIONS, NORMS, free_because

POOLS = frozenset(
    "max_pool2d_with_indices max_pool2d avg_pool2d max_pool3d_with_indices avg_pool3d _adaptive_avg_pool2d "
    "adaptive_max_pool2d".split()
)
RESIZES = frozenset("upsample_nearest2d upsample_bilinear2d".split())
SPLITS = frozenset("split split_with_sizes chunk unbind".split())
GENERATED_POINTWISE = frozenset("_prelu_kernel prelu".split())
"""Element by element, but written as kernels of their own."""


def compiled_liveness(structure: Structure, rules: MemoryRules, *, folded: bool = True) -> Liveness:
    """Tell what a compiler keeps of a traced network; without a contraction there is no workspace.

    Args:
        structure: the network's trace and groups.
        rules: the compiler's.
        folded: the compiler is given the network with its batch norms folded into the convolutions, as it is deployed.
    """
    trace = structure.trace
    lowered = _Lowered(trace, folded=folded)
    leaving = {lowered.root(index) for index in trace.outputs}
    shapes = {number: value.shape for number, value in enumerate(trace.values)}
    found = network_lifetimes(lowered.operations, shapes, trace.inputs, leaving)
    activations = tuple(activation_bytes(structure, life.value, life.first, life.last) for life in found.tensors)
    steps = max([life.last for life in found.tensors] + [*found.contractions, 0]) + 1
    if not found.contractions:
        rules = replace(rules, workspace_bytes=0)
    borders = border_bytes(structure, leaving)
    return Liveness(weights_bytes(structure), activations, steps, borders, rules, found.contractions)


class _Lowered:
    """The trace's operations by kind, views seen as what they are views of."""

    def __init__(self, trace: Trace, *, folded: bool) -> None:
        self.trace = trace
        self.source: dict[int, int] = {}
        self.operations: list[Operation] = []
        readers = Counter(value for step in trace.steps for value in step.inputs)
        readers.update(trace.outputs)
        convolved: set[int] = set()
        for step in trace.steps:
            inputs = tuple(self.root(v) for v in step.inputs if trace.values[v].from_input)
            outputs = tuple(v for v in step.outputs if v is not None)
            joined = step.name == "cat" and len(inputs) == 1
            absorbed = folded and step.name in NORMS and inputs[0] in convolved and readers[step.inputs[0]] == 1
            if free_because(trace, step) or joined or absorbed:
                if inputs:
                    self.source |= dict.fromkeys(outputs, inputs[0])
                continue
            if step.name == "convolution":
                convolved.update(outputs)
            self.operations.append(Operation(_kind(step), inputs, outputs))

    def root(self, value: int) -> int:
        """The value of which this one is a view."""
        return self.source.get(value, value)


def _kind(step: Step) -> Kind:
    name = step.name
    if name in CONTRACTIONS:
        return "contraction"
    if "attention" in name:
        return "attention"
    if name in POOLS:
        return "pool"
    if name in RESIZES:
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
    return "pointwise" if name.rstrip("_") in {"relu", "add", "sigmoid"} else "curve"
