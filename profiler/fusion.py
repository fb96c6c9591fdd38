"""Which operations a compiler fuses into one kernel: only what passes between kernels is memory.

The rules are those of TensorRT for RTX, read from its own list of kernels (docs/memory.md). They speak of operations by
kind, so that a trace and an ONNX graph are fused by the same lines.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal

Kind = Literal[
    "contraction",
    "product",
    "pool",
    "library",
    "pointwise",
    "curve",
    "norm",
    "mean",
    "join",
    "split",
    "row",
    "move",
    "turn",
    "pick",
    "generated",
]
"""What an operation is to the compiler.

contraction, product: convolutions, and matrix products; they absorb what follows element by element.
pool, library: pooling, and what else fuses with nothing: resizing, padding for a product.
pointwise: sums and ReLUs, which convolutions compute themselves.
curve, norm: all other functions of single elements; a BatchNorm that stands by itself is a norm.
mean: over space.
join, split: concatenation, and its opposite.
row: layer norms and softmax, which reduce each row and go over it again.
move, turn, pick: permutations and the like; those that move the last dimension; and what takes a part of one tensor.
generated: all else that is written as a kernel for the occasion.
"""


LARGE_PART = 80_000
"""Elements of a picked part from which on turning it once more is a kernel of its own: 68,992 are turned along with
the picking, 100,352 apart."""


@dataclass(frozen=True)
class Operation:
    """One operation: the activations that it reads and writes, views seen as what they are views of.

    Attributes:
        kind: what it is to the compiler.
        inputs, outputs: numbers of values.
        turned: those of the inputs that a permutation lies before, though it moves nothing: what makes them for this
            operation does not absorb it.
    """

    kind: Kind
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    turned: tuple[int, ...] = ()


@dataclass(eq=False)
class Kernel:
    """Operations that run as one.

    Attributes:
        operations: their numbers, in the order in which they run.
        contracts: the first of them is a contraction.
        closed: nothing more joins it.
        generated: it is written for the occasion, and no library's.
        tail: the value at its end, the last where it has several.
        tails: all values at its ends.
    """

    operations: list[int] = field(default_factory=list)
    contracts: bool = False
    closed: bool = False
    generated: bool = False
    tail: int = -1
    tails: set[int] = field(default_factory=set)


class _Fuser:
    def __init__(
        self, operations: Sequence[Operation], shapes: Mapping[int, tuple[int, ...]], leaving: Collection[int]
    ) -> None:
        self.operations = operations
        self.shapes = shapes
        self.leaving = leaving
        self.kernels: list[Kernel] = []
        self.maker: dict[int, Kernel] = {}
        self.picking: dict[int, Kernel] = {}
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
        operation = self.operations[number]
        kernel.operations.append(number)
        kernel.tail = operation.outputs[0]
        kernel.tails.difference_update(operation.inputs)
        kernel.tails.update(operation.outputs if operation.kind == "pick" else operation.outputs[:1])
        kernel.closed = kernel.closed or operation.kind == "split"
        for output in operation.outputs:
            self.maker[output] = kernel

    def run(self) -> None:
        for number, operation in enumerate(self.operations):
            match operation.kind:
                case "contraction" | "product":
                    self.start(number, contracts=True, closed=len(operation.outputs) > 1)
                case "pool" | "library":
                    self.start(number, closed=True)
                case "pointwise" | "curve" | "norm":
                    self.follow(number)
                case "mean":
                    self.average(number)
                case "pick":
                    self.pick(number)
                case _:
                    self.generate(number)

    def follow(self, number: int) -> None:
        """Put an operation behind a contraction that makes an operand of its shape for it alone.

        Of two such contractions the first takes their sum when one of them has a norm, else the last.
        """
        operation = self.operations[number]
        hosts = []
        for value in operation.inputs:
            kernel = self.maker.get(value)
            if kernel is None or kernel.closed or not kernel.contracts or kernel.tail != value:
                continue
            if value in operation.turned or (self.is_sum_of_maps(operation) and self.is_product(kernel)):
                continue
            if self.is_alone(value) and prod(self.shapes[value]) == prod(self.shapes[operation.outputs[0]]):
                hosts.append(kernel)
        if hosts:
            normed = any("norm" in self.kinds(kernel) for kernel in hosts)
            self.append(hosts[0 if normed else -1], number)
        else:
            self.generate(number)

    def is_product(self, kernel: Kernel) -> bool:
        """Whether a kernel is a matrix product."""
        return self.operations[kernel.operations[0]].kind == "product"

    def is_sum_of_maps(self, operation: Operation) -> bool:
        """Whether an operation joins several pictures, `[N, H, W, C]`, which no matrix product absorbs."""
        return len(operation.inputs) > 1 and len(self.shapes[operation.outputs[0]]) > 3

    def makes(self, kernel: Kernel, value: int) -> Kind:
        """What makes a value in a kernel."""
        return next(
            self.operations[number].kind for number in kernel.operations if value in self.operations[number].outputs
        )

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
        """Merge the generated kernels that make an operand for this operation alone.

        What reduces rows joins the kernel that makes its operand for others, too: the sum before a layer norm.
        """
        operation = self.operations[number]
        merged: list[Kernel] = []
        for value in dict.fromkeys(operation.inputs):
            kernel = self.maker.get(value)
            if kernel is not None and kernel not in merged and self.can_join(number, kernel, value):
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

    def can_join(self, number: int, kernel: Kernel, value: int) -> bool:
        """Whether an operation can run in the generated kernel that makes one of its operands."""
        operation = self.operations[number]
        if kernel.closed or kernel.contracts or value not in kernel.tails:
            return False
        others = [other for other in operation.inputs if self.maker.get(other) is not kernel]
        if len(kernel.tails) > 1 and others:
            return False  # what they are might be computed from another end
        if operation.kind in {"move", "turn"} and self.makes(kernel, value) == "row":
            return False
        if operation.kind == "turn" and self.turns_again(kernel, number):
            return False
        return self.is_alone(value) or (operation.kind == "row" and len(operation.inputs) == 1)

    def turns_again(self, kernel: Kernel, number: int) -> bool:
        """Whether a permutation turns a large part that a kernel has picked from what it had permuted: Swin's keys."""
        kinds = self.kinds(kernel)
        large = prod(self.shapes[self.operations[number].outputs[0]]) > LARGE_PART
        return large and "pick" in kinds and "move" in kinds[: kinds.index("pick")]

    def pick(self, number: int) -> None:
        """Let one kernel take apart what a product or a permutation makes, if it is read in no other way."""
        value = self.operations[number].inputs[0]
        kernel = self.maker.get(value)
        if value in self.picking:
            self.append(self.picking[value], number)
            return
        picked = all(self.operations[reader].kind == "pick" for reader in self.readers[value])
        if kernel is None or value in self.leaving or not picked:
            self.generate(number)
            return
        if not kernel.closed and not kernel.contracts and value in kernel.tails and self.makes(kernel, value) != "row":
            self.append(kernel, number)
            self.picking[value] = kernel
        elif kernel.contracts and self.is_product(kernel):
            self.start(number)
            self.picking[value] = self.kernels[-1]
        else:
            self.generate(number)


def keeps_order(places: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether a permutation only moves a first dimension of length 1: a batch of one, which lies as before.

    Args:
        places: where each dimension of the result comes from.
        sizes: before it.
    """
    batch = {place for place in (0, places[0]) if sizes[place] == 1} if places else set()
    left = [place for place in places if place not in batch]
    return left == sorted(left)


def settle(operations: Sequence[Operation]) -> list[Operation]:
    """See matrix products as a compiler does: those of one tensor run as one, and a split of one only picks parts."""
    readers: dict[int, list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.kind == "product" and len(operation.inputs) == 1:
            readers[operation.inputs[0]].append(operation)
    settled: list[Operation] = []
    products: set[int] = set()
    for operation in operations:
        if operation.kind == "product":
            products.update(operation.outputs)
            together = readers[operation.inputs[0]] if len(operation.inputs) == 1 else [operation]
            if operation is together[0]:
                settled.append(replace(operation, outputs=tuple(v for one in together for v in one.outputs)))
        elif operation.kind == "split" and products.issuperset(operation.inputs):
            settled.append(replace(operation, kind="pick"))
        else:
            settled.append(operation)
    return settled


def fuse(
    operations: Sequence[Operation], shapes: Mapping[int, tuple[int, ...]], leaving: Collection[int] = ()
) -> list[Kernel]:
    """Fuse operations, given in the order in which they run; `leaving` are the network's outputs."""
    fuser = _Fuser(operations, shapes, leaving)
    fuser.run()
    return fuser.kernels
