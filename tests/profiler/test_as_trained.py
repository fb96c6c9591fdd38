"""Parameters that are alike get contents of their own in all variants; all else keeps what it has."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from profiler.as_trained import as_trained
from profiler.backends.onnxruntime_plain import evaluate
from profiler.export import flat_arrays, largest_difference
from profiler.graph_form import read_form
from profiler.network import analyze
from profiler.variants import Variants, prepare

pytest.importorskip("onnxruntime")


class Alike(nn.Module):
    """Two equal layers, fresh norms, and a buffer of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.folded = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.norm = nn.LayerNorm(6)
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.load_state_dict(self.first.state_dict())
        self.mask: Tensor
        self.register_buffer("mask", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.folded(self.stem(x)).mean((2, 3))
        return self.second(self.first(self.norm(x)).relu() + self.mask)


@pytest.fixture(scope="module")
def plain() -> Variants:
    torch.manual_seed(0)
    return prepare(analyze(Alike().eval(), (torch.randn(1, 3, 8, 8),)))


def contents(model: onnx.ModelProto) -> list[bytes]:
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return [array.tobytes() for array in arrays if array.dtype.kind == "f" and array.any()]


def anew(variants: Variants) -> Variants:
    return replace(variants, anew_because="so it was asked")


@pytest.mark.parametrize("how", [lambda variants: variants, anew], ids=["sliced", "anew"])
def test_no_two_parameters_are_alike_at_any_widths(plain: Variants, how: Callable[[Variants], Variants]) -> None:
    trained, inputs = as_trained(how(plain)), flat_arrays(plain.network.inputs)
    half = plain.widths_removal({name: size // 2 for name, size in plain.network.widths.items()})
    for remove in ({}, half):
        before, after = how(plain).at(remove), trained.at(remove)
        assert len(contents(after)) == len(set(contents(after))) > len(set(contents(before)))
        assert all(len(set(np.frombuffer(array, np.float32))) > 1 for array in contents(after))
        found = [list(evaluate(model.SerializeToString(), inputs).values()) for model in (after, before)]
        assert largest_difference(*found) < 0.1


def test_only_contents_change(plain: Variants) -> None:
    base = plain.base.SerializeToString()
    trained = as_trained(plain)
    assert plain.base.SerializeToString() == base
    named = {name: torch.equal(value, trained.network.model.state_dict()[name]) for name, value in _state(plain)}
    assert all(named.values())
    assert read_form(trained.at({})) == read_form(plain.at({}))
    stem = [numpy_helper.to_array(t) for t in trained.base.graph.initializer if t.name in ("stem.weight", "mask")]
    own = [numpy_helper.to_array(t) for t in plain.base.graph.initializer if t.name in ("stem.weight", "mask")]
    assert all(np.array_equal(one, other) for one, other in zip(stem, own, strict=True))
    assert len(stem) == 2


def _state(variants: Variants) -> list[tuple[str, Tensor]]:
    return list(variants.network.model.state_dict().items())
