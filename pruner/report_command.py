"""The command line that asks for what a finished run was asked for."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from pruner.request import PruneConfig
from pruner.solvers import get_solver

FOR_MEMORY = ("memory_capability", "memory_precision")


def command(request: Mapping[str, Any]) -> str:
    """The command line that asks for the same, TASK in the place of the task, and the run's directory left open.

    Args:
        request: as a run's `state.json` keeps it.
    """
    config, budget = request["config"], request.get("budget") or {}
    words = ["latprune", "prune", "TASK", "--table", str(request.get("table")), *_bounds(budget)]
    for field in fields(PruneConfig):
        value = config.get(field.name)
        usual = None if field.default is MISSING else field.default
        if field.name == "normalize":
            usual = "latency" if _on_latency(budget) else "memory"
            if not get_solver(config.get("solver", "milp")).ranks_by_ratio:
                value = usual  # the other solvers refuse the option
        if field.name in ("backend", "threads"):
            usual = None  # a table may hold several
        if field.name in FOR_MEMORY:
            continue  # said with --memory-of
        if field.name == "memory_of" and value is not None:
            value = ":".join([value, *_compiled_for(config)])
        if value is not None and _plain(value) != _plain(usual):
            words += _option(field.name, value)
    return shlex.join([*words, "--out", "RUN/"])


def _compiled_for(config: Mapping[str, Any]) -> list[str]:
    """What the memory's runtime compiles for, as it stands behind its name, left out where it is as usual."""
    usual = {field.name: field.default for field in fields(PruneConfig)}
    given = [str(config.get(name, usual[name])) for name in FOR_MEMORY]
    return given if given != [usual[name] for name in FOR_MEMORY] else []


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _option(name: str, value: Any) -> list[str]:
    flag = "--" + ("allow-difference" if name == "allow_differences" else name.replace("_", "-"))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [word for each in value for word in (flag, str(each))]
    return [flag, str(value)]


def _on_latency(budget: Mapping[str, Any]) -> bool:
    return budget.get("ms") is not None or budget.get("fraction") is not None


def _bounds(budget: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for key, flag, form in (
        ("ms", "--budget", "{:.12g}ms"),
        ("memory_bytes", "--memory", "{:.0f}B"),
    ):
        if budget.get(key) is not None:
            words += [flag, form.format(budget[key])]
    for key, flag in (("fraction", "--budget"), ("memory_fraction", "--memory")):
        if budget.get(key) is not None:
            words += [flag, f"{100 * budget[key]:.12g}%"]
    return words
