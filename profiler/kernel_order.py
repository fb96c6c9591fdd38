"""In which order a compiler runs kernels where a network has branches: read from TensorRT for RTX (docs/memory.md)."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from profiler.fusion import Operation

Node = TypeVar("Node", bound=Hashable)


def branch_order(operations: Sequence[Operation]) -> list[int]:
    """Number operations branch by branch: the place of each one, where of a value's readers the last comes first.

    It is the order in which the compiler takes a network's outputs; it is topological.
    """
    readers: dict[int, list[int]] = defaultdict(list)
    made = {value for operation in operations for value in operation.outputs}
    for number, operation in enumerate(operations):
        for value in dict.fromkeys(operation.inputs):
            readers[value].append(number)
    after = {
        number: [reader for value in operation.outputs for reader in readers[value]]
        for number, operation in enumerate(operations)
    }
    entries = [number for number, operation in enumerate(operations) if made.isdisjoint(operation.inputs)]
    found = finished(entries, after)[::-1]
    places = {number: place for place, number in enumerate(found)}
    return [places[number] for number in range(len(operations))]


def run_order(ends: Iterable[Node], operands: Mapping[Node, Sequence[Node]], costless: Collection[Node]) -> list[Node]:
    """Run what the ends need, end by end: of several operands the deepest is made first, of equally deep ones the last.

    Args:
        ends: what makes the network's outputs.
        operands: what each node needs, in order; without cycles.
        costless: nodes that add nothing to the depth: they become no kernel.
    """
    ends = list(ends)
    depth: dict[Node, int] = {}
    for node in finished(ends, operands):
        depth[node] = max((depth[before] for before in operands[node]), default=0) + (node not in costless)
    sought = {node: sorted(operands[node], key=depth.__getitem__)[::-1] for node in depth}
    return finished(ends, sought)


def finished(starts: Iterable[Node], edges: Mapping[Node, Sequence[Node]]) -> list[Node]:
    """All nodes that can be reached, depth first, each after all that it leads to."""
    found: list[Node] = []
    seen: set[Node] = set()
    for start in starts:
        if start in seen:
            continue
        seen.add(start)
        waiting = [(start, iter(edges[start]))]
        while waiting:
            node, ahead = waiting[-1]
            following = next((one for one in ahead if one not in seen), None)
            if following is None:
                waiting.pop()
                found.append(node)
            else:
                seen.add(following)
                waiting.append((following, iter(edges[following])))
    return found
