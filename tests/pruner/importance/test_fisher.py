"""Fisher scores are the closed form: a mask of ones in front of the consumers, one sample at a time."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lut.errors import LatpruneError, TaskError
from lut.records import ChannelGroup, Member
from profiler.progress import Event
from profiler.trial import find_groups
from pruner.importance.fisher import fisher_scores
from tests.pruner.networks import (
    NETWORKS,
    Batch,
    ConcatNet,
    EqualPartsNet,
    GatedNet,
    ResidualNet,
    SharedNet,
    TransposedNet,
    WholePartsNet,
    batches,
    build,
    inputs,
    loss,
    mean,
    summed,
)


def same(mask: Tensor) -> Tensor:
    return mask


CONSUMERS: dict[type[nn.Module], dict[str, tuple[int, dict[str, Callable[[Tensor], Tensor]]]]] = {
    ResidualNet: {"stem": (6, {"inner": same, "head": same}), "inner": (5, {"outer": same})},
    GatedNet: {"expand": (8, {"squeeze": same, "project": same}), "squeeze": (4, {"excite": same})},
    ConcatNet: {
        "left": (4, {"after": lambda mask: torch.cat([mask, torch.ones(5)])}),
        "right": (5, {"after": lambda mask: torch.cat([torch.ones(4), mask])}),
        "after": (6, {"head": lambda mask: mask.repeat_interleave(25)}),
    },
    SharedNet: {"stem": (6, {"shared": same, "head": same})},
    WholePartsNet: {
        "stem": (4, {"grouped": lambda mask: mask.repeat_interleave(3), "head": lambda mask: mask.repeat_interleave(3)})
    },
    EqualPartsNet: {
        "stem": (6, {"grouped": lambda mask: mask.repeat(2)}),
        "grouped": (6, {"head": lambda mask: mask.repeat(2)}),
    },
    TransposedNet: {"stem": (6, {"up": same}), "up": (5, {"line": same}), "line": (7, {"product": same})},
}
"""By hand: each group's size, and the modules that take its channels in, with how its mask lies on their inputs."""


def scores_by_hand(model: nn.Module, data: list[Batch]) -> dict[str, Tensor]:
    """Multiply the inputs of the consumers by a real mask, and differentiate by it, one sample after another."""
    found = {}
    for name, (size, consumers) in CONSUMERS[type(model)].items():
        mask = torch.ones(size, dtype=torch.float64, requires_grad=True)

        def multiply(module: nn.Module, args: tuple[Tensor], name: str = name, mask: Tensor = mask) -> tuple[Tensor]:
            place = next(key for key in CONSUMERS[type(model)][name][1] if model.get_submodule(key) is module)
            laid = CONSUMERS[type(model)][name][1][place](mask)
            return (args[0] * (laid if args[0].dim() == 2 else laid.view(-1, *[1] * (args[0].dim() - 2))),)

        handles = [model.get_submodule(key).register_forward_pre_hook(multiply) for key in consumers]
        squares = torch.zeros(size, dtype=torch.float64)
        count = 0
        for images, labels in data:
            for image, label in zip(images.split(1), labels.split(1), strict=True):
                (gradient,) = torch.autograd.grad(loss(model, (image, label)).sum(), mask)
                squares += gradient.square()
                count += 1
        found[name] = squares / (2 * count)
        for handle in handles:
            handle.remove()
    return found


@functools.cache
def groups_of(network: type[nn.Module]) -> list[ChannelGroup]:
    return find_groups(build(network), inputs())


def score(model: nn.Module, data: list[Batch]) -> dict[str, Tensor]:
    return fisher_scores(model, groups_of(type(model)), data, loss)


@pytest.mark.parametrize("network", NETWORKS)
def test_scores_are_the_gradient_of_a_mask_of_ones_squared_sample_by_sample(network: type[nn.Module]) -> None:
    model = build(network)
    found, expected = score(model, batches(3, 4)), scores_by_hand(model, batches(3, 4))
    assert found.keys() == expected.keys()
    for name, scores in found.items():
        assert float(scores.max()) > 0
        torch.testing.assert_close(scores, expected[name], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("network", NETWORKS)
def test_scores_do_not_depend_on_how_samples_are_batched(network: type[nn.Module]) -> None:
    model = build(network)
    one, other = score(model, batches(8)), score(model, batches(1, 2, 5))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-9, atol=1e-14)


def test_a_sum_and_one_value_a_sample_give_the_same_scores() -> None:
    model = build(ConcatNet)
    groups = groups_of(type(model))
    one, other = fisher_scores(model, groups, batches(5), loss), fisher_scores(model, groups, batches(5), summed)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-12, atol=0)


def test_a_mean_is_refused() -> None:
    model = build(ConcatNet)
    with pytest.raises(TaskError, match="mean over samples"):
        fisher_scores(model, groups_of(type(model)), batches(5), mean)


def test_a_loss_of_the_wrong_length_is_refused() -> None:
    model = build(ConcatNet)

    def two(model: nn.Module, batch: Batch) -> Tensor:
        return loss(model, batch).sum().repeat(2)

    with pytest.raises(TaskError, match="2 values for a batch of 7 samples"):
        fisher_scores(model, groups_of(type(model)), batches(7), two)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    model = build(ConcatNet)
    with pytest.raises(TaskError, match="nan on batch 1"):
        fisher_scores(model, groups_of(type(model)), batches(2), lambda m, b: loss(m, b) * float("nan"))


def test_a_loss_without_a_gradient_is_refused() -> None:
    model = build(ConcatNet)

    def detached(model: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            return loss(model, batch)

    with pytest.raises(TaskError, match="no gradient"):
        fisher_scores(model, groups_of(type(model)), batches(2), detached)


def test_no_batches_are_refused() -> None:
    with pytest.raises(TaskError, match="no batch"):
        score(build(ConcatNet), [])


def test_a_group_that_no_layer_takes_in_is_named() -> None:
    model = build(ConcatNet)
    lonely = ChannelGroup("lonely", 4, (Member("left.weight", 0, tuple((i,) for i in range(4))),))
    with pytest.raises(LatpruneError, match="lonely"):
        fisher_scores(model, [*groups_of(type(model)), lonely], batches(2), loss)


def test_the_model_and_its_gradients_are_left_as_they_were() -> None:
    model = build(ResidualNet).train()
    model.head.eval()
    model.inner.weight.requires_grad_(False)  # type: ignore[union-attr]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    groups = groups_of(type(model))
    state = torch.random.get_rng_state()
    fisher_scores(model, groups, batches(3), loss)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == ["inner.weight"]
    assert all(p.grad is None or torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_frozen_weights_change_no_score() -> None:
    model = build(ResidualNet)
    one = score(model, batches(3))
    other = score(model.requires_grad_(False), batches(3))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_frozen_groups_are_passed_over_and_the_number_of_batches_can_be_bounded() -> None:
    model = build(ConcatNet)
    groups = find_groups(model, inputs(), freeze=["left"])
    events: list[Event] = []
    found = fisher_scores(model, groups, batches(2, 2, 2), loss, progress=events.append, max_batches=2)
    assert list(found) == ["right", "after"]
    assert [(event.done, event.total) for event in events] == [(1, 2), (2, 2)]
    shorter = fisher_scores(model, groups, batches(2, 2, 2)[:2], loss)
    assert all(torch.equal(found[name], shorter[name]) for name in found)


class Windows(nn.Module):
    """Each image becomes several windows, which are samples to the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        x = x.permute(0, 2, 3, 1).reshape(n * 5, 5, 3)
        return self.head(self.stem(x).tanh()).reshape(n, 25, 4).mean(1)


def test_windows_are_folded_to_their_samples() -> None:
    model = build(Windows)
    group = ChannelGroup("stem", 6, (Member("head.weight", 1, tuple((i,) for i in range(6))),))
    one = fisher_scores(model, [group], batches(6), loss)
    other = fisher_scores(model, [group], batches(1, 1, 4), loss)
    torch.testing.assert_close(one["stem"], other["stem"], rtol=1e-9, atol=1e-14)


class Attentive(nn.Module):
    """Multi-head attention, which runs with the sequence before the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(2).mT)
        return self.head(self.attention(x, x, x)[0]).mean(1)


@pytest.mark.parametrize("weight", ["attention.in_proj_weight", "attention.out_proj.weight"])
def test_samples_stay_apart_inside_multi_head_attention(weight: str) -> None:
    model = build(Attentive)
    group = ChannelGroup("stem", 8, (Member(weight, 1, tuple((i,) for i in range(8))),))
    one = fisher_scores(model, [group], batches(6), loss)
    other = fisher_scores(model, [group], batches(1, 1, 1, 1, 1, 1), loss)
    assert float(one["stem"].min()) > 0
    torch.testing.assert_close(one["stem"], other["stem"], rtol=1e-9, atol=1e-14)


def test_what_all_samples_share_cannot_be_scored_and_says_so() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(3, 6)
            self.head = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.stem(torch.ones(7, 3, dtype=x.dtype)).tanh()).sum(0) * x.mean((1, 2, 3))[:, None]

    group = ChannelGroup("stem", 6, (Member("head.weight", 1, tuple((i,) for i in range(6))),))
    with pytest.raises(LatpruneError, match="told apart"):
        fisher_scores(build(Table), [group], batches(4), loss)


def test_a_list_of_images_counts_as_its_samples() -> None:
    model = build(ConcatNet)
    groups = groups_of(type(model))
    images, labels = batches(4)[0]

    def of_list(model: nn.Module, batch: tuple[list[Tensor], Tensor]) -> Tensor:
        return functional.cross_entropy(model(torch.stack(batch[0])), batch[1], reduction="sum")

    one = fisher_scores(model, groups, [(list(images), labels)], of_list)
    other = fisher_scores(model, groups, [(images, labels)], loss)
    assert all(torch.allclose(one[name], other[name], rtol=1e-12) for name in one)
