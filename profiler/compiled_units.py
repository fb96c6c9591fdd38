"""Put a compiler's kernels beside the ONNX nodes that it was given and the units that we cut, and see who agrees.

A kernel belongs to a set of nodes, and through them to a set of units. Where kernels belong to one unit alone, a time
of theirs would be that unit's; where they span units, or a unit is spread over several, that is told and named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import onnx
from onnx import shape_inference

from lut.errors import BackendError
from profiler.backends.interface import KernelRecord
from profiler.backends.trt_log import UNREAD
from profiler.fusion_record import Agreement, Fusion, PlacedKernel, UnitKernels
from profiler.inplace import Owners
from profiler.kernel_roles import pads_inside, role_of
from profiler.node_fates import VIEWS, constant_values, handed_over, hidden_nodes, node_fates
from profiler.variants import Variants


def node_units(variants: Variants, graph: onnx.GraphProto) -> dict[str, int]:
    """Tell which unit each node of a variant belongs to, also after a conversion to another precision.

    A node keeps its unit by its name, if its value is renamed: in the graph that it is a variant of, for the network as
    it is and as it becomes share names of nodes. What a conversion added belongs to the unit that reads it, else to the
    one that it comes from.

    Args:
        variants: of the network.
        graph: a variant of it, whose nodes have names of their own.
    """
    owners = Owners.of(variants).unit_of
    written = {name for node in graph.node for name in node.output}
    sources = [model.graph for model in (variants.base, variants.whole) if model is not None]
    source = max(sources, key=lambda one: sum(name in written for node in one.node for name in node.output))
    before = {node.name: owners[node.output[0]] for node in source.node if node.output[0] in owners}
    found: dict[str, int] = {}
    for node in graph.node:
        unit = next((owners[name] for name in node.output if name in owners), before.get(node.name))
        if unit is not None:
            found[node.name] = unit
    maker = {name: node.name for node in graph.node for name in node.output}
    read_by = {name: node.name for node in reversed(graph.node) for name in node.input}
    for node in reversed(graph.node):
        readers = [read_by[name] for name in node.output if name in read_by]
        unit = next((found[name] for name in readers if name in found), None)
        if node.name not in found and unit is not None:
            found[node.name] = unit
    for node in graph.node:
        makers = [maker[name] for name in node.input if name in maker]
        unit = next((found[name] for name in makers if name in found), None)
        if node.name not in found and unit is not None:
            found[node.name] = unit
    return found


def place_kernels(
    model: onnx.ModelProto, records: Sequence[KernelRecord], unit_of: Mapping[str, int]
) -> tuple[PlacedKernel, ...]:
    """Sort a compiler's kernels by role and by unit; those that only keep streams in step are left out.

    Args:
        model: what was compiled; its nodes have names of their own.
        records: the compiler's.
        unit_of: for each node its unit.

    Raises:
        BackendError: a kernel's line could not be read, or names a node that the graph does not have.
    """
    unread = [record for record in records if record.kind == UNREAD]
    if unread or not records:
        shown = f": {unread[0].name!r}" if unread else ""
        raise BackendError(
            f"The compiler's list of kernels cannot be read{shown}. Another version of TensorRT may write it otherwise "
            "than 1.7.1, from which it is known. Install that one: pip install tensorrt-rtx-cu13==1.7.1.116"
        )
    graph, counts = model.graph, _element_counts(model)
    constants = constant_values(graph)
    operations = {node.name: node.op_type for node in graph.node if not set(node.output) <= constants}
    nodes = {node.name: node for node in graph.node}
    strange = sorted({name for record in records for name in record.onnx_nodes} - nodes.keys())
    if strange:
        raise BackendError(
            f"The compiler's kernels name nodes that the network does not have: {', '.join(strange[:3])}."
        )
    borders = {value.name for value in [*graph.input, *graph.output]}
    hidden = hidden_nodes(graph, [record.onnx_nodes for record in records], handed_over(records))
    placed = []
    for number, record in enumerate(records):
        role = role_of(record, operations, borders)
        unnamed = tuple(name for name, kernel in hidden.items() if kernel == number)
        own = _units((*record.onnx_nodes, *unnamed), unit_of, operations)
        own_nodes = [nodes[name] for name in (*record.onnx_nodes, *unnamed)]
        reads = {counts[name] for node in own_nodes for name in node.input if name in counts}
        writes = {counts[name] for node in own_nodes for name in node.output if name in counts}
        pads = role == "padding" or (role == "work" and pads_inside(record, reads, writes))
        placed.append(PlacedKernel(record, role, own, pads, unnamed))
    return _charge_added([kernel for kernel in placed if kernel.role != "sync"])


def _element_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Numbers of elements of a graph's values; sizes that conversions may have left in it are told anew."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    graph = shape_inference.infer_shapes(bare).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {value.name: prod(size.dim_value for size in value.type.tensor_type.shape.dim) for value in values}


def _units(nodes: Sequence[str], unit_of: Mapping[str, int], operations: Mapping[str, str]) -> tuple[int, ...]:
    """The units that a kernel computes; a view in it is of another's result, unless there is nothing but views."""
    computed = [name for name in nodes if name in unit_of and name in operations]
    working = [name for name in computed if operations[name] not in VIEWS]
    return tuple(sorted({unit_of[name] for name in working or computed}))


def _charge_added(kernels: Sequence[PlacedKernel]) -> tuple[PlacedKernel, ...]:
    """Charge what no node tells of with the kernels that read it, or with that whose output it turns."""
    charged = []
    for kernel in kernels:
        if kernel.units:
            charged.append(kernel)
            continue
        written = {tensor.name for tensor in kernel.record.outputs}
        read = {tensor.name for tensor in kernel.record.inputs}
        beside = [other for other in kernels if any(tensor.name in written for tensor in other.record.inputs)]
        beside = beside or [other for other in kernels if any(tensor.name in read for tensor in other.record.outputs)]
        units = sorted({unit for other in beside for unit in other.units})
        charged.append(replace(kernel, units=tuple(units)))
    return tuple(charged)


def place_units(
    kernels: Sequence[PlacedKernel], names: Mapping[int, str], operations: Mapping[int, str]
) -> tuple[UnitKernels, ...]:
    """Tell what became of each unit.

    Args:
        kernels: sorted by role and unit.
        names: of the units by number.
        operations: their anchors'.
    """
    found = []
    for number, name in names.items():
        own = [at for at, kernel in enumerate(kernels) if number in kernel.units and kernel.role == "work"]
        added = [at for at, kernel in enumerate(kernels) if number in kernel.units and kernel.role != "work"]
        partners = dict.fromkeys(unit for at in own for unit in kernels[at].units if unit != number)
        agreement: Agreement = "gone"
        if own:
            one = len(own) == 1
            agreement = ("shared" if one else "spread") if partners else ("alone" if one else "several")
        others = tuple(names[unit] for unit in partners)
        found.append(UnitKernels(number, name, operations[number], agreement, tuple(own), tuple(added), others))
    return tuple(found)


def fusion_of(
    model: onnx.ModelProto, records: Sequence[KernelRecord], variants: Variants | None, without: Sequence[str] = ()
) -> Fusion:
    """Put a compiler's kernels beside the graph that it was given and the units that it was cut into.

    Args:
        model: what was compiled; its nodes have names of their own.
        records: the compiler's kernels.
        variants: of the network; None for a file of which no units are known.
        without: names of units that are there no more.

    Raises:
        BackendError: as `place_kernels`.
    """
    because = "no units are known of an ONNX file" if variants is None else variants.anew_because
    matched = variants if because is None else None
    unit_of = {} if matched is None else node_units(matched, model.graph)
    kernels = place_kernels(model, records, unit_of)
    covered = {name for kernel in kernels for name in kernel.record.onnx_nodes}
    units: tuple[UnitKernels, ...] = ()
    if matched is not None:
        left = {at: unit for at, unit in enumerate(matched.network.units) if unit.name not in set(without)}
        names = {at: unit.name for at, unit in left.items()}
        units = place_units(kernels, names, {at: unit.family.operation for at, unit in left.items()})
    hidden = {name for kernel in kernels for name in kernel.unnamed}
    return Fusion(len(model.graph.node), node_fates(model.graph, covered, hidden), kernels, units, because)
