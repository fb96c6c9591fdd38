"""What this machine's processor is (`profiler/nvml.py` tells its GPU)."""

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROC_CPUINFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")

ISA_LEVELS: tuple[tuple[str, frozenset[str]], ...] = (
    ("amx", frozenset({"amx_tile", "amx_int8"})),
    ("avx512-vnni", frozenset({"avx512f", "avx512bw", "avx512_vnni"})),
    ("avx512", frozenset({"avx512f", "avx512bw"})),
    ("avx2", frozenset({"avx2", "fma"})),
    ("avx", frozenset({"avx"})),
    ("sse2", frozenset({"sse2"})),
    ("sve", frozenset({"sve"})),
    ("neon-i8mm", frozenset({"asimd", "i8mm"})),
    ("neon-dot", frozenset({"asimd", "asimddp"})),
    ("neon", frozenset({"asimd"})),
)
"""From the widest down: the first whose flags are all there names the level, which decides a staircase's steps."""


@dataclass(frozen=True)
class CpuFacts:
    """A processor, as far as the machine tells.

    Attributes:
        model: the maker's name.
        stepping: family, model and stepping numbers, which tell apart what virtual machines call by one name; or "".
        cores: that this process may use.
        isa: the widest instruction set that runtimes choose their kernels by, or "unknown".
        cache_bytes: the largest cache, or None.
    """

    model: str
    stepping: str
    cores: int
    isa: str
    cache_bytes: int | None

    @property
    def name(self) -> str:
        """What a fingerprint calls the device."""
        return f"{self.model} ({self.cores} core{'s' if self.cores != 1 else ''}, {self.isa})"


def isa_level(flags: frozenset[str]) -> str:
    """Name the widest instruction set among the processor's flags."""
    return next((level for level, needed in ISA_LEVELS if needed <= flags), "unknown")


def read_cpu() -> CpuFacts:
    """Tell the processor; where there is no `/proc` (macOS, Windows), as far as Python knows."""
    facts = _first_processor(PROC_CPUINFO.read_text(errors="replace") if PROC_CPUINFO.exists() else "")
    model = facts.get("model name") or facts.get("Processor") or platform.processor() or platform.machine()
    numbers = {"family": "cpu family", "model": "model", "stepping": "stepping"}
    if "CPU part" in facts:
        numbers = {"implementer": "CPU implementer", "part": "CPU part", "revision": "CPU revision"}
    stepping = " ".join(f"{word} {facts[key]}" for word, key in numbers.items() if key in facts)
    flags = frozenset((facts.get("flags") or facts.get("Features") or "").split())
    return CpuFacts(model, stepping, usable_cores(), isa_level(flags), _largest_cache_bytes())


def affinity() -> str:
    """How a worker stands on the cores (`profiler/pinning.py`), for its fingerprint."""
    return f"{'pinned' if hasattr(os, 'sched_setaffinity') else 'free'} on {usable_cores()}"


def cpu_clock_mhz() -> float | None:
    """Tell the mean clock of the cores now, or None where the machine does not say."""
    if not PROC_CPUINFO.exists():
        return None
    lines = (line.partition(":") for line in PROC_CPUINFO.read_text(errors="replace").splitlines())
    clocks = [float(value) for key, _, value in lines if key.strip() == "cpu MHz"]
    return sum(clocks) / len(clocks) if clocks else None


def _first_processor(text: str) -> dict[str, str]:
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            facts.setdefault(key.strip(), value.strip())
    return facts


@cache
def usable_cores() -> int:
    """Cores that this process may use, counted once: a worker that pins itself still says what the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _largest_cache_bytes() -> int | None:
    sizes = [path.read_text().strip() for path in CACHES.glob("index*/size")]
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=None)
