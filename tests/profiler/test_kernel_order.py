"""The orders were read from TensorRT for RTX 1.7.1's own list of kernels, of small graphs of convolutions."""

from profiler.fusion import Operation
from profiler.kernel_order import branch_order, run_order


def test_of_a_values_readers_the_last_branch_comes_first() -> None:
    edges = [(0, 1), (1, 2), (1, 3), (3, 4), (3, 5)]
    operations = [Operation("contraction", (given,), (made,)) for given, made in edges]
    assert branch_order(operations) == [0, 4, 1, 3, 2]


def test_the_deepest_operand_is_made_first_and_of_equally_deep_ones_the_last() -> None:
    operands = {"end": ["deep", "left", "right"], "deep": ["trunk"], "trunk": [], "left": [], "right": []}
    assert run_order(["end"], operands, ()) == ["trunk", "deep", "right", "left", "end"]
