"""Turn a runtime's per-node times of one whole run into rows of the table: each node's time goes to its unit.

A node is known by the graph's value that it writes or stems from; a value that no unit owns goes with the unit that
reads it. A unit's time is that of all the nodes it became, layout changes included.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from lut.records import MeasureConfig, Measurement, NetworkMeasurement
from profiler.backends.interface import NodeTime
from profiler.network import Network
from profiler.timing import midmean, relative_noise
from profiler.variants import Variants
from profiler.worker_client import NodesReply

SHORTEST_MS = 1e-4
"""What a unit that the runtime merged into its neighbours is priced at: the resolution of the times."""


@dataclass(frozen=True)
class Owners:
    """Which unit each value of the exported graph belongs to."""

    unit_of: Mapping[str, int]

    @staticmethod
    def of(variants: Variants) -> "Owners":
        """Read the owners off the matched values; a value in between belongs to the unit that reads it."""
        graph = variants.base.graph
        owner = variants.network.cut.owner
        found = {name: owner[value] for name, value in variants.value_of.items() if value in owner}
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


def unit_times(
    owners: Owners, nodes: Sequence[NodeTime], overhead_ms: float, units: int
) -> tuple[list[list[float]], float]:
    """Add up the nodes of each unit, run by run.

    Args:
        owners: of the exported graph's values.
        nodes: of the optimised graph.
        overhead_ms: what profiling itself added to each node.
        units: how many there are.

    Returns:
        For each unit its samples in milliseconds, and the time of nodes that no unit owns.
    """
    sums: dict[int, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
    unowned = 0.0
    for node in nodes:
        samples = np.maximum(np.asarray(node.samples_ms, dtype=np.float64) - overhead_ms, 0.0)
        unit = _unit_of(owners, node)
        if unit is None:
            unowned += float(np.median(samples)) if len(samples) else 0.0
            continue
        sums[unit] = sums[unit] + samples if unit in sums else samples
    return [sums[unit].tolist() if unit in sums else [] for unit in range(units)], unowned


def _unit_of(owners: Owners, node: NodeTime) -> int | None:
    names = [node.origin] if node.origin else []
    for name in [*names, *node.outputs, *node.inputs]:
        if name in owners.unit_of:
            return owners.unit_of[name]
    return None


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
    samples, _ = unit_times(owners, reply.nodes, reply.node_overhead_ms or 0.0, len(network.units))
    by_spec: dict[object, list[tuple[float, float, list[float]]]] = defaultdict(list)
    total = 0.0
    for unit, times in zip(network.units, samples, strict=True):
        median = max(midmean(times) / drift if times else 0.0, SHORTEST_MS)
        total += median
        noise = min(relative_noise(times), 1.0)
        by_spec[unit.spec(widths)].append((median, noise, times))
    rows = []
    for unit in network.units:
        spec = unit.spec(widths)
        for median, noise, times in by_spec.pop(spec, []):
            rows.append(
                Measurement(
                    spec,
                    config,
                    tuple(times),
                    median,
                    noise,
                    "in place",
                    clocks_mhz=reply.clocks_mhz,
                    discarded=reply.discarded,
                )
            )
    whole = NetworkMeasurement(
        network=network.hash,
        widths=key,
        config=config,
        samples_ms=tuple(reply.samples_ms),
        median_ms=reply.median_ms / drift,
        noise=reply.noise,
        units_ms=total,
        discarded=reply.discarded,
        precision=precision,
    )
    return whole, rows
