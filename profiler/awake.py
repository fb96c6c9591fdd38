"""Wake a network: random values of ordinary size in every parameter and buffer, so that no wrong removal hides."""

import torch
from torch import Tensor, nn

from profiler.cut import copy_sharing
from profiler.dropping import owners_of

POOL = 65_537
"""So many random numbers are drawn; larger tensors repeat them. It is a prime, so that no two rows are alike."""


class _Awake:
    """Random values of ordinary size for every parameter and buffer, so that no channel sleeps."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.pool = torch.zeros(0)
        self.parameters = set(dict(model.named_parameters(remove_duplicate=False)))

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers."""
        count = like.numel()
        if count < POOL:
            return torch.randn(like.shape, generator=self.generator, dtype=torch.float32).to(like)
        if not len(self.pool):
            self.pool = torch.randn(POOL, generator=self.generator)
        pool = self.pool.roll(int(torch.randint(POOL, (1,), generator=self.generator)))
        filled, whole = torch.empty(count), count // POOL * POOL
        filled[:whole].view(-1, POOL).copy_(pool)
        filled[whole:].copy_(pool[: count - whole])
        return filled.view(like.shape).to(like)

    def value(self, name: str, tensor: Tensor) -> Tensor | None:
        """A value for one tensor, or None where it is to keep its own."""
        if not tensor.dtype.is_floating_point or not tensor.numel():
            return None
        if name.endswith("running_var"):
            return 0.5 + self.normal(tensor).abs_()
        if tensor.dim() > 1:
            fan = max(1, tensor.numel() // tensor.shape[0])
            return self.normal(tensor).mul_((1.5 / fan) ** 0.5) if name in self.parameters else None
        if name.rpartition(".")[2] in {"weight", "gamma", "scale", "layer_scale", "alpha"}:
            return self.normal(tensor).mul_(0.3).add_(1)
        return self.normal(tensor).mul_(0.2)


def awaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and buffer random values of ordinary size, in place, so that no channel sleeps.

    Zero-initialised gains and fresh statistics would otherwise hide a wrong removal.
    """
    awake = _Awake(model, seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            value = awake.value(name, tensor)
            if value is not None:
                tensor.copy_(value)
    return model


def awake_copy(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy of a network in single precision, awake; the original's contents are not even copied."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    awake, fresh = _Awake(model, seed), copy_sharing(model, tensors.values())
    for name, places in owners_of(fresh).items():
        old = tensors[name].detach()
        found = awake.value(name, old)
        new = (found if found is not None else old.clone()).to(torch.float32 if old.is_floating_point() else old.dtype)
        for module, leaf, _ in places:
            if isinstance(tensors[name], nn.Parameter):
                module._parameters[leaf] = nn.Parameter(new, requires_grad=tensors[name].requires_grad)
            else:
                module._buffers[leaf] = new
    return fresh
