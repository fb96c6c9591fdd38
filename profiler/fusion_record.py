"""What a compiler made of a network: its kernels with what each is there for, and what became of each unit."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from profiler.backends.interface import KernelRecord
from profiler.kernel_roles import Role, padded_sizes
from profiler.node_fates import Rule, count_fates

Agreement = Literal["alone", "several", "shared", "spread", "gone"]
"""How the kernels agree with a unit as it was cut.

alone: one kernel computes the unit and nothing else.
several: more than one, all of them the unit's alone.
shared: one kernel computes the unit together with others: the compiler fuses further than the cut.
spread: more than one, and some compute other units, too.
gone: none; the unit only moves data, or is computed while building. It bears no time.
"""
AGREES = frozenset({"alone", "several"})


@dataclass(frozen=True)
class PlacedKernel:
    """A kernel with what it is there for.

    Attributes:
        record: the compiler's.
        role: work, or what the compiler added.
        units: numbers of the units that it works for; one that was added works for those that read it.
        pads: it pads or cuts padding off, alone or along the way.
        unnamed: nodes that it computes without naming them.
    """

    record: KernelRecord
    role: Role
    units: tuple[int, ...]
    pads: bool
    unnamed: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[int, int] | None:
        """The size before and after, of a kernel that only pads."""
        return padded_sizes(self.record) if self.role == "padding" else None


@dataclass(frozen=True)
class UnitKernels:
    """What became of one unit.

    Attributes:
        number: of the unit in the network.
        name: the unit's.
        operation: its anchor's.
        agreement: of the compiler's fusion with the cut.
        kernels: numbers of the kernels that compute it.
        added: numbers of padding and reformatting kernels that work for it.
        partners: names of the other units in its kernels.
    """

    number: int
    name: str
    operation: str
    agreement: Agreement
    kernels: tuple[int, ...]
    added: tuple[int, ...]
    partners: tuple[str, ...]


@dataclass(frozen=True)
class Fusion:
    """What a compiler made of a network.

    Attributes:
        nodes: of the ONNX graph that was compiled, how many.
        folded: for each node without a kernel the rule that explains it, or None.
        kernels: in the order in which they run, without those that keep streams in step.
        units: empty where nodes could not be matched with units.
        units_because: why `units` is empty, or None.
        streams: kernels on each stream, where the compiler may use several; empty where that was not asked.
    """

    nodes: int
    folded: Mapping[str, Rule | None]
    kernels: tuple[PlacedKernel, ...]
    units: tuple[UnitKernels, ...]
    units_because: str | None = None
    streams: Mapping[int, int] = field(default_factory=dict)

    @property
    def covered(self) -> int:
        """Nodes that kernels name."""
        return self.nodes - len(self.folded)

    @property
    def unaccounted(self) -> tuple[str, ...]:
        """Nodes that neither a kernel nor a rule accounts for."""
        return tuple(name for name, rule in self.folded.items() if rule is None)

    @cached_property
    def bearing(self) -> tuple[UnitKernels, ...]:
        """Units that bear time: those that have a kernel."""
        return tuple(unit for unit in self.units if unit.agreement != "gone")

    @property
    def agreeing(self) -> float | None:
        """Share of the units that bear time whose kernels compute nothing else; None where there are none."""
        return sum(unit.agreement in AGREES for unit in self.bearing) / len(self.bearing) if self.bearing else None

    def count(self, role: Role) -> int:
        """Kernels of one role."""
        return sum(kernel.role == role for kernel in self.kernels)

    def patterns(self) -> dict[str, int]:
        """Kernels that span units: the operations of these units, in order, and how often; the commonest first."""
        of = {unit.number: unit.operation for unit in self.units}
        spans = [kernel.units for kernel in self.kernels if kernel.role == "work" and len(kernel.units) > 1]
        return dict(Counter(_run_lengths([of[number] for number in span]) for span in spans).most_common())

    def to_json(self) -> dict[str, Any]:
        """What there is to tell, as plain JSON."""
        names = {unit.number: unit.name for unit in self.units}
        return {
            "nodes": self.nodes,
            "nodes_covered": self.covered,
            "nodes_folded": count_fates(self.folded),
            "nodes_unaccounted": list(self.unaccounted),
            "kernels": [
                {
                    "name": kernel.record.name,
                    "kind": kernel.record.kind,
                    "role": kernel.role,
                    "pads": kernel.pads,
                    "sizes": kernel.sizes,
                    "stream": kernel.record.stream,
                    "nodes": list(kernel.record.onnx_nodes),
                    "units": [names[number] for number in kernel.units],
                    "inputs": [list(tensor.shape) for tensor in kernel.record.inputs],
                    "outputs": [list(tensor.shape) for tensor in kernel.record.outputs],
                }
                for kernel in self.kernels
            ],
            "units": [
                {
                    "name": unit.name,
                    "operation": unit.operation,
                    "agreement": unit.agreement,
                    "kernels": list(unit.kernels),
                    "added": list(unit.added),
                    "partners": list(unit.partners),
                }
                for unit in self.units
            ],
            "units_because": self.units_because,
            "agreeing": self.agreeing,
            "agreements": dict(Counter(unit.agreement for unit in self.units)),
            "patterns": self.patterns(),
            "streams": {str(stream): count for stream, count in self.streams.items()},
        }


def _run_lengths(words: Sequence[str]) -> str:
    """The words in order, each once with its count: "concat + elementwise ×2"."""
    return " + ".join(word if count == 1 else f"{word} ×{count}" for word, count in Counter(words).items())
