"""Fisher information of whole residual branches: how much the loss would grow without one.

    g[n]  = sum over positions, and over calls, of A * dL/dA      (of sample n, where branch A enters its addition)
    score = 1 / (2 N) * sum_n g[n] ** 2

This is the gradient of a mask of one on the branch's output. The user's own module runs; the addition is known in it as
it was in the trace, by counting the additions of the module that does it.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lut.errors import LatpruneError, TaskError
from profiler.blocks import Block
from profiler.progress import Event, Progress, silent
from profiler.residual import ADDITIONS
from profiler.undisturbed import undisturbed, without_fusing
from pruner.importance.batches import Loss, SumCheck, count_samples, loss_of


def branch_scores(
    model: nn.Module,
    blocks: Sequence[Block],
    batches: Iterable[Any],
    loss: Loss,
    *,
    part: nn.Module | None = None,
    progress: Progress | None = None,
    max_batches: int | None = None,
) -> dict[str, float]:
    """Score each block by the empirical Fisher information of its branch.

    Samples stay apart, norms and dropout run in eval mode; the model, its gradients and the random generators are left
    as they were. A branch within another has a score of its own: what its block alone would cost.

    Args:
        model: what `loss` takes.
        blocks: as `find_blocks` gives them; frozen ones are passed over.
        batches: anything that `loss` takes.
        loss: the sum over the batch's samples, or one value a sample.
        part: the part of the model that the blocks were found on, where it is not the whole.
        progress: told after every batch.
        max_batches: how many batches to use at most.

    Returns:
        For each block's name a score, never negative, in squared units of the loss.

    Raises:
        TaskError: no batches; a loss that is a mean, is not finite or has no gradient.
        LatpruneError: the loss never runs a block, runs its module otherwise than the trace did, or samples cannot be
            told apart there.
    """
    blocks = [block for block in blocks if not block.frozen_because]
    if not blocks:
        return {}
    listening = _Listening(model if part is None else part, blocks)
    sums = dict.fromkeys((block.name for block in blocks), 0.0)
    check = SumCheck()
    samples = done = 0
    total = len(batches) if isinstance(batches, Sized) else None
    if max_batches is not None:
        total = min(total, max_batches) if total is not None else max_batches
    with undisturbed(model), _asking_only(model, listening.lasts), without_fusing(), torch.enable_grad():
        for done, batch in enumerate(islice(batches, max_batches), start=1):
            model.eval()
            check(model, batch, loss)
            gradients = listening.gradients(model, batch, loss, done)
            for name, gradient in gradients.items():
                if not bool(torch.isfinite(gradient).all()):
                    raise TaskError(f"The gradients of loss() are not finite on batch {done}.")
                sums[name] += float(gradient.square().sum())
                samples += len(gradient) if name == blocks[0].name else 0
            (progress or silent)(Event("scoring blocks", done, total))
    if not done:
        raise TaskError("train_batches() gave no batch: Fisher scores need some.")
    return {name: value / (2 * samples) for name, value in sums.items()}


@contextlib.contextmanager
def _asking_only(model: nn.Module, wanted: Sequence[Tensor]) -> Iterator[None]:
    """Ask for the gradients of these parameters alone: one in each branch lets gradients reach its addition."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    asked = {id(parameter) for parameter in wanted}
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in asked)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@dataclass
class _Watch:
    """One block while a batch runs.

    Attributes:
        block: it.
        counted: additions of its adder in the running call.
        met: whether the loss has run it.
        silent: whether it did so without gradients.
        gradient: g, which grows in the backward pass.
    """

    block: Block
    counted: int = 0
    met: bool = False
    silent: bool = False
    gradient: Tensor = field(default_factory=lambda: torch.zeros(0))

    @property
    def kept_at(self) -> int:
        """Which argument of the addition is not the branch."""
        return self.block.home.evaluation.kept


class _Listening(TorchDispatchMode):
    """While active, sees every addition of the part's modules, and listens at those of the blocks."""

    def __init__(self, part: nn.Module, blocks: Sequence[Block]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.part = part
        self.watches = [_Watch(block) for block in blocks]
        self.running: list[str] = []
        self.samples = 0
        parameters = dict(part.named_parameters())
        self.lasts = [_last(block, parameters) for block in blocks]

    def gradients(self, model: nn.Module, batch: Any, loss: Loss, number: int) -> dict[str, Tensor]:
        """One batch's `g` of each block, `[N]` float64 on the CPU."""
        for watch in self.watches:
            watch.met = watch.silent = False
        handles = self._hooks()
        try:
            with self:
                value = loss_of(model, batch, loss, number)
        finally:
            for handle in handles:
                handle.remove()
            self.running.clear()
        missed = [watch.block.name for watch in self.watches if not watch.met]
        if missed:
            raise LatpruneError(f"The loss never runs the block {missed[0]}, so it cannot be scored.")
        if not value.requires_grad or any(watch.silent for watch in self.watches):
            raise TaskError("loss() has no gradient: does it run under no_grad, or not use the network?")
        self.samples = count_samples(batch, value)
        for watch in self.watches:
            watch.gradient = torch.zeros(self.samples, dtype=torch.float64)
        wanted = list({id(parameter): parameter for parameter in self.lasts}.values())
        torch.autograd.grad([value.sum()], wanted, allow_unused=True)
        return {watch.block.name: watch.gradient for watch in self.watches}

    def _hooks(self) -> list[Any]:
        handles = []
        for name, module in self.part.named_modules():

            def enter(_module: nn.Module, _args: Any, name: str = name) -> None:
                self.running.append(name)
                for watch in self.watches:
                    if watch.block.module == name:
                        watch.counted = 0

            def leave(_module: nn.Module, _args: Any, _output: Any, name: str = name) -> None:
                self.running.pop()
                for watch in self.watches:
                    if watch.block.module == name and watch.counted != watch.block.additions[0]:
                        raise LatpruneError(
                            f"{watch.block.adder or 'The network'} does {watch.counted} additions under loss(), and "
                            f"{watch.block.additions[0]} on the example inputs: the block {watch.block.name} cannot be "
                            "told. Let loss() run the network as the example inputs do."
                        )

            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))
        return handles

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Look at an operation, and run it."""
        name = func.overloadpacket.__name__
        if name in ADDITIONS and self.running and _alike(args):
            for watch in self.watches:
                if watch.block.adder == self.running[-1]:
                    if watch.counted == watch.block.additions[1]:
                        self._listen(watch, args[1 - watch.kept_at], copied=name == "add_" and watch.kept_at == 1)
                    watch.counted += 1
        return func(*args, **(kwargs or {}))

    def _listen(self, watch: _Watch, branch: Tensor, *, copied: bool) -> None:
        """Take note of a branch, and of its gradient when that is known."""
        watch.met = True
        if not branch.requires_grad:
            watch.silent = True
            return
        entered = branch.detach().clone() if copied else branch.detach()

        def hear(gradient: Tensor) -> None:
            watch.gradient += _by_sample(entered, gradient, watch.block, self.samples)

        branch.register_hook(hear)  # type: ignore[no-untyped-call]


def _last(block: Block, parameters: Mapping[str, Tensor]) -> Tensor:
    """A parameter of the branch, late in it, so that asking for its gradient costs little."""
    own = [parameters[name] for name in block.parameters if name in parameters]
    if not own:
        raise LatpruneError(
            f"The block {block.name} has no parameter that a gradient could reach: it cannot be scored."
        )
    return own[-1]


def _alike(args: Sequence[Any]) -> bool:
    """Whether an addition's operands are two float tensors of one shape."""
    if len(args) < 2 or not all(isinstance(each, Tensor) for each in args[:2]):
        return False
    return bool(args[0].shape == args[1].shape and args[0].dtype.is_floating_point)


def _by_sample(entered: Tensor, gradient: Tensor, block: Block, samples: int) -> Tensor:
    """`A * dL/dA`, summed over all positions of each sample; a sample may stand several times in a row (windows).

    Returns:
        `[N]`, float64, on the CPU.

    Raises:
        LatpruneError: samples cannot be told apart.
    """
    length = entered.shape[block.samples] if entered.dim() > block.samples else 0
    if not length or length % samples or (block.samples and length != samples):
        raise LatpruneError(
            f"The branch of {block.name} is {list(entered.shape)}, where {samples} samples cannot be told apart, so it "
            "cannot be scored."
        )
    products = (entered * gradient).movedim(block.samples, 0)
    return products.reshape(samples, -1).double().sum(1).cpu()
