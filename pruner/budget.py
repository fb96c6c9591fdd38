"""What pruning is asked for: limits of latency and memory, absolute or relative, on the device of the table."""

from dataclasses import dataclass

from lut.errors import BudgetError, TableError
from lut.records import DeviceFingerprint


@dataclass(frozen=True)
class Budget:
    """Limits as absolute figures or as fractions of the unpruned network's own."""

    ms: float | None = None
    fraction: float | None = None
    memory_bytes: float | None = None
    memory_fraction: float | None = None

    @property
    def on_latency(self) -> bool:
        """Whether there is a latency budget."""
        return self.ms is not None or self.fraction is not None

    @property
    def on_memory(self) -> bool:
        """Whether there is a memory budget."""
        return self.memory_bytes is not None or self.memory_fraction is not None

    def latency_ms(self, unpruned_ms: float) -> float:
        """The latency budget in milliseconds.

        Raises:
            BudgetError: it is not below the unpruned network's latency.
        """
        budget = self.ms if self.ms is not None else (self.fraction or 0.0) * unpruned_ms
        if budget >= unpruned_ms:
            raise BudgetError(
                f"The budget of {budget:.4g} ms is not below the present latency: the unpruned network takes "
                f"{unpruned_ms:.4g} ms here. There is nothing to prune for it."
            )
        return budget

    def bytes(self, unpruned: int) -> float | None:
        """The memory budget in bytes, or None.

        Raises:
            BudgetError: it is not below what the unpruned network needs.
        """
        if self.memory_bytes is None and self.memory_fraction is None:
            return None
        budget = self.memory_bytes if self.memory_bytes is not None else (self.memory_fraction or 0.0) * unpruned
        if budget >= unpruned:
            raise BudgetError(
                f"The memory budget of {budget / 1e6:,.10g} MB is not below what the unpruned network needs: "
                f"{unpruned / 1e6:.4g} MB. There is nothing to prune for it."
            )
        return budget


@dataclass(frozen=True)
class Limits:
    """What a network may cost at most; None where nothing is asked."""

    ms: float | None = None
    memory_bytes: float | None = None

    def __str__(self) -> str:
        """In words: "4 ms and 12 MB"."""
        told = [None if self.ms is None else f"{self.ms:.4g} ms"]
        told += [None if self.memory_bytes is None else f"{self.memory_bytes / 1e6:.4g} MB"]
        return " and ".join(filter(None, told))

    def on_the_way(self, share: float, full: "Limits") -> "Limits":
        """The limits when a share of the way is gone from what the unpruned network costs, in equal ratios."""
        return Limits(_between(full.ms, self.ms, share), _between(full.memory_bytes, self.memory_bytes, share))


def _between(full: float | None, least: float | None, share: float) -> float | None:
    return None if least is None or full is None else full * (least / full) ** share


def check_device(
    table: DeviceFingerprint, here: DeviceFingerprint, allowed: tuple[str, ...], latencies_needed: bool = True
) -> None:
    """Refuse a table that was measured elsewhere.

    Raises:
        TableError: naming what differs.
    """
    different = [item for item in table.differences(here) if item[0] not in allowed]
    if different and latencies_needed:
        name, there, now = different[0]
        more = (
            f" (and {len(different) - 1} more: {', '.join(item[0] for item in different[1:])})" if different[1:] else ""
        )
        raise TableError(
            f"The table was measured with {name} {there}; this machine has {now}{more}.\n"
            f"Measure again: latprune profile … --table another.db, or accept it: "
            + " ".join(f"--allow-difference {item[0]}" for item in different)
        )
