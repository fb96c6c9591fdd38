"""A network that is awake: nothing in it is zero."""

from torch import nn

from profiler.awake import awaken
from tests.profiler.patterns import conv


def test_an_awake_network_has_no_zeros_and_positive_variances() -> None:
    model = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.GroupNorm(4, 8))
    awaken(model)
    assert all((parameter != 0).all() for parameter in model.parameters())
    assert (model[1].running_var >= 0.5).all()
