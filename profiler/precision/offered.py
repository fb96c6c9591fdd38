"""Which precisions there are, and why one of them is refused."""

from typing import Literal, get_args

from lut.errors import LatpruneError

Precision = Literal["fp32", "fp16", "bf16", "int8"]
Remainder = Literal["fp32", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def refuse_precision(precision: str) -> None:
    """Refuse a precision that nothing is converted to here; asked before any work is done.

    Raises:
        LatpruneError: it is bf16, with the reason, or none at all.
    """
    if precision == "bf16":
        raise LatpruneError(
            "bf16 is not offered: TensorRT for RTX 1.7 does not parse bf16 convolutions, and ONNX Runtime's CPU "
            "provider does not run them, so that nothing could be checked. fp16 is: --precision fp16."
        )
    if precision not in PRECISIONS:
        raise LatpruneError(f"There is no precision {precision!r}; there are {', '.join(PRECISIONS)}.")
