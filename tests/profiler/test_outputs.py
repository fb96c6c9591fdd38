"""Outputs' tensors, and how far outputs lie apart."""

import torch

from profiler.outputs import relative_difference


def test_differences_are_relative_and_other_shapes_are_infinitely_far() -> None:
    one = torch.tensor([1.0, -4.0])
    assert relative_difference(one, one) == 0
    assert relative_difference([one + 1], {"a": one}) == 0.25
    assert relative_difference(one, one[:1]) == float("inf")
    assert relative_difference(one, [one, one]) == float("inf")
    assert relative_difference(one * float("nan"), one) == float("inf")
