"""What both kinds of TensorRT share, without either."""

from pathlib import Path

import pytest

from lut.errors import BackendError
from profiler.backends.trt_common import write_atomically
from profiler.backends.trt_devices import capability_of
from profiler.backends.trt_log import LogRecord, read_memory


@pytest.mark.parametrize(
    ("device", "capability"),
    [
        ("NVIDIA GeForce RTX 4090", "8.9"),
        ("RTX 3090", "8.6"),
        ("rtx 2080 ti", "7.5"),
        ("RTX2080Ti", "7.5"),
        ("RTX 4070Super", "8.9"),
        ("NVIDIA A100-SXM4-80GB", "8.0"),
        ("A10G", "8.6"),
        ("NVIDIA L40S", "8.9"),
        ("NVIDIA RTX 4000 Ada Generation", "8.9"),
        ("Quadro RTX 4000", "7.5"),
        ("RTX 5090", "12.0"),
        ("NVIDIA H100 PCIe", "9.0"),
        ("Jetson Orin Nano", "8.7"),
        ("Tesla T4", "7.5"),
        ("8.6", "8.6"),
    ],
)
def test_a_device_is_known_by_its_name(device: str, capability: str) -> None:
    assert capability_of(device) == capability


def test_an_unknown_device_is_refused_with_what_to_give_instead() -> None:
    with pytest.raises(BackendError, match="--compute-capability"):
        capability_of("Voodoo 2")


def test_a_dla_is_refused_with_how_to_build_for_it() -> None:
    with pytest.raises(BackendError, match="useDLACore"):
        capability_of("Orin DLA")


def test_memory_is_read_from_the_log_and_missing_figures_stay_missing() -> None:
    records = [
        LogRecord("INFO", "Total Activation Memory: 100 bytes"),
        LogRecord("INFO", "Total Activation Memory: 300 bytes"),
        LogRecord("INFO", "Max Scratch Memory: 50 bytes"),
    ]
    assert read_memory(records) == {"weights_bytes": None, "activation_bytes": 300, "workspace_bytes": 50}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "file"
    out.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_atomically(out, "not bytes")
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]
    write_atomically(out, b"new")
    assert out.read_bytes() == b"new"
