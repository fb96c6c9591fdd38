"""Which operations a compiler fuses into one kernel: only what passes between kernels is memory.

The rules are those of TensorRT for RTX, read from its own list of kernels (docs/memory.md). They speak of operations by
kind, so that a trace and an ONNX graph are fused by the same lines.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

Kind = Literal[
    "contraction", "attention", "pool", "library", "pointwise", "curve", "norm", "mean", "join", "split", "generated"
]
"""What an operation is to the compiler.

contraction: convolutions and matrix products; they absorb what follows element by element.
attention: as one operation, though it contracts twice; it is generated, and absorbs nothing.
pool, library: pooling, and resizing, which fuse with nothing.
pointwise: sums and ReLUs, which convolutions compute themselves.
curve, norm: all other functions of single elements; a BatchNorm that stands by itself is a norm.
mean: over space.
join, split: concatenation, and its opposite.
generated: all else that is written as a kernel for the occasion: permutations, softmax, layer norms.
"""


@dataclass(frozen=True)
class Operation:
    """One operation: the activations that it reads and writes, views seen as what they are views of."""

    kind: Kind
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(eq=False)
class Kernel:
    """Operations that run as one.

    Attributes:
        operations: their numbers, in the order in which they run.
        contracts: the first of them is a contraction.
        closed: nothing more joins it.
        generated: it is written for the occasion, and no library's.
        tail: the value at its end.
    """

    operations: list[int] = field(default_factory=list)
    contracts: bool = False
    closed: bool = False
    generated: bool = False
    tail: int = -1


class _Fuser:
    def __init__(self, operations: Sequence[Operation], leaving: Collection[int]) -> None:
        self.operations = operations
        self.leaving = leaving
        self.kernels: list[Kernel] = []
        self.maker: dict[int, Kernel] = {}
        self.readers: dict[int, list[int]] = defaultdict(list)
        for number, operation in enumerate(operations):
            for value in dict.fromkeys(operation.inputs):
                self.readers[value].append(number)

    def is_alone(self, value: int) -> bool:
        """Whether one operation reads the value and it does not leave the network."""
        return len(self.readers[value]) == 1 and value not in self.leaving

    def start(self, number: int, *, contracts: bool = False, closed: bool = False) -> None:
        kernel = Kernel(contracts=contracts, closed=closed, generated=not (contracts or closed))
        self.kernels.append(kernel)
        self.append(kernel, number)

    def append(self, kernel: Kernel, number: int) -> None:
        kernel.operations.append(number)
        outputs = self.operations[number].outputs
        kernel.tail = outputs[0]
        kernel.closed = kernel.closed or self.operations[number].kind == "split"
        for output in outputs:
            self.maker[output] = kernel

    def run(self, shapes: Mapping[int, tuple[int, ...]]) -> None:
        for number, operation in enumerate(self.operations):
            match operation.kind:
                case "contraction":
                    self.start(number, contracts=True)
                case "pool" | "library":
                    self.start(number, closed=True)
                case "pointwise" | "curve" | "norm":
                    self.follow(number, shapes)
                case "mean":
                    self.average(number)
                case _:
                    self.generate(number)

    def follow(self, number: int, shapes: Mapping[int, tuple[int, ...]]) -> None:
        """Put an operation behind a contraction that makes an operand of its shape for it alone.

        Of two such contractions the first takes their sum when one of them has a norm, else the last.
        """
        operation = self.operations[number]
        hosts = []
        for value in operation.inputs:
            kernel = self.maker.get(value)
            if kernel is None or kernel.closed or not kernel.contracts or kernel.tail != value:
                continue
            if self.is_alone(value) and prod(shapes[value]) == prod(shapes[operation.outputs[0]]):
                hosts.append(kernel)
        if hosts:
            normed = any("norm" in self.kinds(kernel) for kernel in hosts)
            self.append(hosts[0 if normed else -1], number)
        else:
            self.generate(number)

    def kinds(self, kernel: Kernel) -> list[Kind]:
        return [self.operations[member].kind for member in kernel.operations]

    def average(self, number: int) -> None:
        """A mean takes the norm or curve and what follows away from the convolution, and is computed with them."""
        value = self.operations[number].inputs[0]
        kernel = self.maker.get(value)
        if kernel is None or kernel.closed or kernel.tail != value:
            self.start(number)
            return
        if kernel.contracts:
            kinds = self.kinds(kernel)
            at = next((place for place, kind in enumerate(kinds) if kind in {"norm", "curve"}), None)
            if at is None:
                self.start(number)
                return
            followers = kernel.operations[at:]
            del kernel.operations[at:]
            kernel.tail, kernel.closed = self.operations[kernel.operations[-1]].outputs[0], True
            self.start(followers[0])
            for follower in followers[1:]:
                self.append(self.kernels[-1], follower)
            kernel = self.kernels[-1]
        self.append(kernel, number)
        kernel.closed = True

    def generate(self, number: int) -> None:
        """Merge the generated kernels that make an operand for this operation alone."""
        operation = self.operations[number]
        merged: list[Kernel] = []
        for value in dict.fromkeys(operation.inputs):
            kernel = self.maker.get(value)
            free = kernel is not None and not kernel.closed and not kernel.contracts and kernel.tail == value
            if kernel is not None and free and self.is_alone(value) and kernel not in merged:
                merged.append(kernel)
        if not merged:
            self.start(number)
            return
        host, *others = merged
        for other in others:
            for member in other.operations:
                self.append(host, member)
            self.kernels.remove(other)
        host.operations.sort()
        self.append(host, number)


def fuse(
    operations: Sequence[Operation], shapes: Mapping[int, tuple[int, ...]], leaving: Collection[int] = ()
) -> list[Kernel]:
    """Fuse operations, given in the order in which they run; `leaving` are the network's outputs."""
    fuser = _Fuser(operations, leaving)
    fuser.run(shapes)
    return fuser.kernels
