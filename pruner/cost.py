"""What widths cost: latency from the measured table, memory, multiply-adds or channels, each a function of widths."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from lut.memory import Liveness, TensorBytes
from lut.predict import Predictor
from lut.records import Unit


class Cost(Protocol):
    """A cost of the whole network, and how it changes when one group does."""

    name: str
    unit: str

    def at(self, widths: Mapping[str, int]) -> float:
        """The network's cost at these widths."""
        ...

    def change(self, widths: Mapping[str, int], group: str, width: int) -> float:
        """By how much the cost grows when one group's width becomes `width`, all others as they are."""
        ...


class Latency:
    """Milliseconds as predicted from the table; only the group's own units are priced anew."""

    name = "latency"
    unit = "ms"

    def __init__(self, predictor: Predictor, options: Mapping[str, Sequence[int]] | None = None) -> None:
        """Take what predicts; `options` are the widths that a solver is going to ask about, group by group."""
        self._predictor = predictor
        self._options = options or {}

    def at(self, widths: Mapping[str, int]) -> float:
        """Predicted milliseconds of one inference."""
        return self._predictor.latency_ms(widths)

    def change(self, widths: Mapping[str, int], group: str, width: int) -> float:
        """Difference in milliseconds, the whole group at once."""
        return self._predictor.change_ms(widths, group, width, self._options.get(group))


class Memory:
    """Bytes of weights and peak activations (liveness); the peak is not additive, so the whole is counted anew."""

    name = "memory"
    unit = "bytes"

    def __init__(self, liveness: Liveness, workspace_bytes: int = 0) -> None:
        self._liveness = liveness
        self._workspace_bytes = workspace_bytes

    def at(self, widths: Mapping[str, int]) -> float:
        """Total bytes."""
        return float(self._liveness.at(widths, self._workspace_bytes).total_bytes)

    def change(self, widths: Mapping[str, int], group: str, width: int) -> float:
        """Difference in bytes."""
        return self.at({**widths, group: width}) - self.at(widths)


class _Sum:
    """A sum of parts each of which depends on few groups."""

    name = ""
    unit = ""

    def __init__(self, groups: Mapping[str, Sequence[int]], parts: int) -> None:
        self._parts_of = groups
        self._parts = parts

    def part(self, number: int, widths: Mapping[str, int]) -> float:
        raise NotImplementedError

    def at(self, widths: Mapping[str, int]) -> float:
        """The sum over all parts."""
        return sum(self.part(number, widths) for number in range(self._parts))

    def change(self, widths: Mapping[str, int], group: str, width: int) -> float:
        """Difference over the parts that depend on the group."""
        after = {**widths, group: width}
        return sum(self.part(n, after) - self.part(n, widths) for n in self._parts_of.get(group, ()))


def _index(names: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, groups in enumerate(names):
        for group in groups:
            found.setdefault(group, []).append(number)
    return found


class Macs(_Sum):
    """Multiply-adds."""

    name = "flops"
    unit = "multiply-adds"

    def __init__(self, units: Sequence[Unit]) -> None:
        super().__init__(_index([unit.groups for unit in units]), len(units))
        self._units = units

    def part(self, number: int, widths: Mapping[str, int]) -> float:
        """Multiply-adds of one unit."""
        return self._units[number].macs(widths)


class ActivationBytes(_Sum):
    """Group Fisher Pruning's count of memory: the sum of all activations that layers pass on, whenever they live."""

    name = "memory"
    unit = "bytes"

    def __init__(self, liveness: Liveness) -> None:
        tensors: Sequence[TensorBytes] = liveness.activations
        super().__init__(_index([_groups_of(tensor) for tensor in tensors]), len(tensors))
        self._tensors = tensors

    def part(self, number: int, widths: Mapping[str, int]) -> float:
        """Bytes of one tensor."""
        return float(self._tensors[number].at(widths))


def _groups_of(tensor: TensorBytes) -> tuple[str, ...]:
    return tuple(dict.fromkeys(group for coordinate in tensor.coordinates for group, _ in coordinate.terms))


class Channels:
    """Channels kept: ranks raw importance, normalised by nothing."""

    name = "none"
    unit = "channels"

    def at(self, widths: Mapping[str, int]) -> float:
        """All channels kept."""
        return float(sum(widths.values()))

    def change(self, widths: Mapping[str, int], group: str, width: int) -> float:
        """Difference in channels."""
        return float(width - widths[group])
