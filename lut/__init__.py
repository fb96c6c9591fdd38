"""Latency tables: the records, their storage, and prediction. Needs only the standard library and numpy."""

from lut.calibration import calibrate
from lut.errors import (
    BackendError,
    BudgetError,
    LatpruneError,
    MissingFamilyError,
    RunError,
    TableError,
    TaskError,
)
from lut.memory import Liveness, Memory, TensorBytes
from lut.opening import open_table
from lut.predict import Predictor, predict
from lut.records import (
    Basis,
    Calibration,
    ChannelGroup,
    Coordinate,
    DeviceFingerprint,
    Estimate,
    MeasureConfig,
    Measurement,
    Member,
    NetworkMeasurement,
    Prediction,
    Unit,
    UnitEstimate,
    UnitFamily,
    UnitSpec,
    canonical_json,
    full_widths,
    short_hash,
)
from lut.store import TableFile
from lut.surface import BASES, EstimateArrays, Points, Surface
from lut.table import LatencyTable

__all__ = [
    "BASES",
    "BackendError",
    "Basis",
    "BudgetError",
    "Calibration",
    "ChannelGroup",
    "Coordinate",
    "DeviceFingerprint",
    "Estimate",
    "EstimateArrays",
    "LatencyTable",
    "LatpruneError",
    "Liveness",
    "MeasureConfig",
    "Measurement",
    "Member",
    "Memory",
    "MissingFamilyError",
    "NetworkMeasurement",
    "Points",
    "Prediction",
    "Predictor",
    "RunError",
    "Surface",
    "TableError",
    "TableFile",
    "TaskError",
    "TensorBytes",
    "Unit",
    "UnitEstimate",
    "UnitFamily",
    "UnitSpec",
    "calibrate",
    "canonical_json",
    "full_widths",
    "open_table",
    "predict",
    "short_hash",
]
