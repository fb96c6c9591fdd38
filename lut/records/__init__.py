"""The records that every part of latprune passes on: units, groups, measurements, estimates, fingerprints.

All are frozen dataclasses of plain values: a record equals its copy read back from a table, and can be a key. They are
imported from here; each file of this folder holds those of one kind.
"""

from lut.records.device import AHEAD_OF_TIME, DeviceFingerprint
from lut.records.measured import Form, MeasureConfig, Measurement, NetworkMeasurement, Place
from lut.records.network import (
    ChannelGroup,
    Coordinate,
    Member,
    SizeAttribute,
    Unit,
    UnitFamily,
    UnitSpec,
    full_widths,
)
from lut.records.plain import Attribute, canonical_json, freeze_value, short_hash
from lut.records.predicted import Basis, Calibration, Estimate, Prediction, UnitEstimate

__all__ = [
    "AHEAD_OF_TIME",
    "Attribute",
    "Basis",
    "Calibration",
    "ChannelGroup",
    "Coordinate",
    "DeviceFingerprint",
    "Estimate",
    "Form",
    "MeasureConfig",
    "Measurement",
    "Member",
    "NetworkMeasurement",
    "Place",
    "Prediction",
    "SizeAttribute",
    "Unit",
    "UnitEstimate",
    "UnitFamily",
    "UnitSpec",
    "canonical_json",
    "freeze_value",
    "full_widths",
    "short_hash",
]
