"""Where a network trains and in which precision: devices by PyTorch, mixed precision by accelerate."""

import contextlib
import importlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only

from lut.errors import LatpruneError
from profiler.program_module import ProgramModule

log = logging.getLogger(__name__)

PRECISIONS = ("no", "fp16", "bf16")
"""What the network's products are computed in; weights and their updates stay as they are."""
LARGEST_GRADIENT = 1.0
"""Norm to which the gradient of the mean loss is clipped."""


class PlacementError(LatpruneError):
    """A network cannot be trained on this device, in this precision, or by so many processes."""


def refuse_several_processes() -> None:
    """Make sure that no launcher started this process as one of several.

    Raises:
        PlacementError: one did; each would train, prune and write the same run by itself.
    """
    count = int(os.environ.get("WORLD_SIZE") or 1)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        count = max(count, torch.distributed.get_world_size())
    if count > 1:
        raise PlacementError(
            f"This is one of {count} processes (WORLD_SIZE), and training runs in one.\n"
            "Start it without `accelerate launch` or `torchrun`; for several, give the task a train() that starts them"
        )


def device_of(model: nn.Module) -> torch.device:
    """Where a network's tensors are; the CPU where it has none.

    Raises:
        PlacementError: they are in several places.
    """
    found = {tensor.device for tensor in [*model.parameters(), *model.buffers()]}
    if len(found) > 1:
        places = ", ".join(sorted(map(str, found)))
        raise PlacementError(
            f"The network's tensors are on several devices: {places}.\nPut them on one, or give the task a train()"
        )
    return found.pop() if found else torch.device("cpu")


def choose_device(model: nn.Module, wanted: str | None = None) -> torch.device:
    """The device to train on: the one that is wanted; else where the network is, unless that is the CPU beside a GPU.

    Raises:
        PlacementError: PyTorch knows no such device, or this machine has none.
    """
    home = device_of(model)
    if wanted is None:
        found = torch.accelerator.current_accelerator(check_available=True) if home.type == "cpu" else None
        return torch.device(found.type, 0) if found is not None else home
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise PlacementError(f"There is no device {wanted!r} to train on: {first}\nGive cpu, cuda, cuda:1 …") from error
    return torch.device(device.type, device.index if device.index is not None or device.type == "cpu" else 0)


@contextlib.contextmanager
def placed(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Have networks on a device, and bring each back to where it was; parameters stay the same objects.

    Raises:
        PlacementError: one of them is on several devices.
    """
    homes = [device_of(module) for module in modules]
    try:
        for module in modules:
            module.to(device)
        yield
    finally:
        for module, home in zip(modules, homes, strict=True):
            module.to(home)


def moved(batch: Any, device: torch.device) -> Any:
    """A batch with its tensors (and what else has a method `to`, such as tokenizers' results) on a device."""

    def move(leaf: Any) -> Any:
        return leaf.to(device) if isinstance(leaf, Tensor) or callable(getattr(leaf, "to", None)) else leaf

    return tree_map(move, batch)


@dataclass(frozen=True)
class Batches:
    """Batches that are moved to a device, each when its turn comes; as long as those that they are made of."""

    batches: Sized
    device: torch.device

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return (moved(batch, self.device) for batch in cast(Iterable[Any], self.batches))


def batches_on(batches: Iterable[Any], device: torch.device) -> Iterable[Any]:
    """Batches on a device, each moved when its turn comes; on the CPU they are left as they are."""
    if device.type == "cpu":
        return batches
    if isinstance(batches, Sized):
        return Batches(batches, device)
    return (moved(batch, device) for batch in batches)


def in_single(tensor: Tensor) -> Tensor:
    """The tensor in single precision where it is in less: sums over many values need it."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class Updates:
    """Makes one step of an optimizer after another in one precision."""

    def __init__(self, optimizer: torch.optim.Optimizer, accelerator: Any = None) -> None:
        """Take what `updates` made; without an accelerator everything is computed as it stands."""
        self.optimizer, self.accelerator = optimizer, accelerator
        self.scaled = accelerator.prepare_optimizer(optimizer, device_placement=False) if accelerator else optimizer

    def autocast(self) -> AbstractContextManager[Any]:
        """The block in which the loss is computed."""
        return self.accelerator.autocast() if self.accelerator else contextlib.nullcontext()

    def step(self, loss: Tensor) -> None:
        """Follow a loss's gradient, clipped; in fp16 a step whose gradient is not finite is left out, as is usual."""
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        self.scaled.zero_grad(set_to_none=True)
        if self.accelerator:
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(weights, LARGEST_GRADIENT)
        else:
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(weights, LARGEST_GRADIENT)
        self.scaled.step()


@contextlib.contextmanager
def updates(
    models: Sequence[nn.Module], optimizer: torch.optim.Optimizer, *, device: torch.device, mixed_precision: str = "no"
) -> Iterator[Updates]:
    """Get ready to train in a precision, and leave nothing of accelerate's global state behind.

    Only autocast, the loss's scale and clipping are accelerate's; seeds, batches and data loaders stay as they are.

    Args:
        models: what runs, on `device`: the model that is trained, and perhaps a teacher.
        optimizer: of the model's weights.
        device: where it is trained.
        mixed_precision: of `PRECISIONS`.

    Raises:
        PlacementError: the device cannot do it, or accelerate is missing or told by the environment to stay on the CPU.
    """
    if mixed_precision == "no":
        yield Updates(optimizer)
        return
    check_precision(mixed_precision, device)
    try:
        library = importlib.import_module("accelerate")
    except ImportError as error:
        raise PlacementError(
            f"Mixed precision ({mixed_precision}) needs accelerate, which cannot be imported: {error}.\n"
            "Install it: pip install accelerate, or train without mixed precision"
        ) from error
    with _own_state():
        try:
            accelerator = library.Accelerator(cpu=device.type == "cpu", mixed_precision=mixed_precision)
        except ValueError as error:
            raise PlacementError(f"accelerate refuses {mixed_precision} on {device}: {error}") from error
        if accelerator.device.type != device.type:
            raise PlacementError(
                f"Training is to run on {device}, and the environment (ACCELERATE_USE_CPU …) has accelerate use "
                f"{accelerator.device.type}.\nTrain there, change the environment, or train without mixed precision"
            )
        # The environment of a launcher may hold another number.
        accelerator.gradient_accumulation_steps = 1
        with _programs_in_full(models, device):
            yield Updates(optimizer, accelerator)


@contextlib.contextmanager
def _own_state() -> Iterator[None]:
    """Give accelerate the state of a fresh process: it can be set up once, and the user's code may have done so."""
    library = importlib.import_module("accelerate.state")
    shared = [kind._shared_state for kind in (library.PartialState, library.AcceleratorState, library.GradientState)]
    kept = [{key: dict(value) if isinstance(value, dict) else value for key, value in one.items()} for one in shared]
    try:
        for one in shared:
            one.clear()
        yield
    finally:
        for one, before in zip(shared, kept, strict=True):
            one.clear()
            one.update(before)


def check_precision(mixed_precision: str, device: torch.device | None = None) -> None:
    """Make sure that there is such a precision, on this device.

    Raises:
        PlacementError: there is not.
    """
    if mixed_precision not in PRECISIONS:
        raise PlacementError(f"There is no mixed precision {mixed_precision!r}.\nGive one of {', '.join(PRECISIONS)}")
    if mixed_precision == "fp16" and device is not None and device.type == "cpu":
        raise PlacementError("fp16 needs a GPU, and training is to run on the CPU.\nGive bf16, which runs there too")


@contextlib.contextmanager
def _programs_in_full(models: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Let programs compute in their own precision, and say so.

    Autocast chooses by the functions that a module calls. A program consists of what these functions are made of; of
    that some is cast and some is not, and the two do not go together.
    """
    programs = {module for model in models for module in model.modules() if isinstance(module, ProgramModule)}
    if programs:
        names = sorted(program.program.module or "the network" for program in programs)
        log.warning("running as programs, these train in full precision: %s", ", ".join(names))
    try:
        for program in programs:
            program.forward = _in_full(program.forward, device)  # type: ignore[method-assign]
        yield
    finally:
        for program in programs:
            vars(program).pop("forward", None)


def _in_full(forward: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device.type, enabled=False):
            positional, named = tree_map_only(Tensor, in_single, (args, kwargs))
            return forward(*positional, **named)

    return run
