"""The memory that predict tells is that of the table's precision."""

import pytest
import torch
from torch import nn

from lut import DeviceFingerprint, LatencyTable
from profiler.network import analyze
from pruner.commands.options import MemoryTarget, table_precision
from pruner.commands.parsing import OptionError
from pruner.prediction import memory


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


@pytest.mark.parametrize(
    ("text", "rows", "wanted"),
    [
        (None, table(), ("tensorrt-rtx", "8.6", "fp32")),
        (None, table(precision="fp16"), ("tensorrt-rtx", "8.6", "fp16")),
        ("tensorrt-rtx", table(precision="fp16"), ("tensorrt-rtx", "8.6", "fp16")),
        ("tensorrt-rtx:8.9", table(precision="fp16"), ("tensorrt-rtx", "8.9", "fp16")),
        ("tensorrt-rtx:8.9:int8", table(precision="fp16"), ("tensorrt-rtx", "8.9", "int8")),
        ("onnxruntime", table(precision="fp16"), ("onnxruntime", "8.6", "fp32")),
    ],
)
def test_what_is_not_said_of_the_memory_meant_is_the_tables(
    text: str | None, rows: LatencyTable, wanted: tuple[str, str, str]
) -> None:
    meant = MemoryTarget.read(text, rows)
    assert (meant.runtime, meant.capability, meant.precision) == wanted


def test_memory_meant_in_more_parts_is_refused() -> None:
    with pytest.raises(OptionError, match=r"RUNTIME:8\.6:fp16 is meant"):
        MemoryTarget.read("tensorrt-rtx:8.9:fp16:more", table())
