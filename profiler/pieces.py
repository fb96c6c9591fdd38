"""One unit of a network as a network of its own: cut out of the ONNX graph.

What it reads becomes an input; what others read of it becomes an output.
"""

from collections import defaultdict

import onnx
from onnx import TensorProto, shape_inference

from profiler.inplace import Owners

SMALL = 4096
"""Constants of fewer elements are needed to tell shapes (sizes, axes), and are kept for it."""


class Pieces:
    """One network's ONNX graph, ready to be taken apart."""

    def __init__(self, model: onnx.ModelProto, owners: Owners) -> None:
        """Sort nodes by unit and tell all shapes; the weights are not copied for it."""
        self.model = model
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.infos = _infer(model)
        self.nodes: dict[int, list[onnx.NodeProto]] = defaultdict(list)
        self.readers: dict[str, list[int]] = defaultdict(list)
        for node in model.graph.node:
            unit = next((owners.unit_of[name] for name in node.output if name in owners.unit_of), None)
            if unit is not None:
                self.nodes[unit].append(node)
            for name in node.input:
                self.readers[name].append(-1 if unit is None else unit)
        for value in model.graph.output:
            self.readers[value.name].append(-1)

    def cut_out(self, unit: int) -> onnx.ModelProto | None:
        """The unit as a network of its own; None where it has no nodes.

        Raises:
            KeyError: the shape of a value at its border is not known.
        """
        nodes = self.nodes.get(unit)
        if not nodes:
            return None
        made = [name for node in nodes for name in node.output if name]
        read = list(dict.fromkeys(name for node in nodes for name in node.input if name))
        entering = [name for name in read if name not in self.constants and name not in set(made)]
        leaving = [name for name in made if any(reader != unit for reader in self.readers.get(name, ()))]
        piece = onnx.ModelProto(ir_version=self.model.ir_version)
        piece.opset_import.extend(self.model.opset_import)
        piece.functions.extend(self.model.functions)
        piece.graph.name = "unit"
        piece.graph.node.extend(nodes)
        piece.graph.initializer.extend(self.constants[name] for name in read if name in self.constants)
        piece.graph.input.extend(self.infos[name] for name in entering)
        piece.graph.output.extend(self.infos[name] for name in leaving or made[-1:])
        return piece


def _infer(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Type and shape of every value, told from the graph with its large constants as inputs without contents."""
    bare = onnx.ModelProto(ir_version=model.ir_version)
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    bare.graph.name = "shapes"
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    for value in model.graph.output:
        bare.graph.output.add().name = value.name
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT and sum(tensor.dims) <= SMALL:
            bare.graph.initializer.append(tensor)
        else:
            bare.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    graph = shape_inference.infer_shapes(bare, data_prop=True).graph
    return {value.name: value for value in [*graph.input, *graph.value_info, *graph.output]}
