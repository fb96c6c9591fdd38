"""Recurrent layers and loops that share weights from step to step."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.profiler.patterns.building import Patterns, between, conv, over_tokens, weight


def _cells(net: nn.Module, x: Tensor) -> Tensor:
    """LSTMCell in a loop over a few tokens."""
    state = None
    for place in range(4):
        state = net.m(x[:, place], state)
    return state[0]


def _gru_cells(net: nn.Module, x: Tensor) -> Tensor:
    state = torch.zeros(1, 6).to(x)
    for place in range(4):
        state = net.m(x[:, place], state)
    return state


def _conv_gru(net: nn.Module, x: Tensor) -> Tensor:
    """RAFT's update: a convolutional GRU, run a few times."""
    state = torch.tanh(net.s(x))
    for _ in range(3):
        both = torch.cat([state, x], 1)
        update, reset = torch.sigmoid(net.u(both)), torch.sigmoid(net.r(both))
        new = torch.tanh(net.n(torch.cat([reset * state, x], 1)))
        state = (1 - update) * state + update * new
    return state


def _conv_lstm(net: nn.Module, x: Tensor) -> Tensor:
    """All gates from one convolution, split by a written size; the state starts at zero."""
    state, cell = torch.zeros(1, 6, 8, 8).to(x), torch.zeros(1, 6, 8, 8).to(x)
    for _ in range(2):
        enter, forget, leave, new = torch.split(net.g(torch.cat([x, state], 1)), 6, dim=1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
        state = torch.sigmoid(leave) * torch.tanh(cell)
    return state


def _propagated(net: nn.Module, x: Tensor) -> Tensor:
    """BasicVSR: features of three frames, each warped by a flow onto the next, from zeros of a written width."""
    carried = x.new_zeros(1, 6, 8, 8)
    frames = []
    for shift in range(3):
        frame = x.roll(shift, 3)
        flow = net.f(frame).tanh().permute(0, 2, 3, 1)
        carried = functional.grid_sample(carried, flow, align_corners=False)
        carried = net.b(torch.cat([frame, carried], 1)) + carried
        frames.append(carried)
    return torch.cat(frames, 1)


def _iterated(net: nn.Module, x: Tensor) -> Tensor:
    """DRRN: one residual unit several times."""
    y = x
    for _ in range(3):
        y = x + net.c(torch.relu(net.b(torch.relu(y))))
    return y


RECURRENT: Patterns = {
    "LSTM": (over_tokens(lambda net, x: net.m(x)[0], 8, 6, m=nn.LSTM(8, 6, batch_first=True)),
             {"a": 8, "m.weight_ih_l0": 6}),
    "LSTM of as many inputs": (over_tokens(lambda net, x: net.m(x)[0], 6, 6, m=nn.LSTM(6, 6, batch_first=True)),
                               {"a": 6, "m.weight_ih_l0": 6}),
    "LSTM of two layers": (
        over_tokens(lambda net, x: net.m(x)[0], 8, 6, m=nn.LSTM(8, 6, 2, batch_first=True)),
        {"a": 8, "m.weight_ih_l0": 6},
    ),
    "LSTM both ways": (
        over_tokens(lambda net, x: net.m(x)[0], 8, 12, m=nn.LSTM(8, 6, batch_first=True, bidirectional=True)),
        {"a": 8, "m.weight_ih_l0": 6},
    ),
    "LSTM with a projection": (
        over_tokens(lambda net, x: net.m(x)[0], 8, 3, m=nn.LSTM(8, 12, batch_first=True, proj_size=3)),
        {"a": 8, "m.weight_ih_l0": 12, "m.weight_hr_l0": 3},
    ),
    "last state of an LSTM": (
        over_tokens(lambda net, x: net.m(x)[1][0][-1], 8, 6, m=nn.LSTM(8, 6, 2, batch_first=True)),
        {"a": 8, "m.weight_ih_l0": 6},
    ),
    "LSTM from learned states": (
        over_tokens(lambda net, x: net.m(x, (net.h, net.c))[0], 8, 6, m=nn.LSTM(8, 6, batch_first=True),
                    h=weight(1, 1, 6), c=weight(1, 1, 6)),
        {"a": 8, "m.weight_ih_l0": 6},
    ),
    "GRU": (over_tokens(lambda net, x: net.m(x)[0], 8, 6, m=nn.GRU(8, 6, batch_first=True)),
            {"a": 8, "m.weight_ih_l0": 6}),
    "GRU of two layers, both ways": (
        over_tokens(lambda net, x: net.m(x)[0], 8, 12, m=nn.GRU(8, 6, 2, batch_first=True, bidirectional=True)),
        {"a": 8, "m.weight_ih_l0": 6},
    ),
    "plain recurrent layer": (over_tokens(lambda net, x: net.m(x)[0], 8, 6, m=nn.RNN(8, 6, batch_first=True)),
                              {"a": 8, "m.weight_ih_l0": 6}),
    "plain recurrent layer of rectified units": (
        over_tokens(lambda net, x: net.m(x)[0], 8, 6, m=nn.RNN(8, 6, nonlinearity="relu", batch_first=True)),
        {"a": 8, "m.weight_ih_l0": 6},
    ),
    "LSTM cells in a loop": (over_tokens(_cells, 8, 6, m=nn.LSTMCell(8, 6)), {"a": 8, "m.weight_hh": 6}),
    "GRU cells in a loop": (over_tokens(_gru_cells, 8, 6, m=nn.GRUCell(8, 6)), {"a": 8, "m.weight_ih": 6}),
    "convolutional GRU": (
        between(_conv_gru, 8, 6, s=conv(8, 6), u=conv(14, 6, 3), r=conv(14, 6, 3), n=conv(14, 6, 3)), {"a": 8, "s": 6}
    ),
    "convolutional LSTM": (between(_conv_lstm, 8, 6, g=conv(14, 24, 3)), {"a": 8, "g": 6}),
    "frames warped onto the next": (
        between(_propagated, 8, 18, f=conv(8, 2, 3), b=conv(14, 6, 3)), {"a": 8, "f": "places in a picture", "b": 6}
    ),
    "one residual unit several times": (between(_iterated, 8, 8, b=conv(8, 6, 3), c=conv(6, 8, 3)), {"a": 8, "b": 6}),
}  # fmt: skip
