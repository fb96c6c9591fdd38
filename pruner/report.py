"""A finished run as one HTML file that can be mailed: before and after, checks, widths, device, and the command."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lut.errors import RunError
from pruner.atomic import write_text
from pruner.plan import PrunePlan
from pruner.report_command import command
from pruner.report_page import PAGE
from pruner.runstate import STATE, register_file
from pruner.show import (
    NOTHING,
    bound_note,
    format_count,
    format_kept,
    format_mb,
    format_ms,
    format_percent,
    format_share,
)

RESULT, PLAN = "result.json", "plan.json"
REPORT = "report.html"
FIGURES = (
    "predicted_ms measured_ms noise parameters macs weights_bytes peak_activation_bytes workspace_bytes total_bytes "
    "traffic_bytes"
).split()
"""What each side of a result holds; each may be null, and is then shown as not known."""


@dataclass(frozen=True)
class RunFiles:
    """What a finished run's directory says.

    Attributes:
        folder: of the run.
        result: of `result.json`.
        plan: of `plan.json`.
        request: what the run was asked to do, or None where `state.json` is gone.
    """

    folder: Path
    result: Mapping[str, Any]
    plan: PrunePlan
    request: Mapping[str, Any] | None


def write_report(run: Path | str, out: Path | str | None = None) -> Path:
    """Write a run's report.

    Args:
        run: its directory.
        out: the file; without it `report.html` in the directory.

    Returns:
        The file.

    Raises:
        RunError: there is no finished run, its files are damaged, or the report cannot be written.
    """
    folder = Path(run)
    path = folder / REPORT if out is None else Path(out)
    page = render(read_run(folder))
    try:
        write_text(path, page)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}. Give --out another file.") from error
    if path.resolve().parent == folder.resolve():
        register_file(folder, path.name)
    return path


def read_run(folder: Path) -> RunFiles:
    """Read what a report shows.

    Raises:
        RunError: there is no finished run, or its files are damaged or do not belong together.
    """
    if not folder.is_dir():
        raise RunError(f"There is no directory {folder}. Name a run's directory, which latprune prune --out wrote.")
    state = _read_json(folder / STATE)
    if state is not None and not state.get("finished"):
        raise RunError(f"{folder} holds an unfinished run. The same latprune prune command finishes it.")
    result = _read_json(folder / RESULT)
    if result is None:
        raise RunError(f"{folder} has no {RESULT} and is no finished run. latprune prune --out writes one.")
    _check(result, folder / RESULT)
    plan = PrunePlan.read(folder / PLAN)
    told = result["plan"]
    if told.get("network_hash") != plan.network_hash or told.get("widths") != plan.widths:
        raise RunError(f"{folder}: {RESULT} and {PLAN} are of different runs. Take both from one run.")
    request = None if state is None else state.get("request")
    if request is not None and not (isinstance(request, dict) and isinstance(request.get("config"), dict)):
        raise RunError(f"{folder / STATE} is damaged: its request cannot be read.")
    return RunFiles(folder, result, plan, request)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}.") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged: it holds no JSON object.")
    return found


def _check(result: Mapping[str, Any], path: Path) -> None:
    """Make sure that the result has what a report shows, and figures where figures belong."""
    kinds: dict[str, type] = {"before": dict, "after": dict, "plan": dict, "checks": list, "fingerprint": dict}
    for name, kind in kinds.items():
        if not isinstance(result.get(name), kind):
            raise RunError(f"{path} is damaged: its {name!r} is missing or no {kind.__name__}.")
    for side in ("before", "after"):
        metrics = result[side].get("metrics") or {}
        every = {name: result[side].get(name) for name in FIGURES} | (metrics if isinstance(metrics, dict) else {})
        wrong = [name for name, value in every.items() if not isinstance(value, int | float | None)]
        if wrong:
            raise RunError(f"{path} is damaged: {side} {wrong[0]!r} is {every[wrong[0]]!r}, not a number.")
    for check in result["checks"]:
        if not isinstance(check, dict) or not {"name", "passed", "detail"} <= set(check):
            raise RunError(f"{path} is damaged: one of its checks cannot be read.")


def render(run: RunFiles) -> str:
    """The report as HTML; the same run gives the same text."""
    from jinja2 import Environment, StrictUndefined

    result, plan, request = run.result, run.plan, run.request
    task = str(request["task"]) if request is not None else run.folder.resolve().name
    made = [("importance", plan.importance), ("solver", plan.solver), ("seed", plan.seed)]
    made += [(name.replace("_", " "), value) for name, value in _flat(result["fingerprint"]) if value is not None]
    made += list((result.get("versions") or {}).items())
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(PAGE).render(
        title=f"{task}, pruned",
        task=task,
        missed=[check["name"] for check in result["checks"] if not check["passed"]],
        budgets=_budgets(result),
        figures=_figures(result),
        memory_of=result["after"].get("memory_of"),
        checks=result["checks"],
        rounds=_rounds(result),
        how=f"Channels were scored by {plan.importance} importance and chosen by {plan.solver}",
        groups=[_group(name, size, plan.widths.get(name, size)) for name, size in plan.sizes.items()],
        channels=format_count(sum(plan.sizes.values())),
        channels_kept=format_count(sum(plan.widths.values())),
        beside=_beside(plan),
        made=made,
        command=None if request is None else command(request),
    )


def _flat(fingerprint: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """A fingerprint's fields, its settings among them."""
    plain = [(name, value) for name, value in fingerprint.items() if name != "settings"]
    return plain + [(str(name), value) for name, value in fingerprint.get("settings") or ()]


def _budgets(result: Mapping[str, Any]) -> list[str]:
    latency, memory = result.get("budget_ms"), result.get("memory_budget_bytes")
    found = [] if latency is None else [f"budget {format_ms(latency)}"]
    return found if memory is None else [*found, f"memory budget {format_mb(memory)}"]


def _figures(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of before and after."""
    before, after = result["before"], result["after"]
    metrics = {**(before.get("metrics") or {}), **(after.get("metrics") or {})}

    def row(name: str, key: str, form: Any, *, part: bool = False) -> dict[str, Any]:
        return _row(name, before.get(key), after.get(key), form, part=part)

    found = [
        _row(
            name,
            (before.get("metrics") or {}).get(name),
            (after.get("metrics") or {}).get(name),
            lambda value: NOTHING if value is None else f"{value:.4g}",
        )
        for name in metrics
    ]
    measured = row("measured", "measured_ms", format_ms)
    for side, values in (("before", before), ("after", after)):
        measured[side] = format_ms(values.get("measured_ms"), values.get("noise"))
    return [
        *found,
        measured,
        row("predicted", "predicted_ms", format_ms),
        row("parameters", "parameters", format_count),
        row("MACs", "macs", format_count),
        row(f"total memory{bound_note(after)}", "total_bytes", format_mb),
        row("weights", "weights_bytes", format_mb, part=True),
        row("peak activations", "peak_activation_bytes", format_mb, part=True),
        row("workspace", "workspace_bytes", format_mb, part=True),
        *([row("inputs and outputs, apart", "io_bytes", format_mb)] if after.get("io_bytes") is not None else []),
        row("traffic", "traffic_bytes", format_mb),
    ]


def _row(name: str, before: float | None, after: float | None, form: Any, *, part: bool = False) -> dict[str, Any]:
    ratio = NOTHING if before is None or after is None or not before else f"{after / before:.3f}"
    return {"name": name, "before": form(before), "after": form(after), "ratio": ratio, "part": part}


def _rounds(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the solver said, round by round, where the run's files tell it."""
    solver = result.get("solver")
    rounds = solver.get("rounds", ()) if isinstance(solver, dict) else ()
    return [
        {
            "kept": format_kept(each.get("importance_kept")),
            "gap": format_percent(each.get("gap")),
            "measured": ", ".join(format_share(ratio) for ratio in each.get("measured_of_unpruned") or ()) or NOTHING,
        }
        for each in rounds
    ]


def _group(name: str, size: int, width: int) -> dict[str, Any]:
    share = width / size if size else 1.0
    return {
        "name": name,
        "size": size,
        "width": width,
        "share": format_share(share),
        "share_css": f"{100 * share:.2f}%",
    }


def _beside(plan: PrunePlan) -> list[str]:
    """What the plan holds beside widths."""
    found = [f"Blocks that went: {', '.join(plan.removed_blocks)}."] if plan.removed_blocks else []
    found += [f"Kept whole as asked: {', '.join(plan.frozen)}."] if plan.frozen else []
    if plan.programs:
        modules = ", ".join(str(program.get("module")) or "the whole network" for program in plan.programs)
        found.append(f"Run as programs, because their code holds sizes: {modules}.")
    return found
