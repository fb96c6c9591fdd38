"""Decide what to keep of a network, make it really smaller, train it on, and write it out.

The names below are imported when they are first used: `import pruner` needs no torch.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiler.trial import find_groups
    from pruner.frontier import frontier
    from pruner.importance.fisher import fisher_scores
    from pruner.plan import PrunePlan
    from pruner.prune import prune
    from pruner.rundir import load, save
    from pruner.surgery import mask, shrink
    from pruner.task import Task, load_task

__all__ = [
    "PrunePlan",
    "Task",
    "find_groups",
    "fisher_scores",
    "frontier",
    "load",
    "load_task",
    "mask",
    "prune",
    "save",
    "shrink",
]

_HOMES = {
    "PrunePlan": "pruner.plan",
    "Task": "pruner.task",
    "find_groups": "profiler.trial",
    "fisher_scores": "pruner.importance.fisher",
    "frontier": "pruner.frontier",
    "load": "pruner.rundir",
    "load_task": "pruner.task",
    "mask": "pruner.surgery",
    "prune": "pruner.prune",
    "save": "pruner.rundir",
    "shrink": "pruner.surgery",
}


class _Package(ModuleType):
    """Keeps `pruner.prune` the function: importing the file of that name would put the module in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == value.__name__:
            value = getattr(value, name, value)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pruner' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
