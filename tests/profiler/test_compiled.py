"""Memory by a compiler's rules: the same from the trace and the file, at any widths, and what the compiler says."""

from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lut.memory import MemoryRules
from lut.records import full_widths
from profiler.backends import BuildSettings
from profiler.backends.tensorrt_rtx import MEMORY
from profiler.compiled import compiled_liveness
from profiler.cut import cut
from profiler.export import write_onnx
from profiler.graph_memory import graph_memory
from profiler.groups import read_structure
from profiler.network import Network, analyze
from profiler.trial import analyze_structure
from profiler.variants import prepare
from profiler.worker_client import WorkerClient
from tests.profiler.random_networks import RandomNetwork
from tests.profiler.test_shrunk_is_masked import few, inputs_of, networks, random_removal

NETWORKS = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5")


def known(name: str) -> Network:
    torch.manual_seed(0)
    return analyze(torchvision.models.get_model(name, weights=None).eval(), (torch.randn(1, 3, 64, 64),))


def uneven(network: Network) -> dict[str, int]:
    return {name: max(1, size - size // (2 + number % 5)) for number, (name, size) in enumerate(network.widths.items())}


@settings(few, max_examples=15)
@given(network=networks, seed=st.integers(0, 2**16))
def test_a_shrunk_network_traced_anew_needs_what_was_predicted(network: RandomNetwork, seed: int) -> None:
    inputs = inputs_of(network)
    structure = analyze_structure(network, inputs)
    removal = random_removal([group for group in structure.groups if not group.frozen_because], seed)
    widths = {name: size - len(removal.get(name, ())) for name, size in full_widths(structure.groups).items()}
    anew = read_structure(cut(network, structure.groups, removal), inputs)
    planned = compiled_liveness(structure, MEMORY).at(widths)
    assert planned == compiled_liveness(anew, MEMORY).at(full_widths(anew.groups))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_trace_and_the_file_say_what_the_compiler_says(name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    network, path = known(name), tmp_path / "network.onnx"
    variants, liveness = prepare(network), compiled_liveness(network.structure, MEMORY)
    for widths in (network.widths, uneven(network)):
        file = variants.at(variants.widths_removal(widths))
        said, counted = liveness.at(widths), graph_memory(file, MEMORY)
        assert counted.peak_activation_bytes == said.peak_activation_bytes
        assert counted.workspace_bytes == said.workspace_bytes == 8_192_000
        write_onnx(file, path)
        with WorkerClient("tensorrt-rtx") as client:  # a second build in one process can come out half a per cent off
            report = client.build(path, tmp_path / "network.engine", BuildSettings(("8.6",))).report
        assert report is not None
        assert report.activation_bytes is not None
        assert report.max_aux_streams == 0
        assert said.peak_activation_bytes + said.workspace_bytes == pytest.approx(report.activation_bytes, rel=0.001)


def test_without_a_contraction_there_is_no_workspace() -> None:
    pool = nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2))
    liveness = compiled_liveness(read_structure(pool, (torch.randn(1, 8, 64, 64),)), MEMORY)
    memory = liveness.at({})
    copied, pooled = 8 * 64 * 64 * 4, 8 * 32 * 32 * 4  # as TensorRT for RTX 1.7.1 says: pools read channels last
    assert (memory.peak_activation_bytes, memory.workspace_bytes) == (copied + pooled, 0)


class Stem(nn.Module):
    """The first block of a shrunk residual network, behind its pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 62, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.block = nn.Sequential(
            nn.Conv2d(62, 62, 1), nn.ReLU(), nn.Conv2d(62, 22, 3, padding=1), nn.ReLU(), nn.Conv2d(22, 92, 1)
        )
        self.short = nn.Conv2d(62, 92, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return torch.relu(self.block(x) + self.short(x))


@pytest.mark.parametrize(("size", "said"), [(32, 91_648), (256, 5_865_472), (320, 10_291_200), (384, 14_819_328)])
def test_tensors_lie_where_the_workspace_leaves_room(size: int, said: int) -> None:
    """What TensorRT for RTX 1.7.1 says beside the workspace: up to 256 pixels in proportion to them, then more."""
    structure = read_structure(Stem().eval(), (torch.randn(1, 3, size, size),))
    assert compiled_liveness(structure, MEMORY).at(full_widths(structure.groups)).peak_activation_bytes == said


class Encoder(nn.Module):
    """An embedding and one layer of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(16, 64)
        self.layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, norm_first=True, activation="gelu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.embed(x))


@pytest.mark.parametrize(("shape", "said"), [((1, 256, 16), 2_293_760), ((4, 128, 16), 2_490_368)])
def test_attention_keeps_its_scores_before_and_after_the_softmax(shape: tuple[int, ...], said: int) -> None:
    """What TensorRT for RTX 1.7.1 says beside the workspace of the network as `to_onnx` writes it."""
    structure = read_structure(Encoder().eval(), (torch.randn(shape),))
    assert compiled_liveness(structure, MEMORY).at(full_widths(structure.groups)).peak_activation_bytes == said


def test_without_packing_a_compiler_needs_the_live_tensors() -> None:
    network = known("resnet18")
    live = compiled_liveness(network.structure, MemoryRules()).at(network.widths)
    packed = compiled_liveness(network.structure, MEMORY).at(network.widths)
    assert 0 < live.peak_activation_bytes <= packed.peak_activation_bytes
    assert live.traffic_bytes == packed.traffic_bytes


class HalfUsed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.auxiliary = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x) if not self.training else self.used(x) + self.auxiliary(x)


def test_weights_that_the_run_does_not_read_are_not_counted() -> None:
    structure = read_structure(HalfUsed().eval(), (torch.randn(1, 3, 8, 8),))
    assert compiled_liveness(structure, MEMORY).at(full_widths(structure.groups)).weights_bytes == 4 * (4 * 27 + 4)
