"""What memory a network needs at given widths: weights, the peak of live activations, workspace, and traffic."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from lut.packing import live_peak, packed_bytes
from lut.records import Coordinate


@dataclass(frozen=True)
class TensorBytes:
    """One tensor's size in bytes, as a function of the groups' widths, and the steps during which it lives.

    Attributes:
        name: of the parameter, or of the value in the trace.
        bytes_each: bytes over the product of the coordinates.
        coordinates: the labelled dimensions' widths.
        first, last: indices into the network's units, both inclusive: the one that writes it, the last that reads it.
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
class MemoryBound:
    """What a compiler announces for one network: an ahead-of-time bound, not what the device will allocate.

    Attributes:
        weights_bytes: of what it made of the parameters.
        activation_bytes: of the tensors between kernels, with the workspace in it.
        workspace_bytes: the scratch memory in it, as far as the compiler's rules tell it apart.
        io_bytes: the network's inputs and outputs: the caller's memory, and in no total.
    """

    weights_bytes: int
    activation_bytes: int
    workspace_bytes: int
    io_bytes: int

    @property
    def total_bytes(self) -> int:
        """Weights and activations, the workspace among them: what `--memory` bounds."""
        return self.weights_bytes + self.activation_bytes

    def to_json(self) -> dict[str, int]:
        """The figures as plain JSON, the total too."""
        return asdict(self) | {"total_bytes": self.total_bytes}


@dataclass(frozen=True)
class MemoryRules:
    """How a runtime lays tensors out in memory; without it they are summed while they live, and nothing else is needed.

    Attributes:
        packed: every tensor has a fixed address, and the gaps between them count (`lut.packing`).
        align_bytes, granule_bytes: what each tensor, and what their sum is rounded up to.
        workspace_bytes: scratch memory, beside the tensors or, where it is known when it is used, among them.
        weights_share, activations_share: what it holds of the weights' and the tensors' own sizes: half of an fp32
            network's where it is compiled in fp16.
    """

    packed: bool = False
    align_bytes: int = 1
    granule_bytes: int = 1
    workspace_bytes: int = 0
    weights_share: float = 1.0
    activations_share: float = 1.0

    def peak_bytes(self, sizes: Sequence[int], spans: Sequence[tuple[int, int]], scratch: Sequence[int] = ()) -> int:
        """What tensors need, beyond the workspace, that live from their first to their last step, both inclusive.

        Args:
            sizes: in bytes, before rounding.
            spans: one for each.
            scratch: steps that use the workspace. If tensors have addresses it lies among them, and they share its
                place at all other steps; if none is given it stands throughout.
        """
        if self.activations_share != 1.0:
            sizes = [ceil(size * self.activations_share) for size in sizes]
        rounded = [_round_up(size, self.align_bytes) for size in sizes]
        if not self.packed:
            return _round_up(live_peak(rounded, spans), self.granule_bytes)
        if not scratch or not self.workspace_bytes:
            return _round_up(packed_bytes(rounded, spans), self.granule_bytes)
        used = [(step, step) for step in scratch]
        needed = packed_bytes([*rounded, *[self.workspace_bytes] * len(used)], [*spans, *used])
        return _round_up(needed, self.granule_bytes) - self.workspace_bytes


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


@dataclass(frozen=True)
class Liveness:
    """The network's tensors as functions of widths: what weighs how much, and when.

    Attributes:
        weights: parameters (their lifetimes are not used).
        activations: tensors that units pass on; the network's own inputs and outputs are not among them.
        steps: how many units run, one after another.
        borders: the network's inputs and outputs (counted in the traffic only).
        rules: how the runtime lays the activations out.
        scratch: the steps that use the workspace; where they are not known, all.
    """

    weights: tuple[TensorBytes, ...]
    activations: tuple[TensorBytes, ...]
    steps: int
    borders: tuple[TensorBytes, ...] = ()
    rules: MemoryRules = MemoryRules()
    scratch: tuple[int, ...] = ()

    def at(self, widths: Mapping[str, int], workspace_bytes: int = 0) -> Memory:
        """The memory at the groups' widths, with any workspace beyond the rules' own."""
        return self.at_many([widths], workspace_bytes)[0]

    def at_many(self, widths: Sequence[Mapping[str, int]], workspace_bytes: int = 0) -> list[Memory]:
        """The memory at each of several widths: about a millisecond each where a compiler's layout is counted."""
        activations = self._activations.at(widths)
        weights = self._weights.at(widths).sum(axis=1)
        traffic = weights + 2 * activations.sum(axis=1) + self._borders.at(widths).sum(axis=1)
        workspace = self.rules.workspace_bytes + workspace_bytes
        return [
            Memory(
                ceil(weights[number] * self.rules.weights_share),
                self.rules.peak_bytes(sizes, self.spans, self.scratch),
                workspace,
                int(traffic[number]),
            )
            for number, sizes in enumerate(activations.tolist())
        ]

    def workspace_at(self, step: int) -> int:
        """The workspace that stands at a step."""
        return self.rules.workspace_bytes if not (self.rules.packed and self.scratch) or step in self.scratch else 0

    def io_bytes(self, widths: Mapping[str, int]) -> int:
        """The network's inputs and outputs, which are the caller's memory."""
        return int(self._borders.at([widths]).sum())

    def learned(self, bounds: Sequence[tuple[Mapping[str, int], MemoryBound]]) -> "Liveness":
        """The same tensors with their shares corrected by what a compiler said at some widths; the workspace stays.

        Where a share comes out differently from network to network it is the median.
        """
        if not bounds:
            return self
        said = self.at_many([widths for widths, _ in bounds])
        weights = [bound.weights_bytes / one.weights_bytes for (_, bound), one in zip(bounds, said, strict=True)]
        kept = [
            (bound.activation_bytes - bound.workspace_bytes) / max(1, one.peak_activation_bytes)
            for (_, bound), one in zip(bounds, said, strict=True)
        ]
        rules = replace(
            self.rules,
            workspace_bytes=int(np.median([bound.workspace_bytes for _, bound in bounds])),
            weights_share=self.rules.weights_share * float(np.median(weights)),
            activations_share=self.rules.activations_share * float(np.median(kept)),
        )
        return replace(self, rules=rules)

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """First and last step of each activation."""
        return tuple((tensor.first, tensor.last) for tensor in self.activations)

    @cached_property
    def _activations(self) -> "_Sizes":
        return _Sizes(self.activations)

    @cached_property
    def _weights(self) -> "_Sizes":
        return _Sizes(self.weights)

    @cached_property
    def _borders(self) -> "_Sizes":
        return _Sizes(self.borders)


class _Sizes:
    """The sizes of many tensors at once: each distinct coordinate is counted once."""

    def __init__(self, tensors: Sequence[TensorBytes]) -> None:
        one = Coordinate((), 1)
        coordinates = dict.fromkeys([one, *(c for tensor in tensors for c in tensor.coordinates)])
        place = {coordinate: number for number, coordinate in enumerate(coordinates)}
        self._groups = tuple(dict.fromkeys(group for c in coordinates for group, _ in c.terms))
        self._counts = np.zeros((len(self._groups), len(coordinates)), dtype=np.int64)
        for coordinate, number in place.items():
            for group, count in coordinate.terms:
                self._counts[self._groups.index(group), number] += count
        self._constants = np.array([coordinate.constant for coordinate in coordinates], dtype=np.int64)
        most = max((len(tensor.coordinates) for tensor in tensors), default=0)
        factors = [
            [place[c] for c in tensor.coordinates] + [0] * (most - len(tensor.coordinates)) for tensor in tensors
        ]
        self._factors = np.array(factors, dtype=np.int64).reshape(len(tensors), most)
        self._each = np.array([tensor.bytes_each for tensor in tensors], dtype=np.int64)

    def at(self, widths: Sequence[Mapping[str, int]]) -> NDArray[np.int64]:
        """Bytes, `[widths, tensors]`."""
        kept = np.array([[each[group] for group in self._groups] for each in widths], dtype=np.int64)
        lengths = kept.reshape(len(widths), len(self._groups)) @ self._counts + self._constants
        sizes: NDArray[np.int64] = lengths[:, self._factors].prod(axis=2) * self._each
        return sizes
