"""Everything that latprune knows of a network before measuring it: trace, groups, units, memory, all from one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from lut.errors import BackendError
from lut.memory import Liveness, Memory
from lut.records import ChannelGroup, Unit, full_widths
from profiler.backends import BACKENDS, memory_rules
from profiler.compiled import compiled_liveness
from profiler.groups import Structure
from profiler.trace import Trace
from profiler.trial import analyze_structure
from profiler.units import Cut, cut_units


@dataclass(frozen=True)
class Network:
    """A network as its trace shows it.

    Attributes:
        model: the user's module, untouched.
        inputs: the positional arguments that it was traced on.
        structure: trace, groups and labels.
        cut: the units and the tensors that pass between them.
    """

    model: nn.Module
    inputs: tuple[Any, ...]
    structure: Structure
    cut: Cut

    @property
    def trace(self) -> Trace:
        """The recorded run."""
        return self.structure.trace

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """All channel groups, frozen ones too."""
        return self.structure.groups

    @property
    def units(self) -> tuple[Unit, ...]:
        """What the runtime runs as one, in order."""
        return self.cut.units

    @cached_property
    def hash(self) -> str:
        """Hash of structure and shapes, not of weights."""
        return self.trace.network_hash

    @cached_property
    def widths(self) -> dict[str, int]:
        """The unpruned network's widths."""
        return full_widths(self.groups)

    def liveness(self, runtime: str | None = None, precision: str = "fp32") -> Liveness:
        """The network's tensors as a runtime keeps them in a precision; where its rules are not known, as they live.

        Raises:
            BackendError: there is no runtime of that name.
        """
        if runtime is not None and runtime not in {backend.name for backend in BACKENDS}:
            raise BackendError(
                f"There is no backend called {runtime!r}. These are known: {', '.join(b.name for b in BACKENDS)}."
            )
        rules = memory_rules(runtime or "", precision)
        return self.cut.liveness if rules is None else compiled_liveness(self.structure, rules)

    def memory(self, widths: Mapping[str, int], workspace_bytes: int = 0, *, runtime: str | None = None) -> Memory:
        """Memory at the groups' widths, as a runtime lays it out (see `liveness`)."""
        return self.liveness(runtime).at(widths, workspace_bytes)

    def macs(self, widths: Mapping[str, int]) -> float:
        """Multiply-adds at the groups' widths."""
        return sum(unit.macs(widths) for unit in self.units)


def analyze(model: nn.Module, inputs: Sequence[Any], freeze: Sequence[str] = ()) -> Network:
    """Trace a network once and read its groups, units and memory from the record.

    Raises:
        LatpruneError: the network does not run on the inputs, or a pattern of `freeze` names nothing.
    """
    structure = analyze_structure(model, inputs, freeze)
    return Network(model, tuple(inputs), structure, cut_units(structure))
