"""What is profiled and timed in the loop is what is deployed: a variant is the file that the cut network becomes."""

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from profiler.backends.onnxruntime_plain import evaluate
from profiler.cut import cut
from profiler.export import flat_arrays, largest_difference, output_arrays, to_onnx
from profiler.graph_form import read_form
from profiler.inplace import Owners
from profiler.network import Network, analyze
from profiler.program_module import ProgramModule
from profiler.proof import uneven_removal
from profiler.variants import Variants, prepare
from pruner.narrow import without_programs_of
from tests.profiler.test_programs import Net as Rolled
from tests.profiler.test_variants import Restored
from tests.pruner.example_task import SmallNet

runtime = pytest.importorskip("onnxruntime")


class ViewWithConstant(nn.Module):
    """Heads of a width that stands in the code, between layers that hold no number."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = Heads(), nn.Linear(16, 3)
        self.before, self.after = nn.Linear(6, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(torch.relu(self.before(x)))
        return self.head(torch.relu(self.after(x)).mean(1))


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inward, self.outward = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inward(x).view(x.shape[0], -1, 3, 2, 8).unbind(2)
        found = torch.softmax(q.transpose(1, 2) @ k.permute(0, 2, 3, 1) * 8**-0.5, -1) @ v.transpose(1, 2)
        return self.outward(found.transpose(1, 2).reshape(x.shape))


def vision_transformer() -> nn.Module:
    vision = pytest.importorskip("torchvision.models")
    model: nn.Module = vision.VisionTransformer(32, 16, num_layers=2, num_heads=3, hidden_dim=24, mlp_dim=40)
    return model


def swin() -> nn.Module:
    vision = pytest.importorskip("torchvision.models")
    model: nn.Module = vision.SwinTransformer([2, 2], 12, [2], [3], [2, 2], num_classes=4)
    return model


KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (SmallNet, (2, 1, 16, 16)),
    "split by number": (Restored, (1, 3, 8, 8)),
    "rolled": (Rolled, (1, 3, 8, 8)),
    "view with constant": (ViewWithConstant, (2, 5, 6)),
    "vision transformer": (vision_transformer, (1, 3, 32, 32)),
    "shifted windows": (swin, (1, 3, 16, 16)),
}


SLOW = {"rolled", "shifted windows"}
"""Exported anew at each removal, or long to analyse."""


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=[pytest.mark.slow] if kind in SLOW else []) for kind in KINDS]
)
def prepared(request: pytest.FixtureRequest) -> tuple[Network, Variants]:
    torch.manual_seed(0)
    build, shape = KINDS[request.param]
    network = analyze(build().eval(), (torch.randn(shape),))
    variants = prepare(network)
    assert bool(variants.anew_because) == (request.param == "rolled")
    assert (variants.whole is None) == (request.param == "plain")
    return network, variants


def optimised(model: onnx.ModelProto) -> Counter[str]:
    """The kinds of nodes that ONNX Runtime makes of a graph."""
    with tempfile.TemporaryDirectory() as folder:
        options = runtime.SessionOptions()
        options.optimized_model_filepath, options.log_severity_level = str(Path(folder) / "optimised.onnx"), 3
        runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def test_a_variant_is_the_file_that_the_cut_network_becomes(prepared: tuple[Network, Variants]) -> None:
    network, variants = prepared
    groups = [group for group in network.groups if group.size > 1]
    alone = {groups[-1].name: [0]}
    for remove in (uneven_removal(groups, 0), alone):
        variant, deployed = variants.at(remove), to_onnx(cut(network.model, groups, remove), network.inputs)
        assert read_form(variant) == read_form(deployed)
        assert optimised(variant) == optimised(deployed)


def test_without_a_removal_it_is_the_users_own_module(prepared: tuple[Network, Variants]) -> None:
    network, variants = prepared
    assert read_form(variants.at({})) == read_form(to_onnx(network.model, network.inputs))
    found = list(evaluate(variants.at({}).SerializeToString(), flat_arrays(network.inputs)).values())
    assert largest_difference(found, output_arrays(network.model, network.inputs)) <= 1e-5


def test_costly_nodes_of_both_graphs_belong_to_units(prepared: tuple[Network, Variants]) -> None:
    network, variants = prepared
    owned = Owners.of(variants).unit_of
    half = variants.widths_removal({name: max(1, size // 2) for name, size in network.widths.items()})
    units = []
    for model in (variants.at({}), variants.at(half)):
        costly = [n for n in model.graph.node if n.op_type in {"Conv", "Gemm", "MatMul", "Softmax", "Gelu"}]
        assert costly
        assert all(node.output[0] in owned for node in costly)
        units.append({owned[node.output[0]] for node in costly})
    assert units[0] == units[1]


def test_a_group_that_stays_needs_no_program() -> None:
    torch.manual_seed(0)
    network = analyze(vision_transformer().eval(), (torch.randn(1, 3, 32, 32),))
    stay = {group.name for group in network.groups if group.programs}
    network = without_programs_of(frozenset(stay), network)
    variants = prepare(network, stay=stay)
    assert variants.whole is None
    assert variants.anew_because is None
    groups = [group for group in network.groups if group.size > 1 and group.name not in stay]
    remove = uneven_removal(groups, 0)
    smaller = cut(network.model, network.groups, remove)
    assert not any(isinstance(module, ProgramModule) for module in smaller.modules())
    assert read_form(variants.at(remove)) == read_form(to_onnx(smaller, network.inputs))


def test_a_form_tells_sizes_apart_and_not_weights() -> None:
    def export(width: int, seed: int) -> onnx.ModelProto:
        torch.manual_seed(seed)
        return to_onnx(nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2)), (torch.zeros(1, 4),))

    assert read_form(export(6, 0)) == read_form(export(6, 1))
    assert read_form(export(6, 0)) != read_form(export(5, 0))


def test_a_bias_that_is_zero_before_training_stays_in_the_file() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval()
    before = to_onnx(model, (torch.zeros(1, 3, 4, 4),))
    with torch.no_grad():
        model[2].bias.zero_()
    assert [len(node.input) for node in before.graph.node] == [3, 3]
    assert read_form(before) == read_form(to_onnx(model, (torch.zeros(1, 3, 4, 4),)))
