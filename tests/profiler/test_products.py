"""Products of two activations: what is padded for them, on values of known shapes."""

from collections.abc import Mapping

from profiler.fusion import Operation
from profiler.products import Factor, product


class Plain:
    """Values without views; a length of 0 follows widths."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        self.shapes = dict(enumerate(shapes))

    def root(self, value: int) -> int:
        return value

    def length(self, value: int, dimension: int) -> int | None:
        return self.shapes[value][dimension] or None

    def copy(self, value: int, lengths: Mapping[int, int]) -> int:
        shape = list(self.shapes[value])
        for dimension, length in lengths.items():
            shape[dimension] = length
        self.shapes[len(self.shapes)] = tuple(shape)
        return len(self.shapes) - 1


def scores(values: Plain) -> list[Operation]:
    return list(product(Factor(0, -1, -2), Factor(1, -1, -2), 2, values))


def shares(values: Plain) -> list[Operation]:
    return list(product(Factor(0, -1, -2), Factor(1, -2, -1), 2, values))


def test_even_lengths_need_no_padding() -> None:
    assert scores(Plain((3, 48, 16), (3, 48, 16), (3, 48, 48))) == [Operation("product", (0, 1), (2,))]


def test_odd_rows_of_keys_are_padded_and_the_product_is_cut() -> None:
    values = Plain((3, 49, 16), (3, 49, 16), (3, 49, 49))
    assert scores(values) == [
        Operation("library", (1,), (3,)),
        Operation("product", (0, 3), (4,)),
        Operation("library", (4,), (2,)),
    ]
    assert (values.shapes[3], values.shapes[4]) == ((3, 50, 16), (3, 49, 50))


def test_an_odd_sum_pads_both_operands() -> None:
    values = Plain((3, 49, 49), (3, 49, 16), (3, 49, 16))
    assert shares(values) == [
        Operation("library", (0,), (3,)),
        Operation("library", (1,), (4,)),
        Operation("product", (3, 4), (2,)),
    ]
    assert (values.shapes[3], values.shapes[4]) == ((3, 49, 50), (3, 50, 16))


def test_lengths_that_follow_widths_are_taken_as_even() -> None:
    assert scores(Plain((3, 49, 0), (3, 50, 0), (3, 49, 50))) == [Operation("product", (0, 1), (2,))]
