"""What a network is and what it costs: the trace, the channel groups, the units, the runtimes, and measuring them.

The names below are imported when they are first used: `import profiler` needs no torch and no runtime.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiler.backends import get_backend
    from profiler.network import Network, analyze
    from profiler.profile import profile
    from profiler.trial import find_groups
    from profiler.worker_client import WorkerClient

__all__ = ["Network", "WorkerClient", "analyze", "find_groups", "get_backend", "profile"]

_HOMES = {
    "Network": "profiler.network",
    "WorkerClient": "profiler.worker_client",
    "analyze": "profiler.network",
    "find_groups": "profiler.trial",
    "get_backend": "profiler.backends",
    "profile": "profiler.profile",
}


class _Package(ModuleType):
    """Keeps `profiler.profile` the function: importing the file of that name would put the module in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == value.__name__:
            value = getattr(value, name, value)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'profiler' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
