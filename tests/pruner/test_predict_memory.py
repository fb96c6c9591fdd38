"""The memory that predict tells is that of the table's precision."""

import pytest
import torch
from torch import nn

from lut import DeviceFingerprint, LatencyTable
from profiler.network import analyze
from pruner.commands.predict import memory, table_precision


def table(settings: tuple[tuple[str, str], ...] = (), precision: str | None = None) -> LatencyTable:
    return LatencyTable(DeviceFingerprint("GPU", "tensorrt-rtx", "1.7", settings=settings), [], precision=precision)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (table(), "fp32"),
        (table((("precision", "int8"),)), "int8"),
        (table((("precision", "fp32"),), precision="fp16"), "fp16"),
    ],
)
def test_the_precision_asked_for_comes_before_the_fingerprints(rows: LatencyTable, wanted: str) -> None:
    assert table_precision(rows) == wanted


def test_weights_take_half_in_fp16() -> None:
    network = analyze(nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 3)), (torch.randn(1, 3, 12, 12),))
    single, half = (memory(network, network.widths, "tensorrt-rtx", precision) for precision in ("fp32", "fp16"))
    assert half["weights_bytes"] == pytest.approx(single["weights_bytes"] / 2, rel=0.02)
    assert (half["memory_of"], half["memory_precision"]) == ("tensorrt-rtx", "fp16")
