"""What a compiler did with each node of an ONNX graph: a kernel, or a rule that says why it needs none.

What neither has a kernel nor falls under a rule is unaccounted for, and is named.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import onnx
from onnx import numpy_helper

from profiler.backends.interface import KernelRecord

Rule = Literal[
    "serves no output", "constant", "shape", "merged with its double", "inside a kernel", "view", "moved in place"
]
"""Why a node has no kernel.

serves no output: nothing that leaves the network depends on it.
constant: computed from weights and constants alone, once, while building.
shape: computes sizes, which are known while building.
merged with its double: another node computes the same from the same.
inside a kernel: one kernel computes what it reads and what reads it, or those that do hand over to each other, so one
    of them computes the node, too, unnamed.
view: the same elements in the same order under other sizes, or a padding by nothing.
moved in place: only moves elements; the kernels beside it write or read them where they belong.
"""
VIEWS = frozenset("Reshape Squeeze Unsqueeze Flatten Identity Dropout".split())
MOVES = frozenset("Transpose Expand Concat Split Slice DepthToSpace SpaceToDepth Tile".split())
TAKES = frozenset("Gather GatherElements GatherND".split())
"""Moves where what is taken is constant; else they look up."""
SIZES = frozenset("Shape Size".split())


def name_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a printable name of its own, and stands behind what it reads.

    Names that serve already stay. A compiler tells nodes by name, and calls those that have none or share one as it
    likes; converters leave nodes in any order.
    """
    named = onnx.ModelProto()
    named.CopyFrom(model)
    counts = Counter(node.name for node in model.graph.node)
    taken = set(counts)
    for number, node in enumerate(named.graph.node):
        if node.name and node.name.isprintable() and counts[node.name] == 1:
            continue
        name = f"{node.op_type}_{number}"
        while name in taken:
            name += "_"
        taken.add(name)
        node.name = name
    sort_nodes(named.graph)
    return named


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put nodes behind what they read; those that stand so already keep their order."""
    made = {name for node in graph.node for name in node.output if name}
    waiting = list(graph.node)
    done: set[str] = set()
    ordered: list[onnx.NodeProto] = []
    while waiting:
        left = []
        for node in waiting:
            if all(name in done or name not in made for name in node.input):
                ordered.append(node)
                done.update(node.output)
            else:
                left.append(node)
        if len(left) == len(waiting):
            raise ValueError("The graph has a cycle.")
        waiting = left
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)


def is_move(node: onnx.NodeProto, constants: Collection[str]) -> bool:
    """Whether a node puts elements of what it reads elsewhere and computes none.

    Args:
        node: any.
        constants: names of values that depend on no input.
    """
    if node.op_type in TAKES:
        return node.input[1] in constants and node.input[0] not in constants
    return node.op_type in VIEWS | MOVES


def hidden_nodes(
    graph: onnx.GraphProto, kernels: Sequence[Collection[str]], handed: Collection[tuple[int, int]] = ()
) -> dict[str, int]:
    """Nodes that no kernel names, though one must compute them: the number of that kernel.

    Kernels run one after the other, so what lies between two nodes of one kernel is computed in it. And what lies
    between nodes of kernels of which one hands over to the other is computed in one of these two; nothing tells in
    which, and it is put down to the one that reads, where the cut is least likely to have it.

    Args:
        graph: its nodes have names of their own and stand behind what they read.
        kernels: the nodes that each kernel names.
        handed: pairs of kernels of which the first writes a tensor that the second reads.
    """
    naming: dict[str, set[int]] = defaultdict(set)
    for number, names in enumerate(kernels):
        for name in names:
            naming[name].add(number)
    above: dict[str, set[int]] = defaultdict(set)
    below: dict[str, set[int]] = defaultdict(set)
    reached: dict[str, set[int]] = {}
    for node in graph.node:
        reached[node.name] = set().union(*(above[name] for name in node.input))
        for name in node.output:
            above[name] = naming.get(node.name) or reached[node.name]
    found: dict[str, int] = {}
    constants = constant_values(graph)
    for node in reversed(graph.node):
        reaches = set().union(*(below[name] for name in node.output))
        for name in node.input:
            below[name] |= naming.get(node.name) or reaches
        if node.name in naming or is_move(node, constants):
            continue
        made = reached[node.name]
        inside = reaches & made or {reader for reader in reaches if _hand_over(made, reader, handed)}
        if inside:
            found[node.name] = min(inside)
    return found


def _hand_over(makers: Collection[int], reader: int, handed: Collection[tuple[int, int]]) -> bool:
    """Whether all that the makers write goes to the reader, or first to another of them (one may pad for the next)."""
    return bool(makers) and all(any((maker, other) in handed for other in (reader, *makers)) for maker in makers)


def handed_over(records: Sequence[KernelRecord]) -> set[tuple[int, int]]:
    """Pairs of kernels, by number, of which the second reads what the first writes.

    Also where kernels lie between that name no node: the steps of a recurrent layer name none, whichever they compute.
    """
    writers: dict[str, set[int]] = defaultdict(set)
    makers: list[set[int]] = []
    for number, record in enumerate(records):
        direct = set().union(*(writers[tensor.name] for tensor in record.inputs))
        unnamed = {maker for maker in direct if not records[maker].onnx_nodes}
        makers.append(direct.union(*(makers[maker] for maker in unnamed)))
        for tensor in record.outputs:
            writers[tensor.name].add(number)
    return {(maker, number) for number, found in enumerate(makers) for maker in found}


def node_fates(
    graph: onnx.GraphProto, covered: Collection[str], hidden: Collection[str] = ()
) -> dict[str, Rule | None]:
    """Tell of each node without a kernel which rule explains that, or None.

    Args:
        graph: its nodes have names of their own and stand behind what they read.
        covered: names of the nodes that kernels say they became.
        hidden: names of those that kernels compute without naming them.
    """
    found = _Accountant(graph, {*covered, *hidden}).fates()
    inside: dict[str, Rule | None] = dict.fromkeys(hidden, "inside a kernel")
    return found | inside


class _Accountant:
    def __init__(self, graph: onnx.GraphProto, covered: Collection[str]) -> None:
        self.graph = graph
        self.covered = frozenset(covered)
        self.maker = {name: node for node in graph.node for name in node.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)
        self.leaving = {value.name for value in graph.output}
        self.constants = constant_values(graph)
        self.sizes = self._size_values()
        amounts = {node.name: node.input[1] for node in graph.node if node.op_type == "Pad" and len(node.input) > 1}
        given = {tensor.name: tensor for tensor in graph.initializer if tensor.name in amounts.values()}
        self.idle = {
            name for name, pads in amounts.items() if pads in given and not numpy_helper.to_array(given[pads]).any()
        }
        self.alive = self._alive()
        self.above: dict[str, bool] = {}
        self.below: dict[str, bool] = {}

    def fates(self) -> dict[str, Rule | None]:
        doubles: dict[bytes, list[str]] = defaultdict(list)
        for node in self.graph.node:
            doubles[_signature(node)].append(node.name)
        for node in self.graph.node:
            self.above[node.name] = self._is_moved(node) and all(map(self._comes, self._data(node)))
        for node in reversed(self.graph.node):
            self.below[node.name] = self._is_moved(node) and all(map(self._goes, node.output))
        return {
            node.name: self._rule(node, doubles[_signature(node)])
            for node in self.graph.node
            if node.name not in self.covered
        }

    def _rule(self, node: onnx.NodeProto, doubles: list[str]) -> Rule | None:
        if not self.alive & set(node.output):
            return "serves no output"
        if set(node.output) <= self.constants:
            return "constant"
        if set(node.output) <= self.sizes:
            return "shape"
        if self.covered & set(doubles):
            return "merged with its double"
        if self.above[node.name] and self.below[node.name]:
            return "view" if node.op_type in VIEWS or node.name in self.idle else "moved in place"
        return None

    def _data(self, node: onnx.NodeProto) -> list[str]:
        return [name for name in node.input if name and name not in self.constants and name not in self.sizes]

    def _is_moved(self, node: onnx.NodeProto) -> bool:
        return node.name not in self.covered and (is_move(node, self.constants) or node.name in self.idle)

    def _comes(self, value: str) -> bool:
        """Whether a value enters the network, or a kernel makes it and only moves lie between."""
        made = self.maker.get(value)
        return made is None or made.name in self.covered or self.above.get(made.name, False)

    def _goes(self, value: str) -> bool:
        """Whether a value leaves the network, or kernels read it and only moves lie between."""
        if value in self.leaving:
            return True
        readers = [node for node in self.readers[value] if self.alive & set(node.output)]
        return all(node.name in self.covered or self.below.get(node.name, False) for node in readers)

    def _size_values(self) -> frozenset[str]:
        found: set[str] = set()
        for node in self.graph.node:
            given = [name for name in node.input if name and name not in self.constants]
            if node.op_type in SIZES or (given and all(name in found for name in given)):
                found.update(node.output)
        return frozenset(found)

    def _alive(self) -> frozenset[str]:
        alive = set(self.leaving)
        for node in reversed(self.graph.node):
            if alive & set(node.output):
                alive.update(node.input)
        return frozenset(alive)


def constant_values(graph: onnx.GraphProto) -> frozenset[str]:
    """Names of values that depend on no input: initialisers, and what is computed from them alone."""
    entering = {value.name for value in graph.input}
    found = {tensor.name for tensor in graph.initializer} - entering
    found |= {tensor.values.name for tensor in graph.sparse_initializer}
    for node in graph.node:
        if node.op_type.startswith("Random") or any(name and name not in found for name in node.input):
            continue
        found.update(node.output)
    return frozenset(found)


def _signature(node: onnx.NodeProto) -> bytes:
    """Equal where two nodes compute the same from the same."""
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    plain.name = ""
    plain.doc_string = ""
    del plain.output[:]
    del plain.metadata_props[:]
    plain.attribute.sort(key=lambda attribute: attribute.name)
    return bytes(plain.SerializeToString(deterministic=True))


def count_fates(fates: Mapping[str, Rule | None]) -> dict[str, int]:
    """Count folded nodes by rule; those without one are not counted."""
    return dict(Counter(rule for rule in fates.values() if rule is not None))
