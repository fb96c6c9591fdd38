"""Results on stdout: Rich tables for people, one JSON object for programs."""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

WIDE = 200
"""Columns where stdout is no terminal: lines are not cut to a width that nobody sees."""


def results() -> Console:
    """A console for stdout; what users wrote (names with brackets) is never taken for markup."""
    width = None if sys.stdout.isatty() else WIDE
    return Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False)


def complain(message: str) -> None:
    """Say on stderr what the user must not overlook."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201 - the command line's own output


def print_json(value: Mapping[str, Any]) -> None:
    """Write one JSON object on one line."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Turn records, paths and numpy's numbers into what JSON knows; a number that is none becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and not isinstance(value, float | int):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def make_table(title: str, *columns: str, right: tuple[int, ...] = ()) -> Table:
    """An empty table.

    Args:
        title: stands above it.
        columns: their headings.
        right: indices of the columns that are set flush right (numbers).
    """
    table = Table(title=title or None, title_justify="left", title_style="bold", header_style="")
    for number, heading in enumerate(columns):
        table.add_column(heading, justify="right" if number in right else "left", overflow="fold")
    return table
