"""From an fp32 ONNX model to one in another precision, with what had to stay and why."""

from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from lut.errors import LatpruneError
from profiler.backends.interface import Feeds
from profiler.precision.half import to_half
from profiler.precision.kept import Kept
from profiler.precision.offered import Precision, Remainder, refuse_precision
from profiler.precision.quantise import quantise


@dataclass(frozen=True)
class Converted:
    """A model in another precision.

    Attributes:
        model: its inputs and outputs have the types that they had.
        precision: asked for.
        remainder: what runs where the network is not quantised; for fp16 the same as the precision.
        kept: nodes that stay in fp32 though the others do not.
        notes: what else is to be known, in sentences.
    """

    model: onnx.ModelProto
    precision: Precision
    remainder: Precision
    kept: tuple[Kept, ...] = ()
    notes: tuple[str, ...] = ()


def to_precision(
    model: onnx.ModelProto, precision: Precision, batches: Iterable[Feeds] = (), *, remainder: Remainder = "fp32"
) -> onnx.ModelProto:
    """Convert a model; `convert` tells more of what came of it."""
    return convert(model, precision, batches, remainder=remainder).model


def convert(
    model: onnx.ModelProto, precision: Precision, batches: Iterable[Feeds] = (), *, remainder: Remainder = "fp32"
) -> Converted:
    """Convert an fp32 model; its inputs and outputs keep their types.

    Args:
        model: left as it is.
        precision: to convert to.
        batches: the network's inputs, by name or in order, in the shapes of the file. int8 takes its scales from them;
            for fp16 they tell which activations do not fit.
        remainder: of int8, what runs where nothing is quantised.

    Raises:
        LatpruneError: int8 without batches, a precision that is not offered here, or a result that is not finite.
        BackendError: ONNX Runtime, whose converters these are, is not installed.
    """
    refuse_precision(precision)
    given = list(batches)
    match precision:
        case "fp32":
            return Converted(_copy(model), precision, precision)
        case "fp16":
            converted, kept = to_half(model, given)
            return Converted(converted, precision, precision, kept)
        case "int8":
            if not given:
                raise LatpruneError(
                    "int8 takes its scales from batches, and there are none. Give a task with train_batches()."
                )
            quantised, notes = quantise(model, given)
            if remainder == "fp32":
                return Converted(quantised, precision, "fp32", notes=notes)
            converted, kept = to_half(quantised, given)
            return Converted(converted, precision, "fp16", kept, notes)
    raise AssertionError(precision)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
