"""What memory a network needs at given widths: weights, the peak of live activations, workspace, and traffic."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod

from lut.packing import live_peak, packed_bytes
from lut.records import Coordinate


@dataclass(frozen=True)
class TensorBytes:
    """One tensor's size in bytes, as a function of the groups' widths, and the steps during which it lives.

    Attributes:
        name: of the parameter, or of the unit that writes the tensor.
        bytes_each: bytes over the product of the coordinates.
        coordinates: the labelled dimensions' widths.
        first, last: indices into the network's units, both inclusive.
    """

    name: str
    bytes_each: int
    coordinates: tuple[Coordinate, ...]
    first: int = 0
    last: int = 0

    def at(self, widths: Mapping[str, int]) -> int:
        """Size in bytes at the groups' widths."""
        return self.bytes_each * prod(coordinate.at(widths) for coordinate in self.coordinates)


@dataclass(frozen=True)
class Memory:
    """What one inference needs, in bytes; `traffic_bytes` (read and written) is a different thing and in no total."""

    weights_bytes: int
    peak_activation_bytes: int
    workspace_bytes: int
    traffic_bytes: int

    @property
    def total_bytes(self) -> int:
        """Weights + peak of live activations + workspace: what `--memory` bounds."""
        return self.weights_bytes + self.peak_activation_bytes + self.workspace_bytes

    def to_json(self) -> dict[str, int]:
        """The five keys that other programs rely on."""
        return asdict(self) | {"total_bytes": self.total_bytes}


@dataclass(frozen=True)
class MemoryRules:
    """How a runtime lays tensors out in memory; without it they are summed while they live, and nothing else is needed.

    Attributes:
        packed: every tensor has a fixed address, and the gaps between them count (`lut.packing`).
        align_bytes: what each tensor is rounded up to.
        workspace_bytes: scratch memory that the runtime holds beside the tensors.
    """

    packed: bool = False
    align_bytes: int = 1
    workspace_bytes: int = 0


@dataclass(frozen=True)
class Liveness:
    """The network's tensors as functions of widths: what weighs how much, and when.

    Attributes:
        weights: parameters (their lifetimes are not used).
        activations: tensors that units pass on; the network's own inputs and outputs are not among them.
        steps: how many units run, one after another.
        borders: the network's inputs and outputs (counted in the traffic only).
        rules: how the runtime lays the activations out.
    """

    weights: tuple[TensorBytes, ...]
    activations: tuple[TensorBytes, ...]
    steps: int
    borders: tuple[TensorBytes, ...] = ()
    rules: MemoryRules = MemoryRules()

    def at(self, widths: Mapping[str, int], workspace_bytes: int = 0) -> Memory:
        """The memory at the groups' widths, with any workspace beyond the rules' own."""
        sizes = [tensor.at(widths) for tensor in self.activations]
        align = self.rules.align_bytes
        rounded = [-(-size // align) * align for size in sizes]
        peak = (packed_bytes if self.rules.packed else live_peak)(rounded, self.spans)
        weights = sum(tensor.at(widths) for tensor in self.weights)
        traffic = weights + 2 * sum(sizes) + sum(tensor.at(widths) for tensor in self.borders)
        return Memory(weights, peak, self.rules.workspace_bytes + workspace_bytes, traffic)

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """First and last step of each activation."""
        return tuple((tensor.first, tensor.last) for tensor in self.activations)
