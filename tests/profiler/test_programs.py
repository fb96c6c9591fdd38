"""Programs: a module written down runs as the module does, at any width and batch, in training too, and as JSON."""

import copy
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lut.errors import LatpruneError
from lut.program import from_json, to_json
from lut.records import ChannelGroup
from profiler.awake import awaken
from profiler.backends.onnxruntime_plain import evaluate
from profiler.cut import cut, programs_after, zero
from profiler.export import flat_arrays, largest_difference, output_arrays, to_onnx
from profiler.outputs import relative_difference
from profiler.program_module import ProgramModule, install
from profiler.trial import find_groups


class Mixer(nn.Module):
    """Its code holds widths, in an order of its own; dropout and norm run otherwise in training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(12), nn.Dropout(0.5)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        a, b = x[:, :4], x[:, 4:]
        b = b.view(x.shape[0], 2, 4, 8, 8).mean(1)
        return self.drop(torch.cat([self.inner(a), b.roll(1, 1)], 1)) * (b.shape[1] ** -0.5)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.mixer, self.z = nn.Conv2d(3, 12, 3, padding=1), Mixer(), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.z(self.mixer(torch.relu(self.a(x))).mean((2, 3)))


def picture(batch: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)


def half(groups: list[ChannelGroup]) -> dict[str, list[int]]:
    return {group.name: list(range(0, group.size, 2)) for group in groups if group.size > 1}


@pytest.fixture(scope="module")
def made() -> tuple[nn.Module, list[ChannelGroup]]:
    torch.manual_seed(0)
    model = Net().eval()
    return model, find_groups(model, (picture(),))


def test_only_the_module_whose_code_holds_numbers_becomes_a_program(made: tuple[nn.Module, list[ChannelGroup]]) -> None:
    model, groups = made
    assert {program.module for group in groups for program in group.programs} == {"mixer"}
    smaller = cut(model, groups, half(groups))
    assert isinstance(smaller, Net)
    assert isinstance(smaller.mixer, ProgramModule)
    assert smaller.mixer.inner.weight.shape[0] < 4
    assert "program of" in repr(smaller.mixer)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_program_is_exact_at_any_batch(made: tuple[nn.Module, list[ChannelGroup]], batch: int) -> None:
    groups = made[1]
    model = awaken(copy.deepcopy(made[0]).double())
    x = picture(batch, torch.float64)
    with torch.no_grad():
        masked = zero(model, groups, half(groups))(x)
        assert relative_difference(cut(model, groups, half(groups))(x), masked) <= 1e-12
        assert relative_difference(masked, model(x)) >= 0.01


def test_a_program_trains_as_the_module_does(made: tuple[nn.Module, list[ChannelGroup]]) -> None:
    model, groups = made
    smaller = cut(model, groups, half(groups)).train()
    before = smaller.mixer.norm.running_mean.clone()
    outputs = [smaller(picture(4)) for _ in range(2)]
    assert not torch.equal(*outputs), "dropout is at work"
    outputs[0].square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in smaller.parameters())
    assert not torch.equal(before, smaller.mixer.norm.running_mean), "running statistics are kept"
    optimizer = torch.optim.SGD(smaller.parameters(), lr=0.1)
    optimizer.step()


def test_a_module_whose_channels_all_stay_gives_in_training_what_it_gave(
    made: tuple[nn.Module, list[ChannelGroup]],
) -> None:
    model, groups = made
    program = next(program for group in groups for program in group.programs)
    written = install(copy.deepcopy(model), [program]).train()
    original = copy.deepcopy(model).train()
    results = []
    for network in (original, written):
        torch.manual_seed(3)
        results.append(network(picture(3)))
    assert torch.equal(*results)
    for (name, one), (_, other) in zip(original.named_buffers(), written.state_dict().items(), strict=False):
        assert name is not None
        assert other is not None
        del one
    assert original.state_dict().keys() == written.state_dict().keys()


def test_names_of_parameters_stay_and_copies_are_free(made: tuple[nn.Module, list[ChannelGroup]]) -> None:
    model, groups = made
    smaller = cut(model, groups, half(groups))
    assert smaller.state_dict().keys() == model.state_dict().keys()
    twin = copy.deepcopy(smaller)
    twin.load_state_dict(smaller.state_dict())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        assert not torch.equal(twin(picture()), smaller(picture()))
        assert torch.equal(cut(model, groups, half(groups))(picture()), smaller(picture()))


def test_a_program_written_as_json_runs_the_same(made: tuple[nn.Module, list[ChannelGroup]]) -> None:
    model, groups = made
    smaller = cut(model, groups, half(groups))
    data = json.loads(json.dumps([to_json(p) for p in programs_after(groups, half(groups))], allow_nan=False))
    again = install(copy.deepcopy(smaller), [from_json(item) for item in data])
    with torch.no_grad():
        assert torch.equal(again(picture(2)), smaller(picture(2)))


def test_a_program_becomes_onnx(made: tuple[nn.Module, list[ChannelGroup]]) -> None:
    model, groups = made
    smaller = cut(model, groups, half(groups))
    proto = to_onnx(smaller, (picture(),))
    found = list(evaluate(proto.SerializeToString(), flat_arrays((picture(),))).values())
    assert largest_difference(found, output_arrays(smaller, (picture(),))) <= 1e-5


def test_cutting_a_program_again_is_cutting_once(made: tuple[nn.Module, list[ChannelGroup]]) -> None:
    from pruner.narrow import narrowed

    model, groups = made
    sizes = {group.name: group.size for group in groups if group.size > 3}
    first = {name: [0] for name in sizes}
    second = {name: [1] for name in sizes}
    both = {name: [0, 2] for name in sizes}
    once = cut(model, groups, both)
    twice = cut(cut(model, groups, first), narrowed(groups, first), second)
    with torch.no_grad():
        assert torch.equal(once(picture(2)), twice(picture(2)))


def test_other_shapes_than_the_batch_are_refused_in_words(made: tuple[nn.Module, list[ChannelGroup]]) -> None:
    smaller = cut(*made, half(made[1]))
    with pytest.raises(LatpruneError, match=r"mixer is a program for \[2…, 6, 8, 8\], not for"):
        smaller(torch.randn(1, 3, 16, 16))


def awkward(code: Callable[[nn.Module, Tensor], Any]) -> nn.Module:
    class Awkward(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.z = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Any:
            return code(self, self.a(x))

    return Awkward().eval()


def test_a_constant_of_the_code_goes_into_the_program() -> None:
    model = awkward(lambda net, x: net.z(x[:, [1, 3, 5, 7]] * torch.tensor(0.37)))
    groups = find_groups(model, (picture(),))
    kept = {group.name: group.size for group in groups if not group.frozen_because}
    assert kept == {"a#2": 4}
    removal = {"a#2": [0, 2]}
    model = awaken(model.double())
    with torch.no_grad():
        x = picture(dtype=torch.float64)
        assert relative_difference(cut(model, groups, removal)(x), zero(model, groups, removal)(x)) <= 1e-12


class MadeWeights(nn.Module):
    """Weights made for each sample, for PyTorch's einsum, which orders dimensions by their lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.make, self.z = nn.Conv2d(3, 8, 1), nn.Linear(3, 32), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.make(x.mean((2, 3))).view(-1, 4, 8)
        return self.z(torch.einsum("bchw,bdc->bdhw", self.a(x), weights))


def test_code_that_runs_otherwise_on_one_sample_is_written_down_on_more() -> None:
    groups = find_groups(MadeWeights(), (picture(),))
    smaller = cut(MadeWeights(), groups, half([group for group in groups if not group.frozen_because]))
    assert isinstance(smaller, ProgramModule)
    assert [smaller(picture(batch)).shape[0] for batch in (1, 2, 3, 5)] == [1, 2, 3, 5]


class Auxiliary(nn.Module):
    """A head that runs in training only, and a slice at a fixed place."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.z, self.aux = nn.Conv2d(3, 8, 1), nn.Linear(4, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        y = self.a(x).mean((2, 3))
        return (self.z(y[:, :4]), self.aux(y)) if self.training else self.z(y[:, :4])


def test_a_head_that_runs_in_training_only_is_in_the_program_and_any_batch_will_do() -> None:
    groups = find_groups(Auxiliary().eval(), (picture(),))
    removal = {group.name: [1] for group in groups if group.size > 1}
    assert removal
    smaller = cut(Auxiliary(), groups, removal)
    assert isinstance(smaller, ProgramModule)
    assert smaller.eval()(picture(5)).shape == (5, 2)
    assert [output.shape for output in smaller.train()(picture(3))] == [(3, 2), (3, 2)]


def test_code_that_goes_by_what_it_computes_is_not_written_down() -> None:
    model = awkward(lambda net, x: net.z(x[:, :4] if float(x.sum()) < 1e9 else x[:, 4:]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reason = next(g.frozen_because for g in find_groups(model, (picture(),)) if g.name == "a")
    assert "does not run" in str(reason)
    assert "goes by a number that it computes, so it cannot be a program" in str(reason)


class Scaled(nn.Module):
    """Attention by hand that derives its scale from the width, as Swin's; it has one head and is cut within it."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        return ((q * (q.shape[-1]) ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v


class Correlated(nn.Module):
    """All pairs of two feature maps over the square root of their channels, made a tensor on the way, as RAFT's."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        channels = one.shape[1]
        return (one.flatten(2).transpose(1, 2) @ other.flatten(2)) / torch.sqrt(torch.tensor(channels))


class TwoScales(nn.Module):
    def __init__(self, which: str) -> None:
        super().__init__()
        self.which = which
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.attend, self.correlate = Scaled(), Correlated()
        self.z = nn.Linear(8 if which == "attention" else 64, 2)

    def forward(self, x: Tensor) -> Tensor:
        one = self.a(x)
        if self.which == "attention":
            return self.z(self.attend(one.flatten(2).transpose(1, 2)))
        return self.z(self.correlate(one, self.b(x)))


@pytest.mark.parametrize("which", ["attention", "correlation"])
def test_a_scale_that_code_derives_from_the_width_keeps_its_old_value(which: str) -> None:
    model = TwoScales(which).eval()
    groups = find_groups(model, (picture(),))
    prunable = {group.name: group for group in groups if group.size > 1}
    name = "attend.q" if which == "attention" else "a"
    assert prunable[name].size == 8
    assert {p.module for p in prunable[name].programs} == {"attend" if which == "attention" else "correlate"}
    removal = {name: [0, 3, 7, 2, 5]}
    model = awaken(model.double())
    x = picture(dtype=torch.float64)
    with torch.no_grad():
        masked = zero(model, groups, removal)(x)
        assert relative_difference(cut(model, groups, removal)(x), masked) <= 1e-12
        alone = cut(model, [replace(group, programs=()) for group in groups], removal)
        assert relative_difference(alone(x), masked) > 1e-3, "the trap: the code alone would take the new width"


def test_a_recurrent_layer_with_a_projection_becomes_a_program_through_which_gradients_flow() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.z = nn.Conv2d(3, 8, 1), nn.Linear(4, 2)
            self.layer = nn.LSTM(8, 12, batch_first=True, proj_size=4)

        def forward(self, x: Tensor) -> Tensor:
            return self.z(self.layer(self.a(x).flatten(2).transpose(1, 2))[0])

    model = Recurrent()
    groups = find_groups(model, (picture(),))
    smaller = cut(model, groups, half([group for group in groups if not group.frozen_because])).train()
    assert isinstance(smaller.layer, ProgramModule)
    smaller(picture(3)).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in smaller.parameters())
