"""Joins the nodes that OpenVINO runs to the network as given and to the runtime's counters.

Nodes computed at loading (weights, shapes) are in the graph too. So are views, which only point into memory: their
implementation is "unknown". A layout change that changes nothing in memory is a plain "reorder", but so are some that
run.
"""

from collections.abc import Mapping, Sequence

from profiler.backends.interface import NodeTime
from profiler.backends.openvino_counters import ROUNDED_DOWN_US, split_means
from profiler.backends.openvino_graph import Operation, RunNode
from profiler.backends.origins import Origin, spread
from profiler.robust import midmean

OUTSIDE = frozenset({"Input", "Output", "Const"})
VIEWS = frozenset({"Reshape", "Split", "Concatenation", "Gather"})
"""Nodes that may only point into their neighbours' memory; others run even if their implementation is unknown."""
MOVES = frozenset({"Reorder", "Transpose", "Reshape", "Split", "Gather", "StridedSlice", "Broadcast", "Convert"})
"""Nodes that prepare data for the node that reads it; others follow the node that makes their input."""
WEIGHED = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
"""Nodes into whose weights and biases arithmetic with constants is folded."""
FOLDED = frozenset({"BatchNormInference", "Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"})
PART = "/WithoutBiases"
"""What the reader adds to a node's name for the part that its bias is added to."""


def to_times(
    nodes: Sequence[RunNode], given: Mapping[str, Operation], counters: Mapping[str, Sequence[int]], keep: Sequence[int]
) -> list[NodeTime]:
    """Give the nodes that run, with the times that the counters tell.

    Args:
        nodes: of the graph that runs.
        given: the operations of the network as given.
        counters: by the node's title, what its counter showed after each run; empty where nothing was run.
        keep: numbers of the runs to use, counted from 0.
    """
    names = _names(nodes, given)
    tensors = _tensors(nodes, names, given)
    origins = find_origins(nodes, given)
    times = []
    for place, runs in enumerate(find_running(nodes)):
        node = nodes[place]
        shown = counters.get(node.title, ())
        if not runs and not any(shown):
            continue
        each = split_means(shown) if shown else [0.0] * (1 + max(keep, default=0))
        samples = tuple((each[number] + ROUNDED_DOWN_US) * 1e-3 for number in keep)
        tensor, how = origins[place] or (None, None)
        inputs = tuple(tensors[maker][port] for maker, port in node.inputs)
        ms = midmean(samples) if samples else 0.0
        kernel = _kernel(nodes, place, given)
        times.append(NodeTime(names[place], node.layer, inputs, tensors[place], ms, samples, tensor, how, kernel))
    return times


def find_running(nodes: Sequence[RunNode]) -> list[bool]:
    """Tell for each node whether it does any work in a run."""
    constant: list[bool] = []
    running = []
    for node in nodes:
        sources = [constant[maker] for maker, _ in node.inputs]
        constant.append(node.layer == "Const" or (bool(sources) and all(sources)))
        implementation = node.primitive.rpartition("_")[0]
        idle = (
            constant[-1]
            or node.layer in OUTSIDE
            or (node.layer in VIEWS and implementation == "unknown")
            or (node.layer == "Reorder" and implementation == "reorder" and not _moves_memory(nodes, node))
        )
        running.append(not idle)
    return running


def find_origins(nodes: Sequence[RunNode], given: Mapping[str, Operation]) -> list[Origin | None]:
    """Tell for each node a tensor of the network as given that it helps to compute.

    Of several operations the first: a convolution that took up an addition is the one whose time this is, not the other
    branch that meets it there.
    """
    found: list[Origin | None] = []
    for node in nodes:
        known = [given[name] for name in node.originals if name in given and given[name].leads_to]
        first = min(known, key=lambda operation: operation.place, default=None)
        found.append((first.leads_to, "name") if first is not None and first.leads_to else None)
    before = [[maker for maker, _ in node.inputs] for node in nodes]
    after: list[list[int]] = [[] for _ in nodes]
    for place, makers in enumerate(before):
        for maker in makers:
            after[maker].append(place)
    for near in (
        [after[place] if node.layer in MOVES else before[place] for place, node in enumerate(nodes)],
        [before[place] if node.layer in MOVES else after[place] for place, node in enumerate(nodes)],
    ):
        spread(found, near)
    return found


def _moves_memory(nodes: Sequence[RunNode], node: RunNode) -> bool:
    """Whether a layout change moves anything: sizes of 1 can stand anywhere."""
    maker, port = node.inputs[0]
    shape = node.shapes[0]
    layouts = nodes[maker].layouts
    orders = (layouts[port] if port < len(layouts) else layouts[0], node.layouts[0])
    if any(not (order.isalpha() and order.islower() and len(order) == len(shape)) for order in orders):
        return True
    kept = ["".join(axis for axis in order if shape[ord(axis) - ord("a")] != 1) for order in orders]
    return kept[0] != kept[1]


def _names(nodes: Sequence[RunNode], given: Mapping[str, Operation]) -> list[str]:
    """Names that are the same at every compilation: the runtime's where it took them from the file, else made here."""
    named = {name for name, operation in given.items() if any(operation.tensors)}
    names = []
    count: dict[str, int] = {}
    for node in nodes:
        if node.layer in {"Input", "Output"} or node.title.removesuffix(PART) in named:
            names.append(node.title)
        else:
            count[node.layer] = count.get(node.layer, 0) + 1
            names.append(f"{node.layer} {count[node.layer]}")
    return names


def _tensors(nodes: Sequence[RunNode], names: Sequence[str], given: Mapping[str, Operation]) -> list[tuple[str, ...]]:
    """Name each node's outputs: as in the file where they are the same, else after the node."""
    leaving = {node.inputs[0]: given[node.title].tensors[0] for node in nodes if node.layer == "Output"}
    taken = set(leaving.values())
    found = []
    for place, (node, name) in enumerate(zip(nodes, names, strict=True)):
        made = [given[one] for one in node.originals if one in given and any(given[one].tensors)]
        last = max(made, key=lambda operation: operation.place, default=None)
        own = []
        for port in range(len(node.shapes)):
            tensor = last.tensors[port] if last is not None and port < len(last.tensors) else ""
            if (place, port) in leaving:
                own.append(leaving[place, port])
            elif tensor and tensor not in taken:
                taken.add(tensor)
                own.append(tensor)
            else:
                own.append(name if node.layer == "Input" else f"{name}:{port}")
        found.append(tuple(own))
    return found


def _kernel(nodes: Sequence[RunNode], place: int, given: Mapping[str, Operation]) -> str:
    """What the node runs: type, what is fused into it, implementation and layout."""
    node = nodes[place]
    known = [given[name] for name in node.originals if name in given]
    parts = [
        operation.kind
        for operation in known
        if operation.kind not in FOLDED and not (node.layer in WEIGHED and operation.affine)
    ]
    fused = "".join(f"+{kind}" for kind in parts if kind != node.layer)
    layout = ",".join(dict.fromkeys(node.layouts))
    if node.layer == "Reorder":
        maker, port = node.inputs[0]
        before = nodes[maker].layouts
        layout = f"{before[port] if port < len(before) else before[0]}>{layout}"
    return f"{node.layer}{fused}/{node.primitive}/{layout}"
