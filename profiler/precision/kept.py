"""What stays in fp32."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """A node that stays in fp32 though others do not.

    Attributes:
        node: its name in the ONNX file.
        because: what did not fit, with the number.
    """

    node: str
    because: str
