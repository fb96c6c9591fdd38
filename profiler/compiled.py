"""The memory of a traced network as a compiler lays it out: kernels fused, tensors packed, as functions of widths."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from lut.memory import Liveness, MemoryRules
from profiler.fusion import Kind, Operation, keeps_order
from profiler.groups import Structure
from profiler.lifetimes import network_lifetimes
from profiler.liveness import Extent, border_bytes, name_value, tensor_bytes, weights_bytes, whole
from profiler.products import Factor, product
from profiler.rules import is_elementwise
from profiler.step_kinds import ATTENTION, CONTRACTIONS, LAYER_NORMS, MOVES, NORMS, SOFTMAX, free_because
from profiler.trace import Ref, Step

POOLS = frozenset(
    "max_pool2d_with_indices max_pool2d avg_pool2d max_pool3d_with_indices avg_pool3d _adaptive_avg_pool2d "
    "adaptive_max_pool2d".split()
)
RESIZES = frozenset("upsample_nearest2d upsample_bilinear2d".split())
SPLITS = frozenset("split split_with_sizes chunk unbind".split())
PICKS = frozenset("select slice narrow".split())
UNSEEN = frozenset("slice narrow constant_pad_nd repeat".split())
"""What may leave a tensor as it is."""
PERMUTATIONS = frozenset("permute transpose".split())
GENERATED_POINTWISE = frozenset("_prelu_kernel prelu".split())
"""Element by element, but written as kernels of their own."""
KINDS: tuple[tuple[frozenset[str], Kind], ...] = (
    (POOLS, "pool"),
    (RESIZES, "library"),
    (NORMS, "norm"),
    (SPLITS, "split"),
    (frozenset({"mean", "_adaptive_avg_pool2d"}), "mean"),
    (frozenset({"cat", "stack"}), "join"),
    (LAYER_NORMS | SOFTMAX, "row"),
    (PICKS, "pick"),
    (MOVES, "move"),
)
"""What operations are to a compiler, the first that names one; contractions and what works element by element aside."""


def compiled_liveness(structure: Structure, rules: MemoryRules, *, folded: bool = True) -> Liveness:
    """Tell what a compiler keeps of a traced network; without a contraction there is no workspace.

    Args:
        structure: the network's trace and groups.
        rules: the compiler's.
        folded: the compiler is given the network with its batch norms folded into the convolutions, as it is deployed.
    """
    trace = structure.trace
    lowered = _Lowered(structure, folded=folded)
    leaving = {lowered.root(index) for index in trace.outputs}
    shapes = {number: value.shape for number, value in enumerate(trace.values)} | lowered.shapes
    found = network_lifetimes(lowered.operations, shapes, trace.inputs, leaving)
    activations = tuple(
        tensor_bytes(name_value(life.value), lowered.extent(life.value), life.first, life.last)
        for life in found.tensors
    )
    steps = max([life.last for life in found.tensors] + [*found.contractions, 0]) + 1
    if not found.contractions:
        rules = replace(rules, workspace_bytes=0)
    borders = border_bytes(structure, leaving)
    return Liveness(weights_bytes(structure), activations, steps, borders, rules, found.contractions)


class _Lowered:
    """The trace's operations by kind, views seen as what they are views of, attention as what it consists of."""

    def __init__(self, structure: Structure, *, folded: bool) -> None:
        self.structure = structure
        self.trace = trace = structure.trace
        self.source: dict[int, int] = {}
        self.made: dict[int, Extent] = {}
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.operations: list[Operation] = []
        self.turned: set[int] = set()
        readers = Counter(value for step in trace.steps for value in step.inputs)
        readers.update(trace.outputs)
        convolved: set[int] = set()
        for step in trace.steps:
            given = [v for v in step.inputs if trace.values[v].from_input]
            inputs = tuple(self.root(v) for v in given)
            outputs = tuple(v for v in step.outputs if v is not None)
            joined = step.name == "cat" and len(inputs) == 1
            absorbed = folded and step.name in NORMS and inputs[0] in convolved and readers[step.inputs[0]] == 1
            still = bool(given) and self.moves_nothing(step)
            if free_because(trace, step) or joined or absorbed or still:
                if inputs:
                    self.source |= dict.fromkeys(outputs, inputs[0])
                    if still or self.turned.intersection(given):
                        self.turned.update(outputs)
                continue
            if step.name == "convolution":
                convolved.update(outputs)
            if ATTENTION in step.name:
                self.attend(step, outputs[0])
            elif step.name in CONTRACTIONS and len(given) > 1:
                *_, left, right = given
                self.operations += product(Factor(left, -1, -2), Factor(right, -2, -1), outputs[0], self)
            else:
                turned = tuple(root for v, root in zip(given, inputs, strict=True) if v in self.turned)
                kind = "turn" if self.moves_last(step) else _kind(step)
                self.operations.append(Operation(kind, inputs, outputs, turned))

    def moves_nothing(self, step: Step) -> bool:
        """Whether a permutation only moves a batch of one, or a slice, a pad or a repetition changes no size."""
        (before, *_), (after, *_) = step.inputs, step.outputs
        if after is None or step.name not in UNSEEN | PERMUTATIONS:
            return False
        sizes = self.trace.values[before].shape
        if step.name in UNSEEN:
            return sizes == self.trace.values[after].shape
        return keeps_order(permutation(step, len(sizes)), sizes)

    def moves_last(self, step: Step) -> bool:
        """Whether a step is a permutation that moves the last dimension."""
        if step.name not in PERMUTATIONS:
            return False
        rank = len(self.trace.values[step.inputs[0]].shape)
        return permutation(step, rank)[-1] != rank - 1

    def attend(self, step: Step, output: int) -> None:
        """Write attention as a product, a softmax, and a product; a mask is added between."""
        query, key, value = (argument.index for argument in step.args[:3])
        kept, seen = whole(self.structure, query), whole(self.structure, key)
        scores = self.make(replace(kept, coordinates=(*kept.coordinates[:-1], seen.coordinates[-2])))
        self.operations += product(Factor(query, -1, -2), Factor(key, -1, -2), scores, self)
        mask = step.args[3] if len(step.args) > 3 else step.kwargs.get("attn_mask")
        if isinstance(mask, Ref) and self.trace.values[mask.index].from_input:
            masked = self.copy(scores, {})
            self.operations.append(Operation("curve", (scores, self.root(mask.index)), (masked,)))
            scores = masked
        shares = self.copy(scores, {})
        self.operations.append(Operation("row", (scores,), (shares,)))
        self.operations += product(Factor(shares, -1, -2), Factor(value, -2, -1), output, self)

    def make(self, extent: Extent) -> int:
        """Number a tensor that is no value of the trace."""
        number = len(self.trace.values) + len(self.made)
        full = {group.name: group.size for group in self.structure.groups}
        self.made[number] = extent
        self.shapes[number] = tuple(coordinate.at(full) for coordinate in extent.coordinates)
        return number

    def copy(self, value: int, lengths: Mapping[int, int]) -> int:
        """Number a tensor like a value, but for some dimensions' lengths."""
        return self.make(self.extent(value).with_lengths(lengths))

    def length(self, value: int, dimension: int) -> int | None:
        """The length of a value's dimension, or None where it follows widths or is 1, and nothing has to be padded."""
        coordinate = self.extent(value).coordinates[dimension]
        return None if coordinate.terms or coordinate.constant == 1 else coordinate.constant

    def extent(self, value: int) -> Extent:
        """The sizes of a tensor."""
        return self.made[value] if value in self.made else whole(self.structure, value)

    def root(self, value: int) -> int:
        """The value of which this one is a view."""
        return self.source.get(value, value)


def permutation(step: Step, rank: int) -> list[int]:
    """Where a permutation takes each dimension of its result from."""
    if step.name == "permute":
        return [int(place) % rank for place in step.args[1]]
    order = list(range(rank))
    one, other = (int(place) % rank for place in step.args[1:3])
    order[one], order[other] = order[other], order[one]
    return order


def _kind(step: Step) -> Kind:
    name = step.name
    if name in CONTRACTIONS:
        return "contraction" if name == "convolution" else "product"
    for names, kind in KINDS:
        if name in names:
            return kind
    if name in GENERATED_POINTWISE or not is_elementwise(step):
        return "generated"
    return "pointwise" if name.rstrip("_") in {"relu", "add", "sigmoid"} else "curve"
