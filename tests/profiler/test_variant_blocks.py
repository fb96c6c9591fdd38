"""A graph from which blocks were taken is what exporting the network without them gives."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from profiler.backends.onnxruntime_plain import evaluate
from profiler.blocks import find_blocks, without_blocks
from profiler.cut import cut
from profiler.export import flat_arrays, largest_difference, lively, output_arrays
from profiler.inplace import Owners
from profiler.network import analyze
from profiler.proof import some_of
from profiler.variants import prepare
from tests.profiler.residual_networks import CASES, WIDTH, Around, Basic, build

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("name", [name for name in CASES if name != "encoder, norms last"])
def test_a_sliced_graph_without_blocks_is_the_network_without_them(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model, inputs = build(name)
    network = analyze(model, inputs)
    variants = prepare(network)
    assert (variants.anew_because is None) == (name != "in a program")
    inputs = lively(inputs)
    generator = np.random.default_rng(1)
    blocks = find_blocks(network)
    for going in ([blocks[0]], list(blocks)):
        remove = {group.name: some_of(group, generator) for group in network.groups if group.size > 1}
        with caplog.at_level(logging.WARNING):
            found = variants.at(remove, going)
        assert "this variant is exported anew" not in caplog.text
        expected = output_arrays(cut(model, network.groups, remove, blocks=going), inputs)
        values = list(evaluate(found.SerializeToString(), flat_arrays(inputs)).values())
        assert largest_difference(values, expected) <= 1e-5
        lost = {name for block in going for name in block.parameters}
        assert lost.isdisjoint(tensor.name for tensor in found.graph.initializer)
        whole = variants.at(remove)
        assert len(found.graph.node) < len(whole.graph.node)


def test_nodes_left_belong_to_units_left() -> None:
    model, inputs = build("resnet")
    network = analyze(model, inputs)
    variants, blocks = prepare(network), find_blocks(network)
    left = without_blocks(network, blocks)
    owners = Owners.of(replace(variants, network=left))
    graph = variants.at({}, blocks).graph
    names = [left.units[owners.unit_of[node.output[0]]].name for node in graph.node if node.op_type == "Conv"]
    assert names == [unit.name for unit in left.units if unit.family.operation == "convolution"]
    assert left.hash != network.hash
    assert left.memory(left.widths).weights_bytes < network.memory(network.widths).weights_bytes


class Last(nn.Module):
    """What the blocks make is the output; the second's input leaves the network, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.one, self.two = Basic(), Basic()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.one(torch.relu(self.stem(x)))
        return x, self.two(x)


def test_blocks_at_the_end_of_a_network_go_too() -> None:
    torch.manual_seed(0)
    model, inputs = Last().eval(), (torch.randn(1, 3, 8, 8),)
    network = analyze(model, inputs)
    blocks = find_blocks(network)
    assert len(blocks) == 2
    variants = prepare(network)
    for going in (blocks[:1], blocks[1:], blocks):
        found = evaluate(variants.at({}, going).SerializeToString(), flat_arrays(inputs))
        expected = output_arrays(cut(model, network.groups, {}, blocks=going), inputs)
        assert largest_difference(list(found.values()), expected) <= 1e-5


def test_where_an_addition_is_not_found_the_variant_is_exported_anew_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(0)
    model, inputs = Around(Basic()).eval(), (torch.randn(1, 3, 8, 8),)
    network = analyze(model, inputs)
    blocks = find_blocks(network)
    variants = replace(prepare(network), value_of={})
    with caplog.at_level(logging.WARNING):
        found = variants.at({}, blocks)
    assert "exported anew: the graph has 0 additions that could be that of inner.0" in caplog.text
    expected = output_arrays(cut(model, network.groups, {}, blocks=blocks), inputs)
    assert largest_difference(list(evaluate(found.SerializeToString(), flat_arrays(inputs)).values()), expected) <= 1e-5
