"""Every importance ranks every prunable group, and its figures are the closed forms, by autograd and by hand."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lut.records import ChannelGroup
from profiler.trial import find_groups
from pruner.importance import RANKINGS, fisher_scores
from pruner.importance.gradients import collect
from tests.pruner.importance.test_fisher import CONSUMERS, groups_of
from tests.pruner.networks import NETWORKS, Batch, ConcatNet, GatedNet, ResidualNet, batches, build, inputs, loss


def gradients_by_hand(model: nn.Module, data: list[Batch], name: str) -> NDArray[np.float64]:
    """`[N, size]`: a real mask in front of a group's consumers, differentiated one sample after another."""
    size, consumers = CONSUMERS[type(model)][name]
    mask = torch.ones(size, dtype=torch.float64, requires_grad=True)

    def masked(key: str) -> object:
        def multiply(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            return (args[0] * consumers[key](mask).view(-1, *[1] * (args[0].dim() - 2)),)

        return model.get_submodule(key).register_forward_pre_hook(multiply)

    handles = [masked(key) for key in consumers]
    rows = [
        torch.autograd.grad(loss(model, (image, label)).sum(), mask)[0].numpy()
        for images, labels in data
        for image, label in zip(images.split(1), labels.split(1), strict=True)
    ]
    for handle in handles:
        handle.remove()  # type: ignore[attr-defined]
    return np.stack(rows)


def mask_set(model: nn.Module, data: list[Batch], name: str, choices: list[int]) -> float:
    """The Fisher information of one number that scales a whole set."""
    size, consumers = CONSUMERS[type(model)][name]
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    member = torch.isin(torch.arange(size), torch.tensor(choices))

    def masked(key: str) -> object:
        def multiply(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            mask = torch.where(member, scale, torch.ones_like(scale))
            return (args[0] * consumers[key](mask).view(-1, *[1] * (args[0].dim() - 2)),)

        return model.get_submodule(key).register_forward_pre_hook(multiply)

    handles = [masked(key) for key in consumers]
    squares = [
        float(torch.autograd.grad(loss(model, (image, label)).sum(), scale)[0]) ** 2
        for images, labels in data
        for image, label in zip(images.split(1), labels.split(1), strict=True)
    ]
    for handle in handles:
        handle.remove()  # type: ignore[attr-defined]
    return sum(squares) / (2 * len(squares))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_sets_score_is_that_of_one_mask_on_the_whole_set(network: type[nn.Module]) -> None:
    model, data = build(network), batches(3, 4)
    for name, ranking in RANKINGS["fisher-set"](model, groups_of(network), data, loss).items():
        scores = [mask_set(model, data, name, list(ranking.order[:k])) for k in range(len(ranking.order) + 1)]
        np.testing.assert_allclose(ranking.lost, np.maximum.accumulate(scores), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_are_those_of_a_mask_sample_by_sample_and_taylor_is_their_mean_size(
    network: type[nn.Module],
) -> None:
    model, data = build(network), batches(3, 4)
    found: dict[str, list[Tensor]] = {}
    count = collect(model, groups_of(network), data, loss, lambda name, g: found.setdefault(name, []).append(g.clone()))
    taylor = RANKINGS["taylor"](model, groups_of(network), data, loss)
    assert count == 7
    assert found.keys() == CONSUMERS[network].keys() == taylor.keys()
    for name, rows in found.items():
        expected = gradients_by_hand(model, data, name)
        np.testing.assert_allclose(torch.cat(rows).numpy(), expected, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(taylor[name].single, np.abs(expected).mean(0), rtol=1e-9)


@pytest.mark.parametrize("importance", RANKINGS)
@pytest.mark.parametrize("network", [ResidualNet, GatedNet, ConcatNet])
def test_rankings_do_not_depend_on_how_samples_are_batched(network: type[nn.Module], importance: str) -> None:
    model, groups = build(network), groups_of(network)
    one = RANKINGS[importance](model, groups, batches(8), loss)
    other = RANKINGS[importance](model, groups, batches(1, 2, 5), loss)
    assert one.keys() == other.keys() == {group.name for group in groups if not group.frozen_because}
    for name in one:
        assert list(one[name].order) == list(other[name].order)
        np.testing.assert_allclose(one[name].lost, other[name].lost, rtol=1e-9, atol=1e-14)


def test_fisher_loses_the_sum_of_its_scores_lowest_first() -> None:
    model = build(GatedNet)
    scores = fisher_scores(model, groups_of(GatedNet), batches(6), loss)
    for name, ranking in RANKINGS["fisher"](model, groups_of(GatedNet), batches(6), loss).items():
        ascending = np.sort(scores[name].numpy())
        np.testing.assert_array_equal(scores[name].numpy()[ranking.order], ascending)
        np.testing.assert_array_equal(ranking.lost, [0, *np.cumsum(ascending)])
        np.testing.assert_array_equal(ranking.single, scores[name].numpy())


def test_single_scores_and_those_of_sets_of_one_are_the_same() -> None:
    model, groups = build(ConcatNet), groups_of(ConcatNet)
    singly, sets = (RANKINGS[name](model, groups, batches(6), loss) for name in ("fisher", "fisher-set"))
    for name in singly:
        np.testing.assert_allclose(singly[name].single, sets[name].single, rtol=1e-12)


def test_magnitude_is_the_squared_norm_of_what_goes_with_a_channel_in_every_layer() -> None:
    model = build(ResidualNet).requires_grad_(False)
    found = RANKINGS["magnitude"](model, groups_of(ResidualNet))
    inner, norm, outer = model.inner.weight, model.inner_norm, model.outer.weight
    squares = [
        float(inner[c].square().sum() + norm.weight[c] ** 2 + norm.bias[c] ** 2 + outer[:, c].square().sum())
        for c in range(5)
    ]
    np.testing.assert_allclose(found["inner"].single, np.array(squares) / np.mean(squares), rtol=1e-12)


def test_magnitude_of_zeros_loses_nothing() -> None:
    model = build(ConcatNet)
    groups = groups_of(ConcatNet)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    assert all(not ranking.lost.any() for ranking in RANKINGS["magnitude"](model, groups).values())


@pytest.mark.parametrize("importance", RANKINGS)
def test_frozen_groups_are_passed_over_and_groups_may_lie_on_a_part(importance: str) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = build(ConcatNet)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    model = Wrapped()
    groups = find_groups(model.net, inputs(), freeze=["left"])
    found = RANKINGS[importance](model, groups, batches(3), loss, part=model.net)
    assert list(found) == ["right", "after"]


@pytest.mark.parametrize("importance", RANKINGS)
def test_no_groups_give_no_rankings(importance: str) -> None:
    groups: list[ChannelGroup] = []
    assert RANKINGS[importance](build(ConcatNet), groups, batches(2), loss) == {}
