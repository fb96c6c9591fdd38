"""From fp32 to int8 by ONNX Runtime's static quantiser, calibrated on batches.

Symmetric, weights per channel, biases in floats, as TensorRT wants Q/DQ pairs. Only what contracts is quantised, and
only its inputs: what it writes stays in floats until the next contraction reads it.
"""

import contextlib
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx

from lut.errors import BackendError
from profiler.backends.inputs import name_feeds
from profiler.backends.interface import Array, Feeds
from profiler.backends.onnxruntime import INSTALL, saying_only_errors

QUANTISED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": list(QUANTISED),
}
MEANINGLESS = ("pre-processing before quantization",)
"""The exporter has prepared the file already."""


class _Reader:
    """Feeds one by one; what the quantiser takes for a `CalibrationDataReader`."""

    def __init__(self, named: Sequence[dict[str, Array]]) -> None:
        self._left: Iterator[dict[str, Array]] = iter(named)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._left, None)


def quantise(model: onnx.ModelProto, batches: Sequence[Feeds]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Quantise; inputs and outputs stay fp32.

    Args:
        model: left as it is.
        batches: the largest magnitude of each tensor over them is its scale.

    Returns:
        The model, and what the quantiser warns of: each warning once, with how often it came.

    Raises:
        BackendError: ONNX Runtime is not installed, or the batches are not the network's inputs.
    """
    try:
        import onnxruntime.quantization as tool
    except ImportError as error:
        raise BackendError(f"Quantising needs ONNX Runtime ({error}). Install it: {INSTALL}") from error
    wanted = [value.name for value in model.graph.input]

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        out = Path(folder, "int8.onnx")
        # the graph that is run for the scales alone is nobody's to deploy, so what is said of it does not matter
        with saying_only_errors(), _heard() as warned:
            tool.quantize_static(
                copy,
                str(out),
                _Reader([name_feeds(feeds, wanted) for feeds in batches]),
                quant_format=tool.QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                per_channel=True,
                activation_type=tool.QuantType.QInt8,
                weight_type=tool.QuantType.QInt8,
                extra_options=OPTIONS,
            )
        return onnx.load(out), _counted(warned)


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect what is warned of, so that nothing of it reaches the terminal as it is.

    The quantiser tells everybody, by the root logger and by Python's warnings.
    """
    root, told = logging.getLogger(), list[str]()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = [_Collector(told)]
    root.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            yield told
        told.extend(str(one.message) for one in found)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


class _Collector(logging.Handler):
    """Keeps messages."""

    def __init__(self, told: list[str]) -> None:
        super().__init__()
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self._told.append(record.getMessage())


def _counted(warned: Sequence[str]) -> tuple[str, ...]:
    """Each warning that means something once, with how often it came."""
    counts = Counter(text for text in warned if not any(words in text for words in MEANINGLESS))
    return tuple(
        f"The quantiser warns{f' {count} times' if count > 1 else ''}: {text}" for text, count in counts.items()
    )
