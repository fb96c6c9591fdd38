"""Units measured alone, as others fill their tables: each is cut out of a network's ONNX graph and timed as a network.

What it reads becomes an input; what others read of it becomes an output. The runtime then pays at both ends for layouts
that it would not change inside the whole network, and cannot fuse across the border.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, shape_inference

from benchmarks.fidelity_store import Isolated
from lut.records import MeasureConfig, Measurement, NetworkMeasurement, UnitSpec
from profiler.export import write_onnx
from profiler.inplace import Owners
from profiler.variants import Variants
from profiler.worker_client import WorkerClient

SHORTLY = MeasureConfig(
    warmup_s=0.005, min_time_s=0.02, max_time_s=0.03, min_samples=5, noise_target=0.01, timeout_s=30.0
)
"""For one unit: there are many."""
REFERENCE = MeasureConfig(min_time_s=0.1, max_time_s=0.4, min_samples=5)
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


def measure_isolated(
    variants: Variants,
    owners: Owners,
    client: WorkerClient,
    rows: Sequence[NetworkMeasurement],
    *,
    reference: Path,
    reference_ms: float,
    limit_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Isolated, list[Measurement]]:
    """Measure the units of some networks one by one, distinct ones once, until the time is over.

    Args:
        variants: of the network.
        owners: of its graph's values.
        client: measures.
        rows: whole networks at whose widths units are measured, the unpruned one first.
        reference: timed before the units of each network, so that the machine's drift can be divided out.
        reference_ms: its latency in the table's scale.
        limit_s: after this no unit is begun.
        clock: seconds.

    Returns:
        What was done, and the rows of a table, `place` "isolated".
    """
    started, found = clock(), Isolated()
    done: dict[UnitSpec, Measurement | None] = {}
    network = variants.network
    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        path = Path(folder, "unit.onnx")
        for row in rows:
            widths = dict(row.widths)
            drift = (client.time(reference, REFERENCE).median_ms or reference_ms) / reference_ms
            pieces = Pieces(variants.at(variants.widths_removal(widths)), owners)
            for spec, number in _new_specs(variants, widths, done):
                if clock() - started > limit_s:
                    found.seconds = clock() - started
                    return found, [made for made in done.values() if made is not None]
                done[spec] = _measure(pieces, number, spec, client, path, drift, found)
            found.networks += 1
            alone = [done[unit.spec(widths)] for unit in network.units]
            if row.units_ms and row.median_ms:
                total = sum(made.median_ms or 0.0 for made in alone if made is not None)
                found.sums.append([total, row.units_ms, row.median_ms])
    found.seconds = clock() - started
    return found, [made for made in done.values() if made is not None]


def _new_specs(
    variants: Variants, widths: Mapping[str, int], done: Mapping[UnitSpec, Measurement | None]
) -> Iterator[tuple[UnitSpec, int]]:
    """The units that were not measured yet at these widths, each once."""
    seen: set[UnitSpec] = set()
    for number, unit in enumerate(variants.network.units):
        spec = unit.spec(widths)
        if spec not in done and spec not in seen:
            seen.add(spec)
            yield spec, number


def _measure(
    pieces: Pieces, number: int, spec: UnitSpec, client: WorkerClient, path: Path, drift: float, found: Isolated
) -> Measurement | None:
    """Time one unit; None where there is nothing to time or it does not run alone, which is counted."""
    try:
        piece = pieces.cut_out(number)
    except KeyError as error:
        piece, reason = None, f"the shape of {error} is not known"
    else:
        reason = "it has no nodes of its own"
    if piece is not None:
        write_onnx(piece, path)
        reply = client.time(path, SHORTLY)
        if reply.failure is None and reply.median_ms:
            found.units += 1
            ms = reply.median_ms / drift
            return Measurement(spec, SHORTLY, reply.samples_ms, ms, min(reply.noise or 0.0, 1.0), place="isolated")
        reason = reply.failure or "no time came back"
    found.failed += 1
    found.reason = found.reason or f"{spec.family}: {reason}"
    return None
