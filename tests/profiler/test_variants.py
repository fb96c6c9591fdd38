import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from profiler.backends.onnxruntime import evaluate
from profiler.cut import cut
from profiler.export import flat_arrays, largest_difference, lively, output_arrays
from profiler.inplace import Owners
from profiler.network import analyze
from profiler.proof import some_of
from profiler.variants import prepare
from tests.pruner.example_task import SmallNet

pytest.importorskip("onnxruntime")


class Shuffled(nn.Module):
    """Split in two, shuffled and flattened: sizes stand in the graph in many places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.branch = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 8, 1)
        self.up = nn.Conv2d(16, 32, 1)
        self.last = nn.Conv2d(8, 12, 1)
        self.head = nn.Linear(12 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.first(x).chunk(2, dim=1)
        x = torch.cat([left, torch.tanh(self.point(self.branch(right)))], dim=1)
        x = x.view(len(x), 2, -1, 4, 4).transpose(1, 2).flatten(1, 2)
        x = functional.pixel_shuffle(torch.tanh(self.up(x)), 2)
        return self.head(self.last(x).flatten(1))


@pytest.mark.parametrize(
    ("model", "shape"), [(SmallNet, (2, 1, 16, 16)), (Shuffled, (1, 3, 4, 4))], ids=["small", "shuffled"]
)
@pytest.mark.parametrize("silent", [True, False], ids=["zeros as inputs", "random inputs"])
def test_a_sliced_graph_is_the_shrunk_network(model: type[nn.Module], shape: tuple[int, ...], silent: bool) -> None:
    torch.manual_seed(0)
    module = model().eval()
    network = analyze(module, ((torch.zeros if silent else torch.randn)(shape),))
    variants = prepare(network)
    assert variants.anew_because is None
    inputs = lively(network.inputs)
    generator = np.random.default_rng(3)
    for _ in range(3):
        remove = {group.name: some_of(group, generator) for group in network.groups if group.size > 1}
        assert any(remove.values())
        found = evaluate(variants.at(remove).SerializeToString(), flat_arrays(inputs))
        expected = output_arrays(cut(module, network.groups, remove), inputs)
        assert largest_difference(list(found.values()), expected) <= 1e-5


def test_every_value_of_the_graph_belongs_to_a_unit() -> None:
    torch.manual_seed(0)
    network = analyze(SmallNet().eval(), (torch.zeros(2, 1, 16, 16),))
    variants = prepare(network)
    owners = Owners.of(variants)
    for node in variants.base.graph.node:
        if node.op_type in {"Conv", "Gemm", "Relu", "Add", "Mul", "ReduceMean", "BatchNormalization"}:
            assert all(name in owners.unit_of for name in node.output), node.name
    convolutions = [node for node in variants.base.graph.node if node.op_type == "Conv"]
    names = [network.units[owners.unit_of[node.output[0]]].name for node in convolutions]
    assert names == ["stem", "inner", "outer", "expand", "depthwise", "squeeze", "excite", "project"]


class Strided(nn.Module):
    """Its exporter writes sizes as an index, which no slicing can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x)).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        return self.second(functional.adaptive_avg_pool2d(x, 1))


def test_a_graph_that_cannot_be_sliced_is_exported_anew() -> None:
    torch.manual_seed(0)
    module = Strided().eval()
    network = analyze(module, (torch.randn(1, 3, 6, 6),))
    variants = prepare(network)
    remove = {name: [0, 2] for name in network.widths}
    found = evaluate(variants.at(remove).SerializeToString(), flat_arrays(network.inputs))
    expected = output_arrays(cut(module, network.groups, remove), network.inputs)
    assert largest_difference(list(found.values()), expected) <= 1e-5
