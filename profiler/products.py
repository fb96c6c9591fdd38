"""Products of two activations as a compiler runs them, with what it pads for them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from profiler.fusion import Operation


@dataclass(frozen=True)
class Factor:
    """An operand of a product.

    Attributes:
        value: its number.
        inner, outer: the dimensions that the product sums over, and that it keeps; negative, from the last.
    """

    value: int
    inner: int
    outer: int


class Values(Protocol):
    """What a product needs to know of a network's values."""

    def root(self, value: int) -> int:
        """The value of which this one is a view."""

    def length(self, value: int, dimension: int) -> int | None:
        """The length of a dimension, or None where it follows widths."""

    def copy(self, value: int, lengths: Mapping[int, int]) -> int:
        """Make a value like another, but for some dimensions' lengths, and give its number."""


def product(left: Factor, right: Factor, output: int, values: Values) -> Iterator[Operation]:
    """Multiply `[…, M, K]` by `[…, K, N]`: TensorRT for RTX wants K and N even.

    Odd ones are padded by kernels of their own, and what is too wide in the product is cut off by another.
    """
    inner, outer = values.length(right.value, right.inner), values.length(right.value, right.outer)
    read = []
    for factor, sizes in ((left, {left.inner: inner}), (right, {right.inner: inner, right.outer: outer})):
        wider = {dimension: size + 1 for dimension, size in sizes.items() if size is not None and size % 2}
        root = values.root(factor.value)
        read.append(values.copy(factor.value, wider) if wider else root)
        if wider:
            yield Operation("library", (root,), (read[-1],))
    if outer is None or outer % 2 == 0:
        yield Operation("product", tuple(read), (output,))
        return
    wide = values.copy(output, {-1: outer + 1})
    yield Operation("product", tuple(read), (wide,))
    yield Operation("library", (wide,), (output,))
