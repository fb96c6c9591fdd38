"""Read the graph that OpenVINO really runs, and the operations of the network as it was given, into plain records.

What is there, seen with OpenVINO 2026.4.1 on the CPU. The ONNX reader names an operation after the ONNX node that it
makes (after its output where the node has no name), and tensors as in the file. Parts of a node that is taken apart are
`<node>/WithoutBiases` or `<Type>_<number>`; the numbers differ from one reading to the next. A node that runs lists the
operations that it was made of (`originalLayersNames`). Layout changes list none, and are called after their neighbours.
"""

from dataclasses import dataclass
from typing import Any

AFFINE = frozenset({"Add", "Subtract", "Multiply", "Divide"})


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


def _fact(op: Any, key: str) -> str:
    """One of the texts that a node of the runtime's graph carries."""
    fact = op.get_rt_info()[key]
    return str(getattr(fact, "value", fact))
