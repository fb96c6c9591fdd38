"""Joins ONNX Runtime's profile to the graph that it really ran, and that graph's nodes to the network as given.

What is there, seen with ONNX Runtime 1.32: one event a node and run (`cat` "Node", name `<node>_kernel_time`, or
`<operation>_<index>_kernel_time` for a node without a name; `dur` in whole microseconds, rounded down), in the order
of the optimised graph's file. Nodes in the blocked layout are called `<tensor>_nchwc`, after the tensor that they
made when their layout changed (`<tensor>_bn_nchwc` for a norm that became a depthwise convolution), and lose the
tensor's name in their outputs; fused ones are `<node>/<Fusion>/`; other nodes keep their outputs' names. Parts of
inlined functions have no name, or the name of the whole. Every time carries the profiler's own cost, about 3
microseconds here: a Reshape that moves nothing shows 3.5.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lut.errors import BackendError
from profiler.backends.interface import NodeTime
from profiler.backends.origins import Origin, spread
from profiler.robust import midmean

SUFFIX = "_kernel_time"
ROUNDED_DOWN_US = 0.5
"""Added to every time: the runtime cuts off the fraction of a microsecond, half of one on average."""
BLOCKED = "_nchwc"
MOVES = frozenset(
    {
        "ReorderInput",
        "Reshape",
        "Transpose",
        "Split",
        "Squeeze",
        "Unsqueeze",
        "Cast",
        "Expand",
        "Gather",
        "Slice",
        "Shape",
    }
)
"""Operations that prepare data for the node that reads it; other helpers follow the node that makes their input."""


def join_profile(profile: Path, optimised: Path, given: Path, keep: Sequence[int]) -> list[NodeTime]:
    """Give every node of the optimised graph its time in the runs to keep.

    Args:
        profile: the JSON file that `end_profiling` wrote.
        optimised: the ONNX file that the runtime wrote.
        given: the ONNX file that the runtime was given.
        keep: numbers of the runs to use, counted from 0; the one run that warms up at loading is not counted.

    Raises:
        BackendError: events and nodes do not fit together, as with control flow.
    """
    nodes = _read_nodes(optimised)
    events = [
        event
        for event in json.loads(profile.read_text())
        if event.get("cat") == "Node" and event["name"].endswith(SUFFIX)
    ]
    count = len(nodes)
    if not count or len(events) % count:
        raise BackendError(_mismatch(given, f"{len(events)} events for {count} nodes"))
    runs = [events[start : start + count] for start in range(0, len(events), count)][1:]
    for run in runs:
        for event, node in zip(run, nodes, strict=True):
            if not _fits(event, node):
                raise BackendError(
                    _mismatch(given, f"{event['name']} stands where {node.op_type} {node.name!r} should")
                )
    samples = [
        tuple((runs[number][place]["dur"] + ROUNDED_DOWN_US) * 1e-3 for number in keep) for place in range(count)
    ]
    return _to_times(nodes, given, samples)


def read_kernels(optimised: Path, given: Path) -> list[NodeTime]:
    """The nodes of an optimised graph, without times."""
    nodes = _read_nodes(optimised)
    return _to_times(nodes, given, [()] * len(nodes))


def _to_times(nodes: Sequence[Any], given: Path, samples: Sequence[tuple[float, ...]]) -> list[NodeTime]:
    times = []
    for node, own, origin in zip(nodes, samples, find_origins(nodes, _read_nodes(given)), strict=True):
        tensor, how = origin or (None, None)
        ms = midmean(own) if own else 0.0
        inputs, outputs = tuple(node.input), tuple(node.output)
        times.append(NodeTime(node.name, node.op_type, inputs, outputs, ms, own, tensor, how, _kernel(node)))
    return times


def find_origins(nodes: Sequence[Any], given: Sequence[Any]) -> list[Origin | None]:
    """Tell for each node of the optimised graph a tensor of the network as given that it helps to compute.

    Args:
        nodes: of the optimised graph; anything with `name`, `op_type`, `input` and `output`.
        given: of the network as given.
    """
    tensors = {name for node in given for name in node.output if name}
    by_node = {node.name: node.output[0] for node in given if node.name and node.output}
    found = [_own_origin(node, tensors, by_node) for node in nodes]
    maker = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    readers: dict[str, list[int]] = {}
    for place, node in enumerate(nodes):
        for name in node.input:
            readers.setdefault(name, []).append(place)
    before = [[maker[name] for name in node.input if name in maker] for node in nodes]
    after = [[place for name in node.output for place in readers.get(name, ())] for node in nodes]
    first = [after[place] if node.op_type in MOVES else before[place] for place, node in enumerate(nodes)]
    second = [before[place] if node.op_type in MOVES else after[place] for place, node in enumerate(nodes)]
    spread(found, first)
    spread(found, second)
    return found


def _own_origin(node: Any, tensors: set[str], by_node: dict[str, str]) -> Origin | None:
    """What the node's own name or outputs tell.

    The name comes first: a convolution that took up an addition writes the addition's tensor, but keeps its own name,
    and of the two branches that meet there it is the one whose time this is.
    """
    name = node.name
    if name.endswith(BLOCKED):
        for tensor in (name.removesuffix(BLOCKED), name.removesuffix(f"_bn{BLOCKED}")):
            if tensor in tensors:
                return tensor, "name"
    while name:
        if name in by_node:
            return by_node[name], "name"
        name = name.rpartition("/")[0]
    for output in node.output:
        if output in tensors:
            return output, "output"
    for output in node.output:
        if output in by_node:
            return by_node[output], "name"
    return None


def _kernel(node: Any) -> str:
    """What the node runs: operation, layout, the activation fused into it, and how many inputs it has."""
    layout = f"{node.domain.rpartition('.')[2]}." if node.domain else ""
    fused = "".join(f"+{a.s.decode()}" for a in node.attribute if a.name == "activation")
    return f"{layout}{node.op_type}{fused}/{sum(map(bool, node.input))}"


def _fits(event: dict[str, Any], node: Any) -> bool:
    if event["args"].get("op_name") != node.op_type:
        return False
    return not node.name or event["name"] == node.name + SUFFIX


def _mismatch(given: Path, found: str) -> str:
    return (
        f"ONNX Runtime's profile does not fit the graph of {given} ({found}). Networks with control flow (If, Loop, "
        "Scan) have no times in place; measure the whole network."
    )


def _read_nodes(path: Path) -> list[Any]:
    try:
        import onnx
    except ImportError as error:
        raise BackendError(
            f'Times in place need onnx ({error}). Install it: pip install "latprune[onnxruntime]"'
        ) from error
    return list(onnx.load(str(path), load_external_data=False).graph.node)
