"""The rule of the paper, calculated slowly and independently, beside `--normalize memory --solver greedy`."""

import pytest
import torch
from torch import Tensor, nn

from profiler.network import Network, analyze
from pruner import find_groups, fisher_scores, shrink
from pruner.cost import ActivationBytes, Channels
from pruner.importance.ranking import rank_singly
from pruner.options import Offered
from pruner.posing import Budgeted, Question
from pruner.solvers import get_solver
from pruner.solving import solve


class Small(nn.Module):
    """A residual trunk, inner layers of other widths and resolutions, a norm, a pooling and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 7, 3, padding=1)
        self.inner = nn.Conv2d(7, 9, 3, stride=2, padding=1)
        self.back = nn.ConvTranspose2d(9, 7, 2, stride=2)
        self.norm = nn.BatchNorm2d(7)
        self.wide = nn.Conv2d(7, 11, 1)
        self.hidden = nn.Linear(11, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.norm(x + self.back(torch.relu(self.inner(x)))))
        x = torch.relu(self.wide(nn.functional.max_pool2d(x, 2))).mean((2, 3))
        return self.head(torch.relu(self.hidden(x)))


def memory(model: nn.Module, inputs: Tensor) -> int:
    """Elements of all outputs of convolutions and linear layers, the network's own output aside, by running it."""
    counted = 0

    def count(module: nn.Module, _given: object, output: Tensor) -> None:
        nonlocal counted
        counted += output.numel()

    layers = [
        m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and n != "head"
    ]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    model(inputs)
    for hook in hooks:
        hook.remove()
    return counted


def slow_order(model: nn.Module, inputs: Tensor, scores: dict[str, Tensor], count: int) -> list[tuple[str, int]]:
    """Take one channel at a time: every remaining one is tried on a network that is really shrunk."""
    gone: dict[str, list[int]] = {name: [] for name in scores}
    order = []
    for _ in range(count):
        now = memory(shrink(model, (inputs,), gone), inputs)
        ratios = {}
        for name, own in scores.items():
            left = [channel for channel in range(len(own)) if channel not in gone[name]]
            if len(left) == 1:
                continue
            channel = min(left, key=lambda channel, own=own: float(own[channel]))
            without = memory(shrink(model, (inputs,), {**gone, name: [*gone[name], channel]}), inputs)
            ratios[name, channel] = float(own[channel]) / (now - without)
        name, channel = min(ratios, key=ratios.__getitem__)
        gone[name].append(channel)
        order.append((name, channel))
    return order


@pytest.fixture(scope="module")
def setup() -> tuple[Small, Tensor, Network, dict[str, Tensor]]:
    torch.manual_seed(3)
    model = Small().eval()
    inputs = torch.randn(1, 3, 8, 8)
    batches = [(torch.randn(6, 3, 8, 8), torch.randint(4, (6,))) for _ in range(2)]
    groups = find_groups(model, (inputs,))
    scores = fisher_scores(
        model, groups, batches, lambda net, batch: nn.functional.cross_entropy(net(batch[0]), batch[1], reduction="sum")
    )
    return model, inputs, analyze(model, (inputs,)), scores


def test_the_order_of_pruned_channels_is_the_papers(
    setup: tuple[Small, Tensor, Network, dict[str, Tensor]],
) -> None:
    model, inputs, network, scores = setup
    total = sum(len(own) for own in scores.values())
    count = total - len(scores) - 2
    expected = slow_order(model, inputs, scores, count)
    assert len({name for name, _ in expected}) >= 3

    rankings = {name: rank_singly(own.numpy()) for name, own in scores.items()}
    offered = Offered(None, network.units, network.widths, None, step=1)  # type: ignore[arg-type]
    options = {name: offered.options(name, network.widths) for name in rankings}
    channels = Channels(network.widths)
    for number in range(1, count + 1):
        question = Question(
            full=network.widths,
            options=options,
            lost={name: ranking.lost for name, ranking in rankings.items()},
            budgets=[Budgeted(channels, sum(network.widths.values()) - number)],
            rank=ActivationBytes(network.cut.liveness, network.units),
        )
        answer = solve(question, get_solver("greedy"))
        gone = {
            (name, channel)
            for name, ranking in rankings.items()
            for channel in set(range(len(ranking.order))) - set(ranking.kept(answer.widths[name]))
        }
        assert gone == set(expected[:number]), number
