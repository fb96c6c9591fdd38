"""Keys: stable, and different for everything that changes a latency."""

from dataclasses import fields, replace
from typing import Any

import pytest

from lut import DeviceFingerprint, UnitFamily, UnitSpec
from tests.lut.examples import CPU, convolution

FAMILY_CHANGES: dict[str, Any] = {
    "operation": "linear",
    "precision": "fp16",
    "inputs": ((1, "c0", 56, 56),),
    "outputs": ((2, "c1", 28, 28),),
    "attributes": (("kernel", (5, 5)), ("stride", (1, 1))),
    "followers": ("batch_norm",),
}
FINGERPRINT_CHANGES: dict[str, Any] = {
    "device": "Another CPU",
    "runtime": "openvino",
    "runtime_version": "1.33",
    "compute_capability": "8.6",
    "driver": "575.51",
    "threads": 2,
    "locked_clocks_mhz": 1500.0,
    "power_limit_w": 200.0,
    "settings": (("graphs", True),),
}


def test_a_key_is_the_same_in_every_process_and_release() -> None:
    assert convolution().key == "f44cbe2c49ec9c20"
    assert UnitSpec(convolution(), (64, 128)).key == "8297efc207a345f1"
    assert CPU.key == "7e315ddb5ab77317"


@pytest.mark.parametrize("name", [item.name for item in fields(UnitFamily)])
def test_anything_that_changes_latency_changes_the_key(name: str) -> None:
    assert replace(convolution(), **{name: FAMILY_CHANGES[name]}).key != convolution().key


@pytest.mark.parametrize("name", [item.name for item in fields(DeviceFingerprint)])
def test_anything_about_the_device_changes_the_fingerprint(name: str) -> None:
    other = replace(CPU, **{name: FINGERPRINT_CHANGES[name]})
    assert other.key != CPU.key
    assert other.differences(CPU) == [(name, FINGERPRINT_CHANGES[name], getattr(CPU, name))]


def test_swapped_channels_are_another_row() -> None:
    assert UnitSpec(convolution(), (64, 128)).key != UnitSpec(convolution(), (128, 64)).key


def test_records_are_equal_to_their_json_read_back() -> None:
    assert UnitFamily.from_json(convolution().to_json()) == convolution()
    assert DeviceFingerprint.from_json(CPU.to_json()) == CPU
