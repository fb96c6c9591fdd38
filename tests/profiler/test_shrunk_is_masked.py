"""The project's first promise: the shrunk network computes what the masked one does, for any structure and removal."""

import warnings
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lut.records import ChannelGroup
from profiler.awake import awaken
from profiler.backends.onnxruntime_plain import evaluate
from profiler.cut import cut, zero
from profiler.export import flat_arrays, largest_difference, output_arrays, to_onnx
from profiler.outputs import relative_difference
from profiler.trial import find_groups
from tests.profiler.coded_blocks import CODED
from tests.profiler.random_networks import BLOCKS, RandomNetwork


def made_of(blocks: Iterable[str]) -> st.SearchStrategy[RandomNetwork]:
    """Networks of one to four of these blocks."""
    return st.builds(
        RandomNetwork,
        st.lists(st.sampled_from(sorted(blocks)), min_size=1, max_size=4),
        seed=st.integers(0, 2**16),
        flatten=st.booleans(),
        two_inputs=st.booleans(),
    )


networks = made_of(BLOCKS)
any_networks = made_of([*BLOCKS, *CODED])
few = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False
)


def inputs_of(network: RandomNetwork, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    pictures = (torch.randn(1, 3, 8, 8, generator=generator), torch.randn(1, 1, 8, 8, generator=generator))
    return tuple(picture.to(dtype) for picture in pictures[: 2 if network.other is not None else 1])


def random_removal(groups: list[ChannelGroup], seed: int) -> dict[str, list[int]]:
    generator = np.random.default_rng(seed)
    removal = {}
    for group in groups:
        if group.size > 1:
            count = int(generator.integers(1, group.size))
            removal[group.name] = sorted(generator.choice(group.size, count, replace=False).tolist())
    return removal


def other_choices(group: ChannelGroup, gone: list[int]) -> list[int]:
    """As many choices as were removed, but not the same."""
    moved = sorted({(choice + 1) % group.size for choice in gone})
    return moved if moved != gone else sorted({(choice + 2) % group.size for choice in gone})


@settings(few, max_examples=60)
@given(network=any_networks, seed=st.integers(0, 2**16))
def test_a_shrunk_network_computes_what_the_masked_one_does(network: RandomNetwork, seed: int) -> None:
    groups = find_groups(network, inputs_of(network))
    assert any(not group.frozen_because for group in groups)
    model = awaken(network.double().eval(), seed)
    inputs = inputs_of(network, torch.float64)
    removal = random_removal([group for group in groups if not group.frozen_because], seed)
    soft = {group.name for group in groups if group.approximate_because}
    exact = {name: gone for name, gone in removal.items() if name not in soft}
    with torch.no_grad():
        full, masked = model(*inputs), zero(model, groups, exact)(*inputs)
        shrunk = cut(model, groups, exact)
        assert relative_difference(shrunk(*inputs), masked) <= 1e-8
        assert torch.isfinite(cut(model, groups, removal)(*inputs)).all()
        if exact:
            assert relative_difference(masked, full) >= 0.01
            by_name = {group.name: group for group in groups}
            wrong = {name: other_choices(by_name[name], gone) for name, gone in exact.items()}
            if any(wrong[name] != gone for name, gone in exact.items()):
                assert relative_difference(shrunk(*inputs), zero(model, groups, wrong)(*inputs)) > 1e-3
    assert sum(p.numel() for p in shrunk.parameters()) < sum(p.numel() for p in model.parameters()) or not exact


@settings(few, max_examples=8)
@given(network=any_networks, seed=st.integers(0, 2**16))
def test_gradients_flow_through_a_shrunk_network(network: RandomNetwork, seed: int) -> None:
    groups = find_groups(network, inputs_of(network))
    removal = random_removal([group for group in groups if not group.frozen_because], seed)
    shrunk = cut(network, groups, removal).train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shrunk(*(torch.cat([leaf, leaf]) for leaf in inputs_of(network))).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in shrunk.parameters())
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.filterwarnings("ignore")
@settings(few, max_examples=6)
@given(network=made_of(CODED), seed=st.integers(0, 2**16))
def test_onnx_computes_what_a_shrunk_network_does(network: RandomNetwork, seed: int) -> None:
    groups = find_groups(network, inputs_of(network))
    removal = random_removal([group for group in groups if not group.frozen_because], seed)
    shrunk = cut(awaken(network, seed), groups, removal).eval()
    inputs = inputs_of(network)
    found = evaluate(to_onnx(shrunk, inputs).SerializeToString(), flat_arrays(inputs))
    assert largest_difference(list(found.values()), output_arrays(shrunk, inputs)) <= 1e-4


@settings(few, max_examples=8)
@given(network=any_networks, seed=st.integers(0, 2**16))
def test_cutting_leaves_the_original_untouched(network: RandomNetwork, seed: int) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    groups = find_groups(network, inputs_of(network))
    shrunk = cut(network, groups, random_removal([group for group in groups if not group.frozen_because], seed))
    with torch.no_grad():
        for parameter in shrunk.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
