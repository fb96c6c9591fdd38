"""Channels that enter recurrent layers, and their hidden states, are scored: as a mask by hand scores them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from profiler.trial import find_groups
from pruner.importance.fisher import fisher_scores

SAMPLES = STEPS = 6
"""As many, so that the two cannot be told apart by their number."""


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], *, first: bool, layers: int, both_ways: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 6, 3, padding=1)
        self.rnn = kind(6, 5, layers, batch_first=first, bidirectional=both_ways)
        self.out = nn.Linear(10 if both_ways else 5, 4)
        self.first = first

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = functional.relu(self.conv(x))
        y = y if mask is None else y * mask[:, :, None]
        y = self.rnn(y.transpose(1, 2) if self.first else y.permute(2, 0, 1))[0]
        return self.out(y[:, -1] if self.first else y[-1])


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize(("first", "layers", "both_ways"), [(True, 2, True), (False, 1, False)])
def test_what_enters_a_recurrent_layer_is_scored_at_every_step(
    kind: type[nn.RNNBase], first: bool, layers: int, both_ways: bool
) -> None:
    torch.manual_seed(0)
    net = Recurrent(kind, first=first, layers=layers, both_ways=both_ways).eval()
    x, labels = torch.randn(SAMPLES, 3, STEPS), torch.randint(4, (SAMPLES,))
    mask = torch.ones(SAMPLES, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(functional.cross_entropy(net(x, mask), labels, reduction="sum"), mask)
    groups = find_groups(net, (x[:1],))
    found = fisher_scores(
        net, groups, [(x, labels)], lambda m, b: functional.cross_entropy(m(b[0]), b[1], reduction="sum")
    )
    torch.testing.assert_close(found["conv"], gradient.double().square().sum(0) / (2 * SAMPLES), rtol=1e-4, atol=1e-9)


def test_a_hidden_state_counts_where_it_comes_back_and_where_it_leaves() -> None:
    torch.manual_seed(0)
    net = Recurrent(nn.RNN, first=True, layers=1, both_ways=False).eval()
    x, labels = torch.randn(SAMPLES, 3, STEPS), torch.randint(4, (SAMPLES,))
    rnn = net.rnn
    mask = torch.ones(SAMPLES, 5, requires_grad=True)
    entering = functional.relu(net.conv(x)).transpose(1, 2) @ rnn.weight_ih_l0.T + rnn.bias_ih_l0 + rnn.bias_hh_l0
    hidden = torch.zeros(SAMPLES, 5)
    for step in range(STEPS):
        hidden = torch.tanh(entering[:, step] + (hidden * mask) @ rnn.weight_hh_l0.T)
    value = functional.cross_entropy(net.out(hidden * mask), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(value, mask)
    groups = find_groups(net, (x[:1],))
    found = fisher_scores(
        net, groups, [(x, labels)], lambda m, b: functional.cross_entropy(m(b[0]), b[1], reduction="sum")
    )
    torch.testing.assert_close(
        found["rnn.weight_ih_l0"], gradient.double().square().sum(0) / (2 * SAMPLES), rtol=1e-4, atol=1e-9
    )
