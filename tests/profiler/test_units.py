"""Units: every step in exactly one place, the known figures of known networks, and coordinates that stay true."""

from collections.abc import Mapping, Sequence

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lut.records import Unit, full_widths
from profiler.cut import cut
from profiler.groups import Structure, read_structure
from profiler.trial import analyze_structure
from profiler.units import cut_units
from tests.profiler.random_networks import RandomNetwork
from tests.profiler.test_shrunk_is_masked import few, inputs_of, networks, random_removal


def shapes(unit: Unit, widths: Mapping[str, int]) -> list[list[int]]:
    """The unit's input and output shapes at these widths."""
    channels = dict(zip((f"c{number}" for number in range(9)), unit.channels(widths), strict=False))
    both = unit.family.inputs + unit.family.outputs
    return [[channels[size] if isinstance(size, str) else size for size in shape] for shape in both]


def structure_of(model: nn.Module, *shape: int) -> Structure:
    return read_structure(model, (torch.randn(*shape),))


@settings(few, max_examples=25)
@given(network=networks, seed=st.integers(0, 2**16))
def test_a_shrunk_network_traced_anew_has_the_units_that_were_predicted(network: RandomNetwork, seed: int) -> None:
    inputs = inputs_of(network)
    structure = analyze_structure(network, inputs)
    removal = random_removal([group for group in structure.groups if not group.frozen_because], seed)
    widths = {name: size - len(removal.get(name, ())) for name, size in full_widths(structure.groups).items()}
    planned = cut_units(structure)
    anew = read_structure(cut(network, structure.groups, removal), inputs)
    found, full = cut_units(anew), full_widths(anew.groups)
    assert [unit.name for unit in planned.units] == [unit.name for unit in found.units]
    for before, after in zip(planned.units, found.units, strict=True):
        assert shapes(before, widths) == shapes(after, full), before.name
        assert before.macs(widths) == pytest.approx(after.macs(full)), before.name
        assert before.family.followers == after.family.followers
    assert planned.liveness.at(widths) == found.liveness.at(full)


@few
@given(network=networks)
def test_every_step_belongs_to_one_unit_or_is_free_with_a_reason(network: RandomNetwork) -> None:
    structure = read_structure(network, inputs_of(network))
    cut_ = cut_units(structure)
    held = [step for unit in cut_.units for step in unit.steps]
    assert len(held) == len(set(held))
    assert set(held).isdisjoint(cut_.free)
    assert set(held) | set(cut_.free) == set(range(len(structure.trace.steps)))
    assert all(cut_.free.values())
    assert len({unit.name for unit in cut_.units}) == len(cut_.units)


def total_macs(units: Sequence[Unit], structure: Structure) -> float:
    return sum(unit.macs(full_widths(structure.groups)) for unit in units)


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(8, 16, 3, padding=1), (1, 8, 10, 10), 16 * 8 * 9 * 100),
        (nn.Conv2d(8, 16, 3, padding=1, groups=4), (1, 8, 10, 10), 16 * 2 * 9 * 100),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (2, 8, 10, 10), 2 * 8 * 9 * 100),
        (nn.ConvTranspose2d(8, 16, 2, stride=2), (1, 8, 10, 10), 8 * 16 * 4 * 100),
        (nn.Linear(8, 16), (3, 8), 3 * 8 * 16),
        (nn.Linear(8, 16, bias=False), (1, 5, 8), 5 * 8 * 16),
        (nn.ReLU(), (1, 8), 0),
    ],
)
def test_macs_of_known_layers(layer: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    structure = structure_of(layer, *shape)
    assert total_macs(cut_units(structure).units, structure) == macs


def test_resnet_50_has_the_known_macs_and_peak_of_live_tensors() -> None:
    structure = structure_of(torchvision.models.resnet50().eval(), 1, 3, 224, 224)
    found, widths = cut_units(structure), full_widths(structure.groups)
    memory = found.liveness.at(widths)
    assert total_macs(found.units, structure) == 4_089_184_256
    assert memory.peak_activation_bytes == 7_225_344
    assert memory.weights_bytes == 4 * sum(p.numel() for p in torchvision.models.resnet50().parameters())


def test_a_convolution_absorbs_its_norm_activation_and_sum() -> None:
    structure = structure_of(torchvision.models.resnet18().eval(), 1, 3, 64, 64)
    units = {unit.name: unit for unit in cut_units(structure).units}
    assert units["conv1"].family.followers == ("batch_norm", "relu")
    assert units["layer1.0.conv2"].family.followers == ("batch_norm", "add", "relu")
    assert units["layer1.0.conv1"].groups == ("conv1", "layer1.0.conv1")


def test_one_shape_is_one_family_whatever_the_layer_is_called() -> None:
    structure = structure_of(torchvision.models.resnet18().eval(), 1, 3, 64, 64)
    units = {unit.name: unit for unit in cut_units(structure).units}
    assert units["layer1.0.conv1"].family == units["layer1.1.conv1"].family
    assert units["layer1.0.conv1"].family.key != units["layer2.1.conv1"].family.key
