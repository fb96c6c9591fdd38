"""Work that makes very many small objects and keeps them all: looking for garbage among them would only take time."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Python looks for no garbage meanwhile, which takes a sixth of an export's time."""
    enabled = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if enabled:
            gc.enable()
