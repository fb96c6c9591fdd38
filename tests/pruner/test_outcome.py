"""What is said of an exported network's outputs where there is nothing to compare."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pruner.bench import Bench
from pruner.outcome import outputs_check

ONES = np.ones((1, 2), dtype=np.float32)


class Gives(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x, self.value)


@pytest.mark.parametrize(
    ("exported", "failure", "value", "difference", "said"),
    [
        (ONES, None, 1.0, 0.0, "differs from PyTorch by 0, at most 1e-04"),
        (ONES, None, 2.0, 0.5, "differs from PyTorch by 0.5, at most 1e-04"),
        (ONES, "out of memory", 1.0, None, "does not run: out of memory"),
        (ONES * np.nan, None, 1.0, None, "other outputs than PyTorch"),
        (ONES, None, float("nan"), None, "PyTorch's own outputs are not finite"),
    ],
)
def test_a_difference_is_a_figure_or_none_and_the_check_says_why(
    exported: Any, failure: str | None, value: float, difference: float | None, said: str
) -> None:
    reply = SimpleNamespace(failure=failure, outputs={"y": exported})
    bench = cast(Bench, SimpleNamespace(client=SimpleNamespace(outputs=lambda path, feeds: reply)))
    found, check = outputs_check(bench, Path("model.onnx"), Gives(value), (torch.zeros(1, 2),))
    assert found == difference
    assert check.passed == (difference == 0.0)
    assert said in check.detail
