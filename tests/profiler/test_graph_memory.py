import torch
from torch import nn

from profiler.export import to_onnx
from profiler.graph_memory import graph_memory
from profiler.network import analyze


def test_a_graph_needs_what_the_trace_says() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 4, 1),
    )
    inputs = (torch.randn(1, 3, 16, 16),)
    network = analyze(model.eval(), inputs)
    expected = network.memory(network.widths)
    found = graph_memory(to_onnx(model, inputs))
    assert found.peak_activation_bytes == expected.peak_activation_bytes == (16 + 32) * 256 * 4
    assert found.weights_bytes == expected.weights_bytes
    assert found.traffic_bytes == expected.traffic_bytes
