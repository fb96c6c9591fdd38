"""Small records that the tests of `lut` share."""

import numpy as np
from numpy.typing import NDArray

from lut import DeviceFingerprint, MeasureConfig, Measurement, NetworkMeasurement, UnitFamily, UnitSpec

CONFIG = MeasureConfig()
CPU = DeviceFingerprint("Some CPU (2 cores)", "onnxruntime", "1.32", threads=1)
GPU = DeviceFingerprint("NVIDIA RTX 4090", "tensorrt", "10.3", compute_capability="8.9", driver="570.86")


def convolution(kernel: int = 3, precision: str = "fp32") -> UnitFamily:
    """A family with two coordinates."""
    return UnitFamily(
        "convolution",
        precision,
        ((1, "c0", 28, 28),),
        ((1, "c1", 28, 28),),
        (("kernel", (kernel, kernel)), ("stride", (1, 1))),
        ("batch_norm", "relu"),
    )


def row(channels: tuple[int, ...], ms: float, family: UnitFamily | None = None) -> Measurement:
    """A finished measurement."""
    return Measurement(UnitSpec(family or convolution(), channels), CONFIG, (ms, ms), ms, 0.01)


def network_row(widths: dict[str, int], ms: float, **more: object) -> NetworkMeasurement:
    """A finished whole-network measurement of the network "net"."""
    found = NetworkMeasurement("net", tuple(sorted(widths.items())), CONFIG, (ms,), ms, 0.01)
    return NetworkMeasurement(**{**found.__dict__, **more})


def staircase(channels: NDArray[np.int64], step: int = 16) -> NDArray[np.float64]:
    """A known truth: blocks of `step` outputs, and slower code where the inputs are not a multiple."""
    blocks = -(-channels // step) * step
    slower = 1 + 0.2 * (channels[:, 0] % step != 0)
    truth: NDArray[np.float64] = 0.02 + 5e-5 * blocks[:, 0] * blocks[:, 1] * slower + 1e-4 * blocks[:, 1]
    return truth


def sampled(seed: int, count: int) -> NDArray[np.int64]:
    """Channel pairs as profiling samples them: some free, the rest multiples of 16."""
    generator = np.random.default_rng(seed)
    channels = generator.integers(8, 257, (count, 2))
    whole = generator.random(count) < 0.6
    channels[whole] = np.maximum(channels[whole] // 16 * 16, 16)
    return channels
