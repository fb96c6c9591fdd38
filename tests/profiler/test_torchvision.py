"""Public networks of many families: shrunk, trained for a step, exported, and still the same as their ONNX."""

import warnings

import pytest
import torch
from torch import nn

from profiler.awake import awaken
from profiler.backends.onnxruntime_plain import evaluate
from profiler.cut import cut
from profiler.export import flat_arrays, largest_difference, output_arrays, to_onnx
from profiler.outputs import tensors_of
from profiler.trial import find_groups

torchvision = pytest.importorskip("torchvision")
pytest.importorskip("onnxruntime")

SIZES: dict[str, tuple[int, ...]] = {
    "alexnet": (1, 3, 64, 64),
    "convnext_tiny": (1, 3, 64, 64),
    "deeplabv3_mobilenet_v3_large": (1, 3, 64, 64),
    "densenet121": (1, 3, 64, 64),
    "efficientnet_b0": (1, 3, 64, 64),
    "efficientnet_v2_s": (1, 3, 64, 64),
    "googlenet": (1, 3, 96, 96),
    "inception_v3": (1, 3, 299, 299),
    "lraspp_mobilenet_v3_large": (1, 3, 64, 64),
    "maxvit_t": (1, 3, 224, 224),
    "mc3_18": (1, 3, 4, 32, 32),
    "mnasnet0_5": (1, 3, 64, 64),
    "mobilenet_v2": (1, 3, 64, 64),
    "mobilenet_v3_small": (1, 3, 64, 64),
    "regnet_y_400mf": (1, 3, 64, 64),
    "resnet18": (1, 3, 64, 64),
    "resnext50_32x4d": (1, 3, 64, 64),
    "shufflenet_v2_x0_5": (1, 3, 64, 64),
    "squeezenet1_1": (1, 3, 64, 64),
    "swin3d_t": (1, 3, 4, 32, 32),
    "swin_t": (1, 3, 64, 64),
    "swin_v2_t": (1, 3, 64, 64),
    "vgg11_bn": (1, 3, 64, 64),
    "vit_b_32": (1, 3, 224, 224),
}
"""Of one example input, small where the network allows it."""

QUICK = {"googlenet", "resnet18", "shufflenet_v2_x0_5"}
"""Tested every time: auxiliary heads, plain, channel shuffle."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SIZES]
)
def test_a_shrunk_network_trains_for_a_step_and_is_exported(name: str) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = {"weights_backbone": None} if name.startswith(("deeplab", "lraspp")) else {}
        settings |= {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
        model: nn.Module = awaken(torchvision.models.get_model(name, weights=None, **settings)).eval()
    inputs = (torch.randn(SIZES[name]),)
    groups = find_groups(model, inputs)
    removal = {group.name: list(range(group.size // 2)) for group in groups if group.size > 1}
    smaller = cut(model, groups, removal)
    before, after = (sum(p.numel() for p in network.parameters()) for network in (model, smaller))
    assert after < 0.6 * before
    optimizer = torch.optim.SGD(smaller.parameters(), lr=1e-4)
    outputs = tensors_of(smaller.train()(torch.cat([inputs[0], inputs[0].flip(-1)])))
    torch.stack([output.square().mean() for output in outputs]).sum().backward()
    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in smaller.parameters())
    optimizer.step()
    smaller.eval()
    found = list(evaluate(to_onnx(smaller, inputs).SerializeToString(), flat_arrays(inputs)).values())
    assert largest_difference(found, output_arrays(smaller, inputs)) <= 1e-3
