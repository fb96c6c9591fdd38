"""Memory of an ONNX file from its graph alone: weights, the peak of live activations, workspace, and traffic."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import prod

import onnx
from onnx import helper, shape_inference

from lut.errors import LatpruneError
from lut.memory import Memory, MemoryRules
from lut.packing import live_peak
from profiler.fusion import Kind, Operation, keeps_order
from profiler.lifetimes import network_lifetimes
from profiler.products import Factor, product

POINTWISE = frozenset(
    "Relu Clip LeakyRelu Sigmoid HardSigmoid HardSwish Tanh Elu Selu Gelu Softplus Mish Add Mul Sub Div Max Min "
    "Cast CastLike Erf Sqrt Exp Neg Pow".split()
)
FOLLOWERS = POINTWISE | {"PRelu", "BatchNormalization", "Identity"}
"""Operations that a runtime runs in the memory of the one before them."""
UNSEEN = frozenset("Slice Pad Tile".split())
"""Operations that may leave a tensor as it is."""
VIEWS = frozenset("Reshape Squeeze Unsqueeze Flatten Identity Expand".split())
KINDS: dict[str, Kind] = {
    **dict.fromkeys(POINTWISE, "curve"),
    **dict.fromkeys(["Relu", "Add", "Sigmoid"], "pointwise"),
    **dict.fromkeys("Conv ConvTranspose".split(), "contraction"),
    **dict.fromkeys(["MatMul", "Gemm"], "product"),
    **dict.fromkeys(["MaxPool", "AveragePool"], "pool"),
    "Resize": "library",
    **dict.fromkeys(["ReduceMean", "GlobalAveragePool"], "mean"),
    "BatchNormalization": "norm",
    "Concat": "join",
    "Split": "split",
    **dict.fromkeys("Softmax LogSoftmax LayerNormalization RMSNormalization".split(), "row"),
    **dict.fromkeys("Transpose Pad Tile".split(), "move"),
    **dict.fromkeys(["Slice", "Gather"], "pick"),
}
"""What each operation is to a compiler; all others are generated."""

Tensors = list[tuple[str, int, int]]
"""Name, first and last step."""


def graph_memory(model: onnx.ModelProto, rules: MemoryRules | None = None) -> Memory:
    """Count the memory of a model with fixed shapes, run node after node, or as a compiler lays it out.

    Without a compiler's rules a follower that is the only reader of a tensor of its own shape writes over it, and a
    view takes no memory. Inputs and outputs of the network count in the traffic only.

    Raises:
        LatpruneError: the graph's shapes cannot be inferred.
    """
    graph = _Graph(model)
    tensors, scratch = (graph.in_order(), ()) if rules is None else graph.compiled()
    sizes = [graph.size(name) for name, _, _ in tensors]
    spans = [(first, last) for _, first, last in tensors]
    traffic = graph.weights_bytes + 2 * sum(sizes) + sum(graph.size(name) for name in graph.borders)
    if rules is None:
        return Memory(graph.weights_bytes, live_peak(sizes, spans), 0, traffic)
    workspace = rules.workspace_bytes if scratch else 0
    return Memory(graph.weights_bytes, rules.peak_bytes(sizes, spans, scratch), workspace, traffic)


_FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
)


class _Graph:
    """A model's nodes and the shapes of its values."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
        self.nodes = list(graph.node)
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        self.borders = set(self.inputs) | set(self.outputs)
        self.constants = {tensor.name for tensor in graph.initializer}
        self.weights_bytes = sum(
            prod(t.dims) * _item_bytes(t.data_type) for t in graph.initializer if t.data_type in _FLOATS
        )
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.items: dict[str, int] = {}
        for value in [*graph.value_info, *graph.input, *graph.output]:
            dims = value.type.tensor_type.shape.dim
            if all(d.HasField("dim_value") for d in dims):
                self.shapes[value.name] = tuple(d.dim_value for d in dims)
                self.items[value.name] = _item_bytes(value.type.tensor_type.elem_type)
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)

    def size(self, name: str) -> int:
        """Bytes of a value.

        Raises:
            LatpruneError: its shape is not fixed.
        """
        if name not in self.shapes:
            raise LatpruneError(f"The shape of {name} is not fixed; memory cannot be counted.")
        return prod(self.shapes[name]) * self.items[name]

    def data(self, node: onnx.NodeProto) -> list[str]:
        """A node's inputs that are no weights."""
        return [name for name in node.input if name and name not in self.constants]

    def in_order(self) -> Tensors:
        """The tensors of a runtime that runs node after node."""
        home: dict[str, str] = {}
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        for step, node in enumerate(self.nodes):
            data = self.data(node)
            for name in data:
                last[home.get(name, name)] = step
            for name in filter(None, node.output):
                written = self.writes_over(node, data)
                home[name] = home.get(written, written) if written else name
                first.setdefault(home[name], step)
                last[home[name]] = step
        return [(name, step, last[name]) for name, step in first.items() if name not in self.borders]

    def writes_over(self, node: onnx.NodeProto, data: list[str]) -> str | None:
        """The tensor in whose memory a node's output comes to lie, or None."""
        if node.op_type in VIEWS and data:
            return data[0]
        if node.op_type not in FOLLOWERS or len(node.output) != 1:
            return None
        size = self.size(node.output[0])
        fits = [n for n in data if len(self.readers[n]) == 1 and n not in self.borders and self.size(n) == size]
        return fits[-1] if fits else None

    def compiled(self) -> tuple[Tensors, tuple[int, ...]]:
        """The tensors that a compiler keeps, and the steps that use a workspace.

        Raises:
            LatpruneError: a shape is not fixed.
        """
        lowered = _Lowered(self)
        for value in {value for operation in lowered.operations for value in (*operation.inputs, *operation.outputs)}:
            self.size(lowered.names[value])
        leaving = {lowered.number[lowered.source.get(name, name)] for name in self.outputs}
        shapes = {lowered.number[name]: shape for name, shape in self.shapes.items() if name in lowered.number}
        inputs = [lowered.number[name] for name in self.inputs]
        found = network_lifetimes(lowered.operations, shapes, inputs, leaving)
        return [(lowered.names[life.value], life.first, life.last) for life in found.tensors], found.contractions

    def is_branch_of_activation(self, node: onnx.NodeProto, data: list[str]) -> bool:
        """Whether a node only goes to be joined with its own input again, as the sigmoid of `x * sigmoid(x)`."""
        origin, here = data[0], node
        while here.op_type in POINTWISE and len(here.output) == 1 and len(self.readers[here.output[0]]) == 1:
            (reader,) = self.readers[here.output[0]]
            if reader.op_type in POINTWISE and origin in reader.input:
                return len(data) == 1
            here = reader
        return False

    def order(self, node: onnx.NodeProto, rank: int) -> list[int]:
        """Where a permutation takes each dimension of its result from."""
        given = next((list(item.ints) for item in node.attribute if item.name == "perm"), None)
        return given or list(range(rank))[::-1]

    def moves_nothing(self, node: onnx.NodeProto, given: Sequence[str]) -> bool:
        """Whether a permutation only moves a batch of one, or a slice, a pad or a repetition changes no size."""
        if not {given[0], node.output[0]} <= self.shapes.keys():
            return False
        before = self.shapes[given[0]]
        if node.op_type == "Transpose":
            return keeps_order(self.order(node, len(before)), before)
        return node.op_type in UNSEEN and before == self.shapes[node.output[0]]

    def kind(self, node: onnx.NodeProto) -> Kind:
        """What a node is to a compiler."""
        rank = len(self.shapes.get(node.output[0], ()))
        if node.op_type == "Transpose" and rank and self.order(node, rank)[-1] != rank - 1:
            return "turn"
        return KINDS.get(node.op_type, "generated")


class _Lowered:
    """A graph's operations by kind, values by number, views seen as what they are views of."""

    def __init__(self, graph: _Graph) -> None:
        self.graph = graph
        made = (name for node in graph.nodes for name in node.output if name)
        self.names = list(dict.fromkeys([*graph.inputs, *made]))
        self.number = {name: index for index, name in enumerate(self.names)}
        self.source: dict[str, str] = {}
        self.turned: set[str] = set()
        self.operations: list[Operation] = []
        fixed = set(graph.constants)
        for node in graph.nodes:
            given = [name for name in node.input if name and name not in fixed]
            outputs = [name for name in node.output if name]
            if not given and node.op_type != "Expand":
                fixed.update(outputs)
            else:
                self.lower(node, given, outputs)

    def lower(self, node: onnx.NodeProto, given: list[str], outputs: list[str]) -> None:
        """Write down one node."""
        graph, data = self.graph, [self.source.get(name, name) for name in given]
        still = bool(given) and graph.moves_nothing(node, given)
        if data and (still or node.op_type in VIEWS or graph.is_branch_of_activation(node, data)):
            self.source |= dict.fromkeys(outputs, data[0])
            if still or given[0] in self.turned:
                self.turned.update(outputs)
        elif node.op_type == "MatMul" and len(data) == 2:
            left, right = (
                Factor(self.number[name], *places) for name, places in zip(given, ((-1, -2), (-2, -1)), strict=True)
            )
            self.operations += product(left, right, self.number[outputs[0]], self)
        else:
            inputs = tuple(self.number[name] for name in data)
            turned = tuple(number for name, number in zip(given, inputs, strict=True) if name in self.turned)
            self.operations.append(
                Operation(graph.kind(node), inputs, tuple(self.number[name] for name in outputs), turned)
            )

    def root(self, value: int) -> int:
        """The value of which this one is a view."""
        return self.number[self.source.get(self.names[value], self.names[value])]

    def length(self, value: int, dimension: int) -> int:
        """The length of a value's dimension.

        Raises:
            LatpruneError: the value's shape is not fixed.
        """
        self.graph.size(self.names[value])
        return self.graph.shapes[self.names[value]][dimension]

    def copy(self, value: int, lengths: Mapping[int, int]) -> int:
        """Number a tensor like a value, but for some dimensions' lengths."""
        number, like = len(self.names), self.names[value]
        name = f"{like}, copy {number}"
        shape = list(self.graph.shapes[like])
        for dimension, length in lengths.items():
            shape[dimension] = length
        self.graph.shapes[name], self.graph.items[name] = tuple(shape), self.graph.items[like]
        self.names.append(name)
        self.number[name] = number
        return number


def _item_bytes(kind: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
