"""Reads the graph that OpenVINO really runs, and joins its nodes to the network as given and to the runtime's counters.

What is there, seen with OpenVINO 2026.4.1 on the CPU. The ONNX reader names an operation after the ONNX node that it
makes (after its output where the node has no name), and tensors as in the file. Parts of a node that is taken apart are
`<node>/WithoutBiases` or `<Type>_<number>`; the numbers differ from one reading to the next. A node that runs lists the
operations that it was made of (`originalLayersNames`). Layout changes list none, and are called after their neighbours.

Nodes computed at loading (weights, shapes) are in the graph too. So are views, which only point into memory: their
implementation is "unknown". A layout change that changes nothing in memory is a plain "reorder", but so are some that
run. A counter of 0 does not tell that a node was not run: it is the mean of all runs so far in microseconds, rounded
down twice, each run's time and the mean.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from profiler.backends.interface import NodeTime
from profiler.backends.origins import Origin, spread
from profiler.robust import midmean

ROUNDED_DOWN_US = 0.5
"""Added to every run's time: the runtime cuts off the fraction of a microsecond, half of one on average."""
OUTSIDE = frozenset({"Input", "Output", "Const"})
VIEWS = frozenset({"Reshape", "Split", "Concatenation", "Gather"})
"""Nodes that may only point into their neighbours' memory; others run even if their implementation is unknown."""
MOVES = frozenset({"Reorder", "Transpose", "Reshape", "Split", "Gather", "StridedSlice", "Broadcast", "Convert"})
"""Nodes that prepare data for the node that reads it; others follow the node that makes their input."""
WEIGHED = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
"""Nodes into whose weights and biases arithmetic with constants is folded."""
FOLDED = frozenset({"BatchNormInference", "Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"})
AFFINE = frozenset({"Add", "Subtract", "Multiply", "Divide"})
PART = "/WithoutBiases"
"""What the reader adds to a node's name for the part that its bias is added to."""


@dataclass(frozen=True)
class Operation:
    """One operation of the network as OpenVINO reads it.

    Attributes:
        place: in an order in which they can run.
        kind: OpenVINO's type ("Convolution", "Relu" …).
        tensors: the ONNX file's name of each output, or "" for a part of an operation that is taken apart.
        leads_to: the first named tensor that the operation helps to compute, itself if it has one; None for constants.
        affine: arithmetic of one tensor with constants.
    """

    place: int
    kind: str
    tensors: tuple[str, ...]
    leads_to: str | None
    affine: bool


@dataclass(frozen=True)
class RunNode:
    """One node of the graph that runs.

    Attributes:
        title: OpenVINO's name for it.
        layer: the type ("Convolution", "Reorder" …).
        primitive: the implementation ("brgconv_avx512_f32" …).
        layouts: of the outputs.
        originals: names of the operations that it was made of.
        inputs: for each, the place of the node that makes it and the number of that node's output.
        shapes: of the outputs, -1 for a size that varies.
    """

    title: str
    layer: str
    primitive: str
    layouts: tuple[str, ...]
    originals: tuple[str, ...]
    inputs: tuple[tuple[int, int], ...]
    shapes: tuple[tuple[int, ...], ...]


def read_operations(model: Any) -> dict[str, Operation]:
    """Read the operations of an `openvino.Model` as read from an ONNX file, by name."""
    ordered = model.get_ordered_ops()
    wanted = {name for port in model.outputs for name in port.get_names()}
    constant: dict[str, bool] = {}
    affine: dict[str, bool] = {}
    for op in ordered:
        sources = [constant[port.get_source_output().get_node().get_friendly_name()] for port in op.inputs()]
        kind, name = op.get_type_name(), op.get_friendly_name()
        constant[name] = kind in {"Constant", "ShapeOf"} or (bool(sources) and all(sources))
        affine[name] = kind in AFFINE and any(sources)
    leads_to: dict[str, str | None] = {}
    tensors: dict[str, tuple[str, ...]] = {}
    for op in reversed(ordered):
        name = op.get_friendly_name()
        own = [sorted(port.get_names(), key=lambda tensor: (tensor not in wanted, tensor)) for port in op.outputs()]
        tensors[name] = tuple(names[0] if names else "" for names in own)
        readers = [
            port.get_node().get_friendly_name() for output in op.outputs() for port in output.get_target_inputs()
        ]
        reached = [*tensors[name], *(leads_to.get(reader) for reader in readers)]
        leads_to[name] = None if constant[name] else next((tensor for tensor in reached if tensor), None)
    found = {}
    for place, op in enumerate(ordered):
        name = op.get_friendly_name()
        if op.get_type_name() != "Parameter":
            found[name] = Operation(place, op.get_type_name(), tensors[name], leads_to[name], affine[name])
    return found


def read_graph(model: Any) -> list[RunNode]:
    """Read the nodes of a compiled model's `get_runtime_model()`, in the order in which they run."""
    ordered = sorted(model.get_ordered_ops(), key=lambda op: int(_fact(op, "execOrder")))
    places = {op.get_friendly_name(): place for place, op in enumerate(ordered)}
    nodes = []
    for op in ordered:
        sources = [port.get_source_output() for port in op.inputs()]
        nodes.append(
            RunNode(
                title=op.get_friendly_name(),
                layer=_fact(op, "layerType"),
                primitive=_fact(op, "primitiveType"),
                layouts=tuple(_fact(op, "outputLayouts").split(",")),
                originals=tuple(filter(None, _fact(op, "originalLayersNames").split(","))),
                inputs=tuple((places[one.get_node().get_friendly_name()], one.get_index()) for one in sources),
                shapes=tuple(
                    tuple(-1 if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
                    for port in op.outputs()
                ),
            )
        )
    return nodes


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


def split_means(means: Sequence[int]) -> list[float]:
    """Tell what each run took from the means of all runs so far.

    After k runs the sum of whole microseconds is one of `k * mean … k * mean + k - 1`. The evenest course through all
    of these is taken (a string pulled tight through them): runs are told apart as far as the means tell, no further,
    and their sum is right.

    Args:
        means: after each run, rounded down.

    Returns:
        For each run its whole microseconds, on average; never negative.
    """
    taken: list[float] = []
    total = 0.0
    while len(taken) < len(means):
        start = len(taken)
        low, high, low_end, high_end = 0.0, math.inf, start + 1, start + 1
        for count in range(start + 1, len(means) + 1):
            least = (count * means[count - 1] - total) / (count - start)
            most = least + (count - 1) / (count - start)
            if least > high:
                pace, end = high, high_end
                break
            if most < low:
                pace, end = low, low_end
                break
            if least >= low:
                low, low_end = least, count
            if most <= high:
                high, high_end = most, count
        else:
            pace, end = (low + high) / 2, len(means)
        taken += [pace] * (end - start)
        total += pace * (end - start)
    return taken


def _fact(op: Any, key: str) -> str:
    """One of the texts that a node of the runtime's graph carries."""
    fact = op.get_rt_info()[key]
    return str(getattr(fact, "value", fact))


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
