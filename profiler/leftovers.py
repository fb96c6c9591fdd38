"""What a network without residual blocks has in place of the units that went: followers of an addition that is no more.

    y = gelu(x + F(x))     becomes     y = gelu(x)

The activation was part of the addition's unit. Now it is a small unit of its own, or the unit before takes it up and is
of another family than it was. Either has a price.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lut.predict import Forms
from lut.records import Form, Measurement, Unit, UnitSpec
from profiler.blocks import Block, without_blocks
from profiler.inplace import MERGED
from profiler.network import Network

TIMES = " ×"
"""Stands between a kernel's kind and how many of them a unit has."""


@dataclass(frozen=True)
class Leftover:
    """A unit that only the network without the blocks has.

    Attributes:
        unit: it.
        takes: names of the whole network's units whose operations it runs.
        changed: whether one of these stays, and only took something up.
    """

    unit: Unit
    takes: frozenset[str]
    changed: bool


@dataclass(frozen=True)
class Standing:
    """The whole network's units that are there no more, and what stands in their place.

    Attributes:
        lost: names of the units that went with blocks.
        leftovers: what there is instead.
    """

    lost: frozenset[str] = frozenset()
    leftovers: tuple[Leftover, ...] = ()

    @property
    def gone(self) -> frozenset[str]:
        """Names of the whole network's units that are no more as they were."""
        return self.lost.union(*(leftover.takes for leftover in self.leftovers))

    @property
    def left(self) -> tuple[Unit, ...]:
        """The units in their place."""
        return tuple(leftover.unit for leftover in self.leftovers)

    def priced(self, known: Callable[[Unit], bool]) -> tuple["Standing", tuple[str, ...]]:
        """The same, where units that took something up, or were taken up, count as before if there is no other price.

        Args:
            known: whether a unit has a price.

        Returns:
            That, and the names of those units. What was only left behind stays without a price.
        """
        kept: list[Leftover] = []
        before: list[str] = []
        for each in self.leftovers:
            if known(each.unit):
                kept.append(each)
                continue
            before += sorted(each.takes - self.lost)
            if not each.changed:
                kept.append(replace(each, takes=each.takes & self.lost))
        return replace(self, leftovers=tuple(kept)), tuple(before)

    def forms(self, forms: Forms) -> Forms:
        """What the runtime makes of the units, sorted by the whole network's: with the names that units have now."""
        found = {name: form for name, form in forms.items() if name not in self.gone}
        for each in self._alone():
            if each.takes <= forms.keys():
                kernels = _added((kernel, 0.0) for name in each.takes for kernel in forms[name] if kernel != MERGED)
                found[each.unit.name] = tuple(sorted(kernels)) or (MERGED,)
        return found

    def rows(
        self, units: Sequence[Unit], rows: Sequence[Measurement], widths: Mapping[str, int]
    ) -> tuple[list[Measurement], dict[str, Form]]:
        """Rows of the network without the blocks, measured and sorted by the whole network's units.

        Args:
            units: of the whole network.
            rows: one each.
            widths: that were measured.

        Returns:
            Rows of the units that there are, and by name the form of each; none where kernels cannot be told apart.
        """
        own = {unit.name: row for unit, row in zip(units, rows, strict=True)}
        found = {name: row for name, row in own.items() if name not in self.gone}
        for each in self._alone():
            taken = [own[name] for name in sorted(each.takes)]
            if taken:
                found[each.unit.name] = _joined(each.unit.spec(widths), taken)
        return list(found.values()), {name: row.form for name, row in found.items()}

    def _alone(self) -> list[Leftover]:
        """The leftovers of which no other runs operations of the same units."""
        counts = Counter(name for each in self.leftovers for name in each.takes)
        return [each for each in self.leftovers if all(counts[name] == 1 for name in each.takes)]


def _joined(spec: UnitSpec, rows: Sequence[Measurement]) -> Measurement:
    """One row of what was sorted to several units."""
    running = [row for row in rows if row.form != (MERGED,)] or [rows[0]]
    samples = [row.samples_ms for row in running]
    return replace(
        running[0],
        spec=spec,
        kernels=tuple(_added(kernel for row in running for kernel in row.kernels).items()),
        median_ms=sum(row.median_ms or 0.0 for row in running),
        samples_ms=tuple(map(sum, zip(*samples, strict=True))) if len(set(map(len, samples))) == 1 else (),
    )


def _added(kernels: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Kernels by name with their times; those of one kind are one with a count, as `profiler.inplace` names them."""
    counts: dict[str, int] = {}
    times: dict[str, float] = {}
    for name, ms in kernels:
        kind, _, count = name.partition(TIMES)
        counts[kind] = counts.get(kind, 0) + int(count or 1)
        times[kind] = times.get(kind, 0.0) + ms
    return {kind if counts[kind] == 1 else f"{kind}{TIMES}{counts[kind]}": ms for kind, ms in times.items()}


def standing(network: Network, blocks: Iterable[Block]) -> Standing:
    """What a network without blocks has in place of the units that went with them."""
    blocks = tuple(blocks)
    if not blocks:
        return Standing()
    lost = frozenset(name for block in blocks for name in block.units)
    before = {unit.name: unit for unit in network.units if unit.name not in lost}
    home = {step: unit.name for unit in network.units for step in unit.steps}
    found = []
    for unit in without_blocks(network, blocks).units:
        same = before.get(unit.name)
        takes = frozenset(home[step] for step in unit.steps if step in home)
        if same is None or same.family != unit.family or takes != {unit.name}:
            found.append(Leftover(unit, takes, changed=same is not None))
    return Standing(lost, tuple(found))
