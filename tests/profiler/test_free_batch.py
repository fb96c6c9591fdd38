"""One file for several batches: it computes what PyTorch does at each, or is refused with the reason."""

from collections.abc import Mapping
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from lut.errors import LatpruneError
from profiler.backends.onnxruntime_plain import evaluate
from profiler.export import flat_arrays, largest_difference, output_arrays
from profiler.free_batch import at_batch, distinct_samples, free_inputs, to_free_batch

pytest.importorskip("onnxruntime")


class Tokens(nn.Module):
    """A picture cut into tokens, one more token in front, and a table that has no batch."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.head = nn.Linear(8 * 5, 6)

    def forward(self, given: Mapping[str, Tensor], *more: Tensor) -> Tensor:
        x = self.cut(given["picture"]).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + more[0]
        x = x.view(x.shape[0], 5, 2, 4).transpose(2, 3).reshape(x.shape[0], -1)
        found: Tensor = self.head(x)
        return found


TABLE = torch.randn(5, 8)


def inputs(batch: int) -> tuple[Any, ...]:
    return {"picture": torch.randn(batch, 3, 8, 8)}, TABLE


@pytest.fixture(scope="module")
def tokens() -> tuple[nn.Module, onnx.ModelProto]:
    model = Tokens().eval()
    return model, to_free_batch(model, inputs(2), inputs(3))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_it_computes_what_pytorch_does_at_any_batch(tokens: tuple[nn.Module, onnx.ModelProto], batch: int) -> None:
    model, free = tokens
    given = inputs(batch)
    for file in (free, at_batch(free, batch)):
        found = evaluate(file.SerializeToString(), flat_arrays(given))
        assert largest_difference(list(found.values()), output_arrays(model, given)) < 1e-5


def test_only_what_has_the_batch_is_free_and_reshapes_say_their_sizes(
    tokens: tuple[nn.Module, onnx.ModelProto],
) -> None:
    _, free = tokens
    assert free_inputs(free) == [free.graph.input[0].name]
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in free.graph.initializer}
    sizes = [constants[node.input[1]].tolist() for node in free.graph.node if node.op_type == "Reshape"]
    assert sizes
    assert all(size.count(-1) == 1 for size in sizes)
    (output,) = at_batch(free, 7).graph.output
    assert [dim.dim_value for dim in output.type.tensor_type.shape.dim] == [7, 6]


class Counted(nn.Module):
    """Takes the batch for a number."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(x.view(2, 12))
        return found


def test_code_that_fixes_the_batch_is_refused_with_its_number() -> None:
    with pytest.raises(LatpruneError, match=r"cannot be left free.*static shape of 2.*shape\[0\]"):
        to_free_batch(Counted(), (torch.randn(2, 3, 4),), (torch.randn(3, 3, 4),))


def test_samples_that_were_repeated_become_different_ones_with_the_same_values() -> None:
    tokens, lengths, table = torch.arange(4).expand(3, 4), torch.ones(3), torch.arange(8).view(2, 4)
    one, two, three = distinct_samples((tokens, lengths, table), (tokens[:2], lengths[:2], table))
    assert one.tolist() == [[0, 1, 2, 3], [3, 0, 1, 2], [2, 3, 0, 1]]
    assert torch.equal(two, lengths)
    assert torch.equal(three, table)
