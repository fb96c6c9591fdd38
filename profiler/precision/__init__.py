"""A network's ONNX file in the precision that is deployed: fp16, or int8 with what is left in fp32 or fp16.

TensorRT and ONNX Runtime take the precision from the file's own types. The conversions are ONNX Runtime's; which values
do not fit is found here, on batches, before anything is converted.
"""

from profiler.precision.convert import Converted, convert, to_precision
from profiler.precision.devices import Fitted, convert_for, remainder_for, to_device
from profiler.precision.kept import Kept
from profiler.precision.offered import PRECISIONS, Precision, Remainder

__all__ = [
    "PRECISIONS",
    "Converted",
    "Fitted",
    "Kept",
    "Precision",
    "Remainder",
    "convert",
    "convert_for",
    "remainder_for",
    "to_device",
    "to_precision",
]
