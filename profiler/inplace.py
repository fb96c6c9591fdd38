"""Turn a runtime's per-node times of one whole run into rows of the table: each node is a kernel of its unit.

A node is known by the graph's value that it writes or stems from; a value that no unit owns goes with the unit that
reads it. A unit's time is that of all the nodes it became, layout changes included.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from lut.records import Form, MeasureConfig, Measurement, NetworkMeasurement, UnitSpec
from profiler.backends.interface import NodeTime
from profiler.network import Network
from profiler.robust import midmean, relative_noise
from profiler.variants import Variants
from profiler.worker_replies import NodesReply

SHORTEST_MS = 1e-4
"""What a unit that the runtime merged into its neighbours is priced at: the resolution of the times."""
MERGED = "merged"
"""The kernel of such a unit."""


@dataclass(frozen=True)
class Owners:
    """Which unit each value of the exported graphs belongs to."""

    unit_of: Mapping[str, int]

    @staticmethod
    def of(variants: Variants) -> "Owners":
        """Read the owners off the matched values; a value in between belongs to the unit that reads it."""
        owner = variants.network.cut.owner
        found = {name: owner[value] for name, value in variants.value_of.items() if value in owner}
        for graph in (model.graph for model in (variants.base, variants.whole) if model is not None):
            for node in reversed(graph.node):
                known = next((found[name] for name in node.output if name in found), None)
                if known is None:
                    known = next((found[r] for r in _read_by(graph, node) if r in found), None)
                if known is not None:
                    for name in node.output:
                        found.setdefault(name, known)
        return Owners(found)


def _read_by(graph: onnx.GraphProto, node: onnx.NodeProto) -> list[str]:
    made = set(node.output)
    return [output for other in graph.node if made & set(other.input) for output in other.output]


@dataclass(frozen=True)
class Kernel:
    """Nodes of one kind that the runtime made of one unit.

    Attributes:
        name: what they run; with a count where there are several.
        samples_ms: their sum, run by run; empty where they were not timed.
    """

    name: str
    samples_ms: tuple[float, ...]


def find_kernels(
    owners: Owners, nodes: Sequence[NodeTime], units: int, overhead_ms: float = 0.0
) -> tuple[list[list[Kernel]], float]:
    """Sort nodes by unit and kind, and add up their times run by run.

    Args:
        owners: of the exported graph's values.
        nodes: of the optimised graph.
        units: how many there are.
        overhead_ms: what profiling itself added to each node.

    Returns:
        The kernels of each unit, by name (a unit that the runtime merged into others has none), and the time of nodes
        that no unit owns.
    """
    found: list[dict[str, list[NodeTime]]] = [defaultdict(list) for _ in range(units)]
    unowned = 0.0
    for node in nodes:
        unit = _unit_of(owners, node)
        if unit is not None:
            found[unit][node.kernel or node.op_type].append(node)
        elif node.samples_ms:
            unowned += max(float(np.median(node.samples_ms)) - overhead_ms, 0.0)
    return [[_kernel(name, own, overhead_ms) for name, own in sorted(kinds.items())] for kinds in found], unowned


def _kernel(name: str, nodes: Sequence[NodeTime], overhead_ms: float) -> Kernel:
    samples = np.array([node.samples_ms for node in nodes], dtype=np.float64)
    sums = np.maximum(samples - overhead_ms, 0.0).sum(axis=0)
    return Kernel(name if len(nodes) == 1 else f"{name} ×{len(nodes)}", tuple(sums.tolist()))


def find_forms(network: Network, owners: Owners, nodes: Sequence[NodeTime]) -> dict[str, Form]:
    """What the runtime makes of each unit, by the unit's name."""
    kernels, _ = find_kernels(owners, nodes, len(network.units))
    return {
        unit.name: tuple(sorted(kernel.name for kernel in own)) or (MERGED,)
        for unit, own in zip(network.units, kernels, strict=True)
    }


def _unit_of(owners: Owners, node: NodeTime) -> int | None:
    names = [node.origin] if node.origin else []
    for name in [*names, *node.outputs, *node.inputs]:
        if name in owners.unit_of:
            return owners.unit_of[name]
    return None


@dataclass(frozen=True)
class CutCheck:
    """How the cut into units agrees with what the runtime ran, in numbers of units.

    Attributes:
        alone: one kernel each, as they were cut.
        several: more than one kernel each (layout changes, followers that were not fused).
        merged: no kernel of their own; the runtime computes them inside others, or not at all.
    """

    alone: int
    several: int
    merged: int

    @staticmethod
    def of(forms: Iterable[Form]) -> "CutCheck":
        """Count the forms of a network's units."""
        counts = Counter(
            "merged" if form == (MERGED,) else "alone" if _count(form) == 1 else "several" for form in forms
        )
        return CutCheck(counts["alone"], counts["several"], counts["merged"])

    def __str__(self) -> str:
        total = self.alone + self.several + self.merged
        return (
            f"the runtime runs {self.alone} of {total} units as one kernel each, {self.several} as several, and has "
            f"merged {self.merged} into others"
        )


def _count(form: Form) -> int:
    """How many kernels a form has."""
    return sum(int(name.rpartition(" ×")[2]) if " ×" in name else 1 for name in form)


def to_rows(
    network: Network, owners: Owners, widths: Mapping[str, int], reply: NodesReply, config: MeasureConfig, drift: float
) -> tuple[NetworkMeasurement, list[Measurement]]:
    """Make the network's measurement and its units' rows from one reply.

    Args:
        network: the unpruned one.
        owners: of the exported graph's values.
        widths: channels kept in the network that was measured.
        reply: the worker's, a failure too.
        config: how it was measured.
        drift: factor by which the machine was slow while measuring (its times are divided by it).
    """
    key = tuple(sorted(widths.items()))
    precision = network.units[0].family.precision if network.units else None
    if reply.failure is not None or reply.median_ms is None:
        failure = reply.failure or "no time came back"
        return NetworkMeasurement(network.hash, key, config, (), None, None, failure=failure, precision=precision), []
    kernels, _ = find_kernels(owners, reply.nodes, len(network.units), reply.node_overhead_ms or 0.0)
    rows = [
        _row(unit.spec(widths), own, reply, config, drift) for unit, own in zip(network.units, kernels, strict=True)
    ]
    whole = NetworkMeasurement(
        network=network.hash,
        widths=key,
        config=config,
        samples_ms=tuple(reply.samples_ms),
        median_ms=reply.median_ms / drift,
        noise=reply.noise,
        units_ms=sum(row.median_ms or 0.0 for row in rows),
        discarded=reply.discarded,
        precision=precision,
        forms=tuple((unit.name, row.form) for unit, row in zip(network.units, rows, strict=True)),
    )
    return whole, rows


def _row(
    spec: UnitSpec, kernels: Sequence[Kernel], reply: NodesReply, config: MeasureConfig, drift: float
) -> Measurement:
    """One unit's row: the sum of its kernels."""
    times = [max(midmean(kernel.samples_ms) / drift, SHORTEST_MS) for kernel in kernels]
    shares = tuple((kernel.name, ms) for kernel, ms in zip(kernels, times, strict=True)) or ((MERGED, SHORTEST_MS),)
    samples = tuple(np.sum([kernel.samples_ms for kernel in kernels], axis=0).tolist()) if kernels else ()
    return Measurement(
        spec=spec,
        config=config,
        samples_ms=samples,
        median_ms=sum(ms for _, ms in shares),
        noise=min(relative_noise(samples), 1.0),
        place="in place",
        clocks_mhz=reply.clocks_mhz,
        discarded=reply.discarded,
        kernels=shares,
    )
