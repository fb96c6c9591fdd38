"""How long work says where it stands: events to a callback, which the command line turns into progress on stderr."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One sign of progress.

    Attributes:
        stage: what is being done, in a few words; the same words until that stage ends.
        done: how much of it is finished.
        total: of how much, or None where nobody knows.
        note: what is worth saying beside it ("predicted 3.1 ms ± 9 %").
    """

    stage: str
    done: int
    total: int | None = None
    note: str = ""


Progress = Callable[[Event], None]


def silent(_event: Event) -> None:
    """Say nothing."""
