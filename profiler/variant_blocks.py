"""Take residual blocks out of an exported graph: what the addition keeps stands for its sum; what served it goes."""

from collections.abc import Iterable, Mapping

import onnx

from lut.errors import LatpruneError
from profiler.branches import Block
from profiler.trace import Trace

IDLE = frozenset({"Relu", "Clip"})
"""What steps that do nothing without a block are in a graph."""

UNCHANGED = frozenset("alias clone detach contiguous lift_fresh view _unsafe_view reshape expand _to_copy".split())
"""Operations whose result, where it has its source's shape, cannot be told from that by its contents."""


class UnfoundError(LatpruneError):
    """A block is not found in the exported graph."""


def take_out(graph: onnx.GraphProto, blocks: Iterable[Block], trace: Trace, value_of: Mapping[str, int]) -> None:
    """Take blocks out of a graph, in place; initialisers that nothing reads any more stay.

    Args:
        graph: of the network with the blocks, at any widths.
        blocks: of the network.
        trace: in which they were found.
        value_of: for each value of the graph that was recognised, the trace's value.

    Raises:
        UnfoundError: a block's addition is not found in the graph.
    """
    stands_for: dict[str, str] = {}
    for block in blocks:
        stands_for.update(_outlets(graph, block, trace, value_of))

    def settled(name: str) -> str:
        while name in stands_for:
            name = stands_for[name]
        return name

    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = settled(name)
    for output in graph.output:
        if output.name in stands_for:
            source = settled(output.name)
            del stands_for[output.name]
            if _lead_out(graph, source, output.name):
                stands_for[source] = output.name
    _drop_unread(graph)


def _outlets(graph: onnx.GraphProto, block: Block, trace: Trace, value_of: Mapping[str, int]) -> dict[str, str]:
    """The values that are no more without a block, and what stands for each."""
    added = trace.steps[block.step].outputs[0]
    assert added is not None
    found = [
        node for node in graph.node if node.op_type == "Add" and value_of.get(node.output[0]) == _first(trace, added)
    ]
    if len(found) != 1:
        raise UnfoundError(f"the graph has {len(found)} additions that could be that of {block.name}")
    node = found[0]
    kept = _kept(graph, node, _first(trace, block.kept), _first(trace, block.branch), value_of)
    if kept is None:
        raise UnfoundError(f"which operand {block.name} keeps cannot be told in the graph")
    outlets = {node.output[0]: kept}
    if block.idle:
        readers = [other for other in graph.node if node.output[0] in other.input]
        outlets.update((other.output[0], kept) for other in readers if other.op_type in IDLE)
    return outlets


def _first(trace: Trace, value: int) -> int:
    """The first value of the trace with these contents in this shape, which a graph's value is recognised as."""
    makers = {output: step for step in trace.steps for output in step.outputs if output is not None}
    while value in makers and makers[value].name in UNCHANGED and makers[value].inputs:
        source = makers[value].inputs[0]
        if trace.values[source].shape != trace.values[value].shape:
            break
        value = source
    return value


def _kept(
    graph: onnx.GraphProto, node: onnx.NodeProto, kept: int, branch: int, value_of: Mapping[str, int]
) -> str | None:
    """Which input of an addition stays: told by contents, or else it is the one that the other is computed from."""
    first, second = map(str, node.input)
    for one, other in ((first, second), (second, first)):
        if value_of.get(one) == kept and value_of.get(other) != kept:
            return one
        if value_of.get(other) == branch and value_of.get(one) != branch:
            return one
    above = [_above(graph, first), _above(graph, second)]
    if (second in above[0]) != (first in above[1]):
        return second if second in above[0] else first
    return None


def _above(graph: onnx.GraphProto, name: str) -> set[str]:
    """All values that a value is computed from."""
    makers = {output: node for node in graph.node for output in node.output}
    found: set[str] = set()
    waiting = [name]
    while waiting:
        node = makers.get(waiting.pop())
        for source in node.input if node is not None else ():
            if source not in found:
                found.add(source)
                waiting.append(source)
    return found


def _lead_out(graph: onnx.GraphProto, name: str, output: str) -> bool:
    """Let a value leave the graph under an output's name, which another had until now; whether it lost its own name."""
    for node in graph.node:
        for position, made in enumerate(node.output):
            if made == output:
                node.output[position] = f"{output}::gone"
    if not any(name in node.output for node in graph.node) or any(other.name == name for other in graph.output):
        graph.node.append(onnx.helper.make_node("Identity", [name], [output]))
        return False
    for node in graph.node:
        for names in (node.input, node.output):
            for position, each in enumerate(names):
                if each == name:
                    names[position] = output
    return True


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Drop the nodes that no output hangs on."""
    makers = {output: number for number, node in enumerate(graph.node) for output in node.output}
    needed: set[int] = set()
    waiting = [value.name for value in graph.output]
    while waiting:
        number = makers.get(waiting.pop())
        if number is not None and number not in needed:
            needed.add(number)
            waiting.extend(graph.node[number].input)
    for number in reversed(range(len(graph.node))):
        if number not in needed:
            del graph.node[number]
