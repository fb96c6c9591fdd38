"""The trace: what is written down, and that the network is left as it was."""

import pytest
import torch
from torch import Tensor, nn

from lut.errors import LatpruneError
from profiler.outputs import tensors_of
from profiler.recording import fingerprint, record
from tests.profiler.patterns import PATTERNS, Net, conv


def picture() -> Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_steps_name_their_operation_their_parameters_and_their_module() -> None:
    trace = record(nn.Sequential(conv(3, 4), nn.ReLU()), (picture(),))
    assert [step.name for step in trace.steps] == ["convolution", "relu"]
    assert [step.module for step in trace.steps] == ["0", "1"]
    assert [trace.values[index].name for index in trace.steps[0].inputs] == [None, "0.weight", "0.bias"]
    assert trace.values[trace.outputs[0]].shape == (1, 4, 8, 8)


def test_in_place_results_share_their_sources_memory() -> None:
    trace = record(nn.Sequential(conv(3, 4), nn.ReLU(inplace=True)), (picture(),))
    first, second = (trace.values[step.outputs[0]] for step in trace.steps if step.outputs[0] is not None)
    assert first.storage == second.storage
    assert trace.steps[1].in_place
    assert not trace.steps[0].in_place


def test_what_runs_in_training_only_is_named_as_unseen() -> None:
    trace = record(PATTERNS["auxiliary head in training"], (picture(),))
    assert trace.unseen == ("aux.weight", "aux.bias")


def test_running_statistics_modes_and_random_numbers_are_put_back() -> None:
    model = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.Dropout())
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    record(model, (torch.cat([picture(), picture()]),), training=True)
    assert [module.training for module in model] == [True, False, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_hash_is_of_the_structure_and_not_of_the_weights() -> None:
    traces = [record(nn.Sequential(conv(3, width), nn.ReLU()), (picture(),)) for width in (4, 4, 5)]
    assert traces[0].network_hash == traces[1].network_hash != traces[2].network_hash


def test_a_network_that_does_not_run_is_the_users_error_and_says_where() -> None:
    with pytest.raises(LatpruneError, match=r"\[1, 3, 8, 8\]\): in 1: RuntimeError"):
        record(nn.Sequential(conv(3, 4), conv(5, 4)), (picture(),))


def test_an_output_without_tensors_is_the_users_error() -> None:
    with pytest.raises(LatpruneError, match="holds no tensor"):
        record(Net(lambda net, x: float(x.sum())), (picture(),))


def test_tensors_are_found_in_nested_outputs() -> None:
    assert len(tensors_of({"a": [picture(), (picture(), 3)], "b": None})) == 2


def test_fingerprints_tell_tensors_apart() -> None:
    one = picture()
    assert fingerprint(one) == fingerprint(one.clone())
    assert fingerprint(one) != fingerprint(one.flip(1))
    assert fingerprint(torch.zeros(0)) == (0.0, 0.0, 0.0)


def test_what_is_kept_of_attention_is_no_step_of_the_network() -> None:
    layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    tokens = torch.randn(1, 5, 8)

    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, x, x, need_weights=False)[0]

    plain, printed = record(Attend(), (tokens,)), record(Attend(), (tokens,), fingerprints=True)
    assert [step.name for step in printed.steps] == [step.name for step in plain.steps]
    attention = next(step for step in plain.steps if step.name == "scaled_dot_product_attention")
    assert attention.kwargs["scale"] == 0.5
