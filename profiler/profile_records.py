"""How much a profiling session is to measure, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lut.records import DeviceFingerprint, MeasureConfig
from profiler.inplace import CutCheck

RECENT = 10
"""Over how many of the last predictions the held-out error is taken."""

REFIT = 0.15
"""The predictor is fitted anew when so large a share of the networks is new."""
MOST_FAILURES = 5
MOST_TRIES = 50


@dataclass(frozen=True)
class ProfileConfig:
    """How much to measure.

    Attributes:
        threads: of a CPU runtime.
        networks_min, networks_max: least and most networks in the table for this structure.
        target_error: stop once the mean relative error of the last predictions is at or under it.
        max_time_s: stop after this time, or never for None.
        runs: most samples of each network.
        seed: of the sampled widths.
        measure: warm-up and limits of a single measurement.
        copies: numbers of copies of a unit in one engine, where a runtime times no single units.
        measure_copies: warm-up and limits of one such engine.
    """

    threads: int = 1
    networks_min: int = 11
    networks_max: int = 60
    target_error: float = 0.015
    max_time_s: float | None = None
    runs: int = 40
    seed: int = 0
    measure: MeasureConfig = field(default_factory=lambda: MeasureConfig(max_time_s=0.6, max_samples=40))
    copies: tuple[int, ...] = (1, 4)
    measure_copies: MeasureConfig = field(
        default_factory=lambda: MeasureConfig(warmup_s=0.02, min_time_s=0.05, max_time_s=0.3, noise_target=0.005)
    )


@dataclass(frozen=True)
class PackedCheck:
    """What came of timing units in packed copies, where a runtime times no single units.

    Attributes:
        units: distinct ones that were timed now.
        failed: distinct ones without a time, of this session or an earlier one.
        scale: of times in place over times alone, common to all units; None while there are too few networks.
        residual: what is left of the networks' times after the correction, a fraction; None likewise.
        because: why the first one failed, or None.
    """

    units: int
    failed: int
    scale: float | None
    residual: float | None
    because: str | None

    def __str__(self) -> str:
        said = f"{self.units} distinct units were timed alone, in packed copies"
        if self.scale is not None:
            said += f"; in networks they take {self.scale:.3g} times as long"
        if self.residual is not None:
            said += f", and {self.residual:.1%} of the networks' times is left unexplained"
        return said + (f"; {self.failed} failed, first {self.because}" if self.failed else "")


@dataclass(frozen=True)
class ProfileReport:
    """What a profiling session did.

    Attributes:
        fingerprint: of the device and runtime.
        network: hash of the structure.
        measured, reused, failed: networks measured now, found in the table, failed now.
        rows: unit times that came of those measured now.
        error: mean relative error of the last predictions at stepped widths, each made before its measurement; None if
            there were none.
        error_free: the same at free widths.
        predicted_ms, measured_ms, noise: of the unpruned network.
        seconds: of the whole session.
        stopped_because: in words.
        cut: how the units agree with the kernels of the unpruned network, or None.
        anew_because: why each variant had to be exported anew, or None.
        packed: how units were timed where the runtime times none in place, or None.
        reference_ms: of the half-width network, in whose scale this session's rows are; None if it measured none.
    """

    fingerprint: DeviceFingerprint
    network: str
    measured: int
    reused: int
    failed: int
    rows: int
    error: float | None
    error_free: float | None
    predicted_ms: float | None
    measured_ms: float | None
    noise: float | None
    seconds: float
    stopped_because: str
    anew_because: str | None = None
    cut: CutCheck | None = None
    reference_ms: float | None = None
    packed: PackedCheck | None = None


def is_stepped(widths: Mapping[str, int], full: Mapping[str, int]) -> bool:
    """Whether all wide groups keep a multiple of 8 channels, as plans do; odd widths are priced less well."""
    return all(width % 8 == 0 or width == full[name] for name, width in widths.items() if full[name] >= 32)
