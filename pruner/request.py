"""How to prune, and what came of it: the records that `pruner.prune` takes and gives."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pruner.plan import PrunePlan


@dataclass(frozen=True)
class PruneConfig:
    """How to prune.

    Attributes:
        importance: name in `RANKINGS`.
        normalize: the cost that importance is divided by ("latency", "memory", "flops", "none").
        solver: name in `SOLVERS`.
        rounds: in how many rounds the budget is reached, with scores taken afresh and training between.
        epochs: of fine-tuning, shared out over the rounds; the last have more where that does not come out even.
        distill: the unpruned network's share in what is trained for (0: nothing is learnt from it).
        train_device: where to train, such as "cuda:1"; None for a GPU if there is one.
        mixed_precision: "no", "fp16" or "bf16", of training.
        seed: of everything random.
        freeze: patterns of layers that stay whole.
        blocks: whether residual blocks may go wholly.
        min_width: no group gets narrower.
        step: widths are multiples of this; None for the device's own steps, as the table shows them (for rules that
            know nothing of latency: one channel).
        backend, threads: what measures.
        memory_of: the runtime whose memory is meant by a budget, that of `backend` for None.
        memory_capability, memory_precision: what that runtime compiles for; a table made ahead of time says so itself.
        allow_differences: fields of the fingerprint in which this machine may differ from the table's.
    """

    importance: str = "fisher"
    normalize: str = "latency"
    solver: str = "milp"
    rounds: int = 1
    epochs: int = 5
    distill: float = 0.0
    train_device: str | None = None
    mixed_precision: str = "no"
    seed: int = 0
    freeze: tuple[str, ...] = ()
    blocks: bool = False
    min_width: int = 1
    step: int | None = None
    backend: str = "onnxruntime"
    threads: int = 1
    memory_of: str | None = None
    memory_capability: str = "8.6"
    memory_precision: str = "fp32"
    allow_differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One promise and whether it was kept."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class PruneRun:
    """What came of pruning.

    Attributes:
        plan: what was kept.
        model: the whole pruned model, in eval mode.
        result: the contents of `result.json`.
        checks: the promises.
        out: the run directory, or None when nothing was to be written.
    """

    plan: PrunePlan
    model: nn.Module
    result: dict[str, Any]
    checks: tuple[Check, ...]
    out: Path | None

    @property
    def met(self) -> bool:
        """Whether every promise was kept."""
        return all(check.passed for check in self.checks)
