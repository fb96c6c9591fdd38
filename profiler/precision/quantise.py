"""From fp32 to int8 by ONNX Runtime's static quantiser, calibrated on batches.

Symmetric, weights per channel, biases in floats, as TensorRT wants Q/DQ pairs. Only what contracts is quantised, and
only its inputs: what it writes stays in floats until the next contraction reads it.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx

from lut.errors import BackendError
from profiler.backends.inputs import name_feeds
from profiler.backends.interface import Array, Feeds
from profiler.backends.onnxruntime import INSTALL

QUANTISED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": list(QUANTISED),
}


class _Reader:
    """Feeds one by one; what the quantiser takes for a `CalibrationDataReader`."""

    def __init__(self, named: Sequence[dict[str, Array]]) -> None:
        self._left: Iterator[dict[str, Array]] = iter(named)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._left, None)


def quantise(model: onnx.ModelProto, batches: Sequence[Feeds]) -> onnx.ModelProto:
    """Quantise; inputs and outputs stay fp32.

    Args:
        model: left as it is.
        batches: the largest magnitude of each tensor over them is its scale.

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
        with _quiet():
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
        return onnx.load(out)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser tells everybody, by the root logger, to prepare files that were prepared by the exporter."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
