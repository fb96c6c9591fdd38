from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from profiler.backends.onnxruntime_plain import evaluate
from profiler.cut import cut
from profiler.export import flat_arrays, largest_difference, lively, output_arrays
from profiler.inplace import Owners
from profiler.network import Network, analyze
from profiler.proof import some_of
from profiler.variant_compare import choose_widths
from profiler.variants import Variants, prepare
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


class Restored(nn.Module):
    """Residual blocks, a split in four with depthwise paths of different depth, pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.widen = nn.Conv2d(12, 16, 1, bias=False)
        paths = [[layer for _ in range(depth) for layer in (self.depthwise(), nn.PReLU(4))] for depth in range(4)]
        self.paths = nn.ModuleList(nn.Sequential(self.depthwise(), *path) for path in paths)
        self.narrow = nn.Conv2d(16, 12, 1, bias=False)
        self.up = nn.Conv2d(12, 48, 1)
        self.last = nn.Conv2d(12, 3, 1)

    @staticmethod
    def depthwise() -> nn.Module:
        return nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        parts = zip(self.paths, self.widen(x).split(4, dim=1), strict=True)
        x = x + 0.1 * self.narrow(torch.cat([path(part) for path, part in parts], dim=1))
        return self.last(functional.pixel_shuffle(self.up(x), 2))


class Around(nn.Module):
    """A module over tokens between two linear layers."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.before, self.inner, self.after = nn.Linear(6, 24), inner, nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.inner(self.before(x)))


class SelfAttention(nn.Module):
    """PyTorch's attention of all tokens to all, with a residual."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(24, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(x, x, x, need_weights=False)[0]


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(24, 3, 32, batch_first=True)
    return Around(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


def transformer() -> nn.Module:
    vision = pytest.importorskip("torchvision.models")
    model: nn.Module = vision.VisionTransformer(32, 16, num_layers=2, num_heads=3, hidden_dim=24, mlp_dim=40)
    return model


class Strided(nn.Module):
    """The exporter writes its strides as a look-up of every element."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2, groups=8)
        self.second = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.up(self.first(x))).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        return self.second(functional.adaptive_avg_pool2d(x, 1))


class Partial(nn.Module):
    """The first channels are convolved and written back, the others pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Conv2d(3, 16, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        x = torch.cat([self.inner(x[:, :4]), x[:, 4:]], dim=1)
        x[:, 4:] = torch.relu(x[:, 4:])
        return self.second(x)


class Rolled(nn.Module):
    """How far channels are moved hangs on which ones are gone, not on how many."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)).roll(3, 1))


KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "restoration": (Restored, (1, 3, 8, 8)),
    "parts": (Partial, (1, 3, 6, 6)),
    "strides": (Strided, (1, 3, 6, 6)),
    "attention": (lambda: Around(SelfAttention(4)), (2, 7, 6)),
    "attention of two heads": (lambda: Around(SelfAttention(2)), (2, 7, 6)),
    "transformer encoder": (encoder, (2, 7, 6)),
    "vision transformer": (transformer, (1, 3, 32, 32)),
}


def proved(module: nn.Module, inputs: tuple[Any, ...], times: int = 2) -> tuple[Network, Variants]:
    """The variants of a network, once they are the shrunk networks at random removals."""
    network = analyze(module, inputs)
    variants = prepare(network)
    generator = np.random.default_rng(3)
    for _ in range(times):
        remove = {group.name: some_of(group, generator) for group in network.groups if group.size > 1}
        assert any(remove.values())
        found = evaluate(variants.at(remove).SerializeToString(), flat_arrays(lively(network.inputs)))
        expected = output_arrays(cut(module, network.groups, remove), lively(network.inputs))
        assert largest_difference(list(found.values()), expected) <= 1e-5
    return network, variants


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_block_is_sliced_and_its_costly_nodes_belong_to_units(kind: str) -> None:
    torch.manual_seed(0)
    build, shape = KINDS[kind]
    network, variants = proved(build().eval(), (torch.randn(shape),))
    assert network.widths
    assert variants.anew_because is None
    owned = Owners.of(variants).unit_of
    costly = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Softmax", "LayerNormalization", "Gelu", "PRelu"}
    for node in variants.base.graph.node:
        assert node.op_type not in costly or all(name in owned for name in node.output), node.name


def test_a_graph_that_cannot_be_sliced_is_exported_anew() -> None:
    torch.manual_seed(0)
    _, variants = proved(Rolled().eval(), (torch.randn(1, 3, 6, 6),), times=1)
    assert variants.anew_because


def test_a_weight_is_not_repeated_for_every_matrix_that_it_meets() -> None:
    torch.manual_seed(0)
    module = Around(SelfAttention(4)).eval()
    variants = prepare(analyze(module, (torch.randn(2, 7, 6),)))
    assert "Expand" not in {node.op_type for node in variants.base.graph.node}


def test_no_two_lengths_shrink_alike_at_the_widths_compared() -> None:
    torch.manual_seed(0)
    network = analyze(encoder().eval(), (torch.randn(2, 7, 6),))
    comparison = choose_widths(network)
    for ratios, length in comparison.length_of.items():
        full = length.at(network.widths)
        assert all(full * ratio == length.at(each) for ratio, each in zip(ratios, comparison.widths, strict=True))
        assert any(ratio != 1 for ratio in ratios)


LARGE = """resnet18 resnet50 mobilenet_v2 mobilenet_v3_large efficientnet_b0 regnet_y_400mf densenet121
shufflenet_v2_x1_0 googlenet vit_b_16 swin_t swin_v2_t maxvit_t convnext_tiny""".split()


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_networks_of_torchvision_are_sliced(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    _, variants = proved(
        models.get_model(name, weights=None, **options).eval(), (torch.randn(1, 3, 224, 224),), times=1
    )
    assert variants.anew_because is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "fcos_resnet50_fpn"])
def test_dense_parts_of_detectors_are_sliced(name: str) -> None:
    pytest.importorskip("torchvision")
    from benchmarks.coverage_models import DensePart, build, find_row

    torch.manual_seed(0)
    _, variants = proved(DensePart(build(find_row(name))).eval(), (torch.randn(1, 3, 128, 128),), times=1)
    assert variants.anew_because is None


class Swapped(nn.Module):
    """Its code counts channels from an end: where a slice begins hangs on which channels go, not on how many."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(torch.tanh(torch.cat([x[:, 2:], x[:, :2]], 1)))


def test_slices_that_hang_on_which_channels_go_are_exported_anew() -> None:
    torch.manual_seed(0)
    module = Swapped().eval()
    network = analyze(module, (torch.randn(1, 3, 4, 4),))
    variants = prepare(network)
    assert variants.anew_because is not None
    for gone in ([0], [5], [0, 1], [1, 2, 3]):
        found = evaluate(variants.at({"first": gone}).SerializeToString(), flat_arrays(network.inputs))
        expected = output_arrays(cut(module, network.groups, {"first": gone}), network.inputs)
        assert largest_difference(list(found.values()), expected) <= 1e-5
