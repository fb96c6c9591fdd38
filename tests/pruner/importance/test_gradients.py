"""How g is taken: at the cost of training, in any memory layout and number type, and holding nothing for it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional

from lut.records import ChannelGroup, Member
from pruner.importance import gradients as taking
from pruner.importance.gradients import mask_gradients, weights_at_rest
from pruner.importance.listening import Heard, Listening
from pruner.importance.owners import Owners
from tests.pruner.importance.test_fisher import groups_of
from tests.pruner.networks import NETWORKS, ResidualNet, batches, build, loss


def columns(parameter: str, size: int) -> ChannelGroup:
    return ChannelGroup(parameter, size, (Member(parameter, 1, tuple((i,) for i in range(size))),))


class Chain(nn.Module):
    """Convolutions in a row, with what overwrites in between."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 if not i else 6, 6, 3, padding=1) for i in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = functional.relu(layer(x), inplace=True)
        return x.mean((2, 3))

    def groups(self) -> list[ChannelGroup]:
        return [columns(f"layers.{i}.weight", 6) for i in (1, 2, 3)]


@pytest.mark.parametrize("at_rest", [False, True])
def test_activations_go_as_the_backward_pass_leaves_them(at_rest: bool) -> None:
    model = build(Chain).requires_grad_(not at_rest)
    entered: dict[int, StorageWeakRef] = {}
    gone: list[list[int]] = []

    def remember(i: int) -> Callable[[nn.Module, tuple[Tensor]], None]:
        return lambda module, args: entered.update({i: StorageWeakRef(args[0].untyped_storage())})

    for i, layer in enumerate(model.layers):  # type: ignore[arg-type]
        layer.register_forward_pre_hook(remember(i))

    def listener(heard: Heard) -> None:
        gone.append([i for i in (1, 2, 3) if entered[i].expired()])

    with Listening(Owners(model, model.groups()), listener):  # type: ignore[operator]
        value = loss(model, batches(2)[0]).sum()
        value.backward()
    assert gone == [[], [3], [2, 3]]
    assert all(entered[i].expired() for i in (1, 2, 3))
    assert bool(value.isfinite())  # the graph is still held, and with it what it holds


@pytest.mark.parametrize("network", NETWORKS)
def test_while_training_weights_get_the_gradients_that_they_get_anyway(network: type[nn.Module]) -> None:
    model, batch = build(network), batches(4)[0]
    loss(model, batch).sum().backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    owners = Owners(model, groups_of(network))
    found, met = mask_gradients(model, batch, loss, owners)
    assert bool(met.all())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=0)
    model.zero_grad()
    with weights_at_rest(model):
        alone, _ = mask_gradients(model, batch, loss, owners)
    torch.testing.assert_close(alone, found, rtol=1e-12, atol=1e-15)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("strip", [1, 30, 10**6])
def test_memory_layout_and_strips_change_no_gradient(
    layout: torch.memory_format, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (images, labels) = build(ResidualNet), batches(4)[0]
    owners = Owners(model, groups_of(ResidualNet))
    expected, _ = mask_gradients(model, (images, labels), loss, owners)
    monkeypatch.setattr(taking, "STRIP", strip)
    model.to(memory_format=layout)
    found, _ = mask_gradients(model, (images.to(memory_format=layout), labels), loss, owners)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("kind", "close"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_gradients_of_narrow_numbers_are_added_up_in_float32(kind: torch.dtype, close: float) -> None:
    model, (images, labels) = build(ResidualNet), batches(4)[0]
    owners = Owners(model, groups_of(ResidualNet))
    expected, _ = mask_gradients(model, (images, labels), loss, owners)
    found, _ = mask_gradients(model.to(kind), (images.to(kind), labels), loss, owners)
    assert found.dtype == torch.float32
    assert float((found - expected).norm() / expected.norm()) < close


def test_products_too_small_for_half_precision_are_not_lost() -> None:
    entered = torch.full((1, 1, 64, 128), 2.0**-12, dtype=torch.float16)
    heard = Heard(torch.tensor([0]), 1, True, False, entered, torch.full_like(entered, 2.0**-14))
    assert float(taking.entering_gradients(heard, 1)) == 64 * 128 * 2.0**-26
