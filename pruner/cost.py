"""What widths cost: latency from the measured table, memory, multiply-adds or channels, each a sum of few-group terms.

A term is a function of a few channel counts (a unit's latency, a tensor's bytes), and a channel count is linear in the
groups' widths. `pruner/tabulate.py` turns that into tables for the solvers.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lut.memory import Liveness, TensorBytes
from lut.predict import Predictor
from lut.records import Coordinate, Unit

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Term:
    """One summand of a cost.

    Attributes:
        coordinates: the channel counts that it depends on.
        price: the value at channel counts `[m, coordinates]`, `[m]`.
        owner: name of the unit, parameter or tensor that it belongs to, "" for none: what belongs to a block goes with
            it.
        instead_of: name of a block; the term is there only once that is gone. "" where it hangs on none.
    """

    coordinates: tuple[Coordinate, ...]
    price: Callable[[Ints], Floats]
    owner: str = ""
    instead_of: str = ""

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups concerned."""
        return tuple(dict.fromkeys(group for coordinate in self.coordinates for group, _ in coordinate.terms))


@dataclass(frozen=True)
class Sum:
    """Terms that add up, given by their places among a cost's terms, and what is there at any widths."""

    terms: tuple[int, ...]
    constant: float = 0.0


class Cost(Protocol):
    """A cost of the whole network.

    Attributes:
        name, unit: for messages.
        knows_blocks: whether its terms say all that changes where a block goes; else they count too much.
    """

    name: str
    unit: str
    knows_blocks: bool

    def at(self, widths: Mapping[str, int]) -> float:
        """The network's cost at these widths, all blocks that may go there."""
        ...

    def terms(self) -> Sequence[Term]:
        """All summands."""
        ...

    def sums(self) -> Sequence[Sum]:
        """Which terms add up; the cost is the largest of these sums (or a little more, where `at` counts gaps)."""
        ...


class Latency:
    """Milliseconds as predicted from the table."""

    name = "latency"
    unit = "ms"
    knows_blocks = True

    def __init__(
        self,
        predictor: Predictor,
        gone: Collection[str] = (),
        left: Sequence[Unit] = (),
        instead_of: Mapping[str, Sequence[Unit]] | None = None,
    ) -> None:
        """Take what predicts, and what is known of blocks; a unit without a price costs nothing here.

        Args:
            predictor: of the whole network.
            gone: names of units that are there no more.
            left: what stands in their place.
            instead_of: for blocks that may go what would stand in place of theirs.
        """
        self._predictor, self._gone, self._left = predictor, frozenset(gone), tuple(left)
        self._own = [number for number, unit in enumerate(predictor.units) if unit.name not in gone]
        extra = [("", left), *(instead_of or {}).items()]
        self._extra = [(block, unit) for block, units in extra for unit in units if predictor.prices(unit)]

    def at(self, widths: Mapping[str, int]) -> float:
        """Predicted milliseconds of one inference."""
        return self._predictor.latency_ms(widths, gone=self._gone, left=self._left)

    def terms(self) -> Sequence[Term]:
        """A unit each, in the network's scale."""
        scale = self._predictor.calibration.scale

        def of(key: int | Unit, unit: Unit, owner: str, block: str = "") -> Term:
            return Term(
                unit.coordinates, lambda channels: scale * self._predictor.unit_many_ms(key, channels), owner, block
            )

        units = self._predictor.units
        own = [of(number, units[number], units[number].name) for number in self._own]
        return [*own, *(of(unit, unit, name_left(block, unit), block) for block, unit in self._extra)]

    def sums(self) -> Sequence[Sum]:
        """All units, and the overhead."""
        return [Sum(tuple(range(len(self._own) + len(self._extra))), self._predictor.calibration.overhead_ms)]


def name_left(block: str, unit: Unit) -> str:
    """What a unit that a block leaves behind is called as an owner: another unit may have its name."""
    return f"{unit.name} without {block}" if block else ""


class Memory:
    """Bytes of weights, peak activations (liveness) and workspace."""

    name = "memory"
    unit = "bytes"
    knows_blocks = False

    def __init__(self, liveness: Liveness) -> None:
        self._liveness = liveness

    def at(self, widths: Mapping[str, int]) -> float:
        """Total bytes."""
        return float(self._liveness.at(widths).total_bytes)

    def terms(self) -> Sequence[Term]:
        """A tensor each: weights, then activations; what a block keeps is counted up to its addition in any case."""
        liveness, rules = self._liveness, self._liveness.rules
        weights = [_bytes(tensor, rules.weights_share, tensor.name) for tensor in liveness.weights]
        return [*weights, *(_bytes(tensor, rules.activations_share, tensor.name) for tensor in liveness.activations)]

    def sums(self) -> Sequence[Sum]:
        """For each step all weights and what is alive then: what packing adds is not in it."""
        weights = tuple(range(len(self._liveness.weights)))
        alive: dict[tuple[tuple[int, ...], int], None] = {}
        for step in range(max(self._liveness.steps, 1)):
            tensors = tuple(
                len(weights) + number
                for number, (first, last) in enumerate(self._liveness.spans)
                if first <= step <= last
            )
            alive[tensors, self._liveness.workspace_at(step)] = None
        return [Sum((*weights, *tensors), float(workspace)) for tensors, workspace in alive]


def _bytes(tensor: TensorBytes, share: float, owner: str = "") -> Term:
    each = tensor.bytes_each * share

    def price(channels: Ints) -> Floats:
        found: Floats = each * channels.prod(axis=1).astype(np.float64)
        return found

    return Term(tensor.coordinates, price, owner)


class _Products:
    """A sum of products of channel counts."""

    name = ""
    unit = ""
    knows_blocks = False

    def __init__(self, products: Iterable[tuple[tuple[Coordinate, ...], float, str]]) -> None:
        self._products = [(coordinates, each, unit) for coordinates, each, unit in products if each]

    def at(self, widths: Mapping[str, int]) -> float:
        """The sum over all products."""
        return sum(each * prod(c.at(widths) for c in coordinates) for coordinates, each, _ in self._products)

    def terms(self) -> Sequence[Term]:
        """A product each."""

        def of(coordinates: tuple[Coordinate, ...], each: float, unit: str) -> Term:
            return Term(coordinates, lambda channels: each * channels.prod(axis=1).astype(np.float64), unit)

        return [of(*product) for product in self._products]

    def sums(self) -> Sequence[Sum]:
        """All of them."""
        return [Sum(tuple(range(len(self._products))))]


class Macs(_Products):
    """Multiply-adds."""

    name = "flops"
    unit = "multiply-adds"

    def __init__(self, units: Sequence[Unit]) -> None:
        super().__init__((unit.coordinates, unit.macs_each, unit.name) for unit in units)


class Parameters(_Products):
    """Numbers that are trained, as the bytes of weights count them."""

    name = "parameters"
    unit = "bytes of weights"

    def __init__(self, liveness: Liveness) -> None:
        super().__init__((tensor.coordinates, float(tensor.bytes_each), "") for tensor in liveness.weights)


class ActivationBytes(_Products):
    """Group Fisher Pruning's count of memory: the outputs of all convolutions and linear layers, whenever they live."""

    name = "memory"
    unit = "bytes"

    def __init__(self, liveness: Liveness, units: Sequence[Unit]) -> None:
        super().__init__(
            (tensor.coordinates, float(tensor.bytes_each), units[tensor.first].name)
            for tensor in liveness.activations
            if units[tensor.first].macs_each
        )


class Channels(_Products):
    """Channels kept: ranks raw importance, normalised by nothing."""

    name = "none"
    unit = "channels"

    def __init__(self, groups: Iterable[str]) -> None:
        super().__init__(((Coordinate(((group, 1),)),), 1.0, "") for group in groups)
