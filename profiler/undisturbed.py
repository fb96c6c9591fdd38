"""Run a network and leave it as it was: modes, buffers, generators, gradients and PyTorch's fused path are put back."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put modes, buffers and random generators back at the end, whatever happens between."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training
            with torch.no_grad():
                for buffer, saved in buffers:
                    if buffer.shape == saved.shape:
                        buffer.copy_(saved)


@contextlib.contextmanager
def without_gradients(model: nn.Module) -> Iterator[None]:
    """No parameter asks for gradients: activations are freed as in a plain run, and yet `no_grad` in the code shows."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def without_fusing() -> Iterator[None]:
    """PyTorch's transformer layers do not run as one opaque operation."""
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
