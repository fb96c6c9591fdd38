"""When each tensor stands in memory: the kernels of a fused network in the order in which they run."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from profiler.fusion import Kernel, Operation, fuse, settle
from profiler.kernel_order import branch_order, finished, run_order

CHANNELS_LAST = frozenset({"contraction", "pool"})
"""Kinds of operations that read and write pictures in this layout."""


@dataclass(frozen=True)
class Lifetime:
    """A tensor that stands in memory, and the times between which it does, both inclusive."""

    value: int
    first: int
    last: int


@dataclass(frozen=True)
class Timeline:
    """What stands in memory while a network runs.

    Attributes:
        tensors: in order of birth.
        contractions: the times at which kernels run that contract: they need a workspace.
    """

    tensors: tuple[Lifetime, ...]
    contractions: tuple[int, ...]


def lifetimes(
    operations: Sequence[Operation],
    shapes: Mapping[int, tuple[int, ...]],
    *,
    entering: Collection[int] = (),
    leaving: Collection[int] = (),
    turned: Collection[int] = (),
) -> Timeline:
    """Tell which tensors stand in memory when a compiler has fused a network, and when.

    Args:
        operations: in the order in which they run.
        shapes: of each value.
        entering: the network's inputs that are copied into another layout first.
        leaving: the network's outputs: they are the caller's memory.
        turned: those of them that a contraction or a pool makes in another layout, and which are copied out.
    """
    schedule = _Schedule(operations, shapes, leaving)
    spans = {value: (0, max(schedule.reads(value), default=0)) for value in entering}

    def extend(value: int, *times: int) -> None:
        spans[value] = (min(spans.get(value, times)[0], *times), max(spans.get(value, times)[-1], *times))

    for operation in schedule.operations:
        together = [time for value in operation.outputs for time in schedule.reads(value)]
        for value in operation.outputs:
            read = together if operation.kind == "product" else schedule.reads(value)
            born = schedule.time_made(value, read)
            home = schedule.homes.get(value, value)
            if value in leaving:
                if value in turned and schedule.is_channels_last(schedule.maker[value]):
                    extend(value, born, born + 1, *read)
            elif value in schedule.moved:
                extend(value, born, born + 1)
                extend(home, born + 1, *read)
            elif read or (value in schedule.homes and schedule.maker[value] in schedule.time):
                extend(home, born, *read)
    tensors = sorted((Lifetime(value, *span) for value, span in spans.items()), key=lambda life: life.first)
    return Timeline(tuple(tensors), tuple(time for kernel, time in schedule.time.items() if schedule.contracts(kernel)))


def network_lifetimes(
    operations: Sequence[Operation],
    shapes: Mapping[int, tuple[int, ...]],
    inputs: Sequence[int],
    leaving: Collection[int],
) -> Timeline:
    """The same for a network whose pictures, `[N, C, H, W]`, are turned to channels last at its ends."""
    turning = [operation for operation in operations if operation.kind in CHANNELS_LAST]
    turned = {value for operation in turning for value in operation.inputs}
    return lifetimes(
        operations,
        shapes,
        entering=[v for v in inputs if v in turned and len(shapes[v]) == 4 and shapes[v][1] > 1],
        leaving=leaving,
        turned={v for v in leaving if len(shapes[v]) == 4},
    )


class _Schedule:
    """The kernels in order of their running: output by output, of what one of them needs the deepest first.

    Kernels run at even times; at the odd ones before them tensors are copied out of those that they are parts of, or
    into them. Concatenations of what kernels make need no kernel: they are written in place.
    """

    def __init__(
        self, operations: Sequence[Operation], shapes: Mapping[int, tuple[int, ...]], leaving: Collection[int]
    ) -> None:
        self.operations = operations = settle(operations)
        self.shapes = shapes
        self.leaving = leaving
        kernels = fuse(operations, shapes, leaving)
        self.runs_in = {number: kernel for kernel in kernels for number in kernel.operations}
        self.maker = {v: self.runs_in[n] for n, operation in enumerate(operations) for v in operation.outputs}
        self.readers: dict[int, list[int]] = defaultdict(list)
        for number, operation in enumerate(operations):
            for value in dict.fromkeys(operation.inputs):
                self.readers[value].append(number)
        self.homes: dict[int, int] = {}
        self.written: dict[int, list[int]] = {}
        self.moved: set[int] = set()
        self.needless = {kernel for kernel in kernels if self.is_only(kernel, "split")}
        for kernel in kernels:
            if self.is_only(kernel, "join"):
                self.place_parts(kernel)
        self.time = {kernel: 2 * number + 2 for number, kernel in enumerate(self.in_order(kernels))}

    def is_channels_last(self, kernel: Kernel) -> bool:
        return self.operations[kernel.operations[0]].kind in CHANNELS_LAST

    def contracts(self, kernel: Kernel) -> bool:
        return kernel.contracts

    def is_only(self, kernel: Kernel, kind: str) -> bool:
        return {self.operations[number].kind for number in kernel.operations} == {kind}

    def parts(self, kernel: Kernel, value: int) -> list[int]:
        """What a concatenation, or one of concatenations, consists of, in order."""
        if self.maker.get(value) is not kernel:
            return [value]
        (join,) = (o for o in (self.operations[number] for number in kernel.operations) if value in o.outputs)
        return [part for given in join.inputs for part in self.parts(kernel, given)]

    def place_parts(self, kernel: Kernel) -> None:
        """Let what goes into a concatenation be written straight there, unless it was generated or leaves.

        A sum is written where its operand of the same shape lies; where that is elsewhere, the sum is copied.
        """
        home = kernel.tail
        parts = self.parts(kernel, home)
        if home in self.leaving or any(v not in self.maker or self.maker[v].generated for v in parts):
            return
        self.needless.add(kernel)
        self.written[home] = [value for value in dict.fromkeys(parts) if value not in self.homes]
        for value in self.written[home]:
            self.homes[value] = home
            added = {v for n in self.maker[value].operations[1:] for v in self.operations[n].inputs}
            outside = {v for v in added if v in self.maker and self.maker[v] is not self.maker[value]}
            if any(prod(self.shapes[v]) == prod(self.shapes[value]) and self.homes.get(v) != home for v in outside):
                self.moved.add(value)

    def in_order(self, kernels: Sequence[Kernel]) -> Iterator[Kernel]:
        places = branch_order(self.operations)
        ends = [kernel for kernel in kernels if any(v in self.leaving for v in self.made(kernel))]
        ends.sort(key=lambda kernel: max(places[number] for number in kernel.operations))
        operands = {kernel: self.makers(kernel) for kernel in kernels}
        for parts in self.written.values():
            self.write_in_turn(parts, operands)
        unread = [kernel for kernel in reversed(kernels) if kernel not in ends]
        order = run_order([*ends, *unread], operands, self.needless)
        return (kernel for kernel in order if kernel not in self.needless)

    def write_in_turn(self, parts: Sequence[int], operands: dict[Kernel, list[Kernel]]) -> None:
        """Let a concatenation be written from its last part to its first, unless a later one needs an earlier."""
        writers = list(dict.fromkeys(self.maker[value] for value in parts))
        for one, later in pairwise(writers):
            if one not in finished([later], operands):
                operands[one] = [*operands[one], later]

    def made(self, kernel: Kernel) -> list[int]:
        return [value for number in kernel.operations for value in self.operations[number].outputs]

    def makers(self, kernel: Kernel) -> list[Kernel]:
        """The kernels that make what a kernel reads."""
        values = [value for number in kernel.operations for value in self.operations[number].inputs]
        found = dict.fromkeys(self.maker[value] for value in values if value in self.maker)
        return [maker for maker in found if maker is not kernel]

    def reads(self, value: int) -> list[int]:
        """When kernels other than its own read a value; of one that is taken apart, when its parts are copied out."""
        found: list[int] = []
        for number in self.readers[value]:
            kernel = self.runs_in[number]
            if kernel is self.maker.get(value):
                continue
            if kernel not in self.needless:
                found.append(self.time[kernel])
            elif self.operations[number].kind == "split":
                parts = [self.reads(part) for part in self.operations[number].outputs]
                found += [min(part) - 1 for part in parts if part]
        return found

    def time_made(self, value: int, read: Sequence[int]) -> int:
        kernel = self.maker[value]
        return self.time[kernel] if kernel in self.time else min(read, default=1) - 1
