"""What `make engines` found, as `docs/engines.md`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

MARK = "<!-- figures of `make engines` -->"
"""What stands behind this line in the report is written anew."""
SHOWN = 160
"""Characters of a refusal."""


def write_report(path: Path, stored: Mapping[str, Mapping[str, Any]], capabilities: Sequence[str]) -> None:
    """Write the figures behind the report's mark; what stands before it is kept.

    Args:
        path: of the report.
        stored: of each network what was kept of it: "prune", and a list of cells for each precision.
        capabilities: in the order of the columns.
    """
    text = path.read_text() if path.is_file() else f"# Engines\n\n{MARK}\n"
    lines = [*_origin(stored), "", *_overview(stored, capabilities)]
    for name, found in stored.items():
        lines += ["", f"## {name}", "", *_network(found)]
    path.write_text(text[: text.index(MARK) + len(MARK)] + "\n\n" + "\n".join(lines) + "\n")


def _origin(stored: Mapping[str, Mapping[str, Any]]) -> list[str]:
    settings = [each["setting"] for found in stored.values() for step, each in found.items() if step != "prune"]
    dates = sorted({setting["date"] for setting in settings})
    versions = sorted({f"{name} {version}" for setting in settings for name, version in setting["versions"].items()})
    sources = sorted({setting["sources"] for setting in settings})
    return [
        f"`make engines`, {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}; {', '.join(versions)}; sources "
        f"{', '.join(sources)}. The machine does not matter, but for the seconds."
    ]


def _overview(stored: Mapping[str, Mapping[str, Any]], capabilities: Sequence[str]) -> list[str]:
    cells = [cell for found in stored.values() for cell in _cells(found)]
    built = sum(cell["failure"] is None for _, cell in cells)
    lines = [
        f"{built} of {len(cells)} engines built. In the table: size of the engine in MB, or – for a refusal.",
        "",
        f"| network | precision | {' | '.join(capabilities)} |",
        f"|---|---|{'---|' * len(capabilities)}",
    ]
    for name, found in stored.items():
        for precision in _precisions(found):
            by_target = {cell["capability"]: cell for cell in found[precision]["cells"]}
            sizes = [_mb(by_target[one]["engine_bytes"]) if one in by_target else "" for one in capabilities]
            lines.append(f"| {name} | {precision} | {' | '.join(sizes)} |")
    return lines


def _network(found: Mapping[str, Any]) -> list[str]:
    pruned = found["prune"]
    form = "modules alone" if pruned["form"] == "module" else "with programs"
    lines = [
        f"{pruned['before'] / 1e6:.2f} million parameters, {pruned['after'] / 1e6:.2f} after pruning ({form}).",
        "",
        "| precision | for | engine (MB) | weights (MB) | activation (MB) | kernels | outputs differ by | beside "
        "| built in (s) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    refusals = []
    for precision, cell in _cells(found):
        if cell["failure"] is not None:
            refusals.append(f"* {precision} for {cell['capability']}: {_short(cell['failure'])}")
            continue
        beside = [f"{cell['remainder']} where not quantised"] if cell["remainder"] else []
        beside += [f"{cell['rewritten']} linear as convolution"] if cell["rewritten"] else []
        beside += [f"{cell['kept']} nodes in fp32"] if cell["kept"] else []
        figures = [_mb(cell[key]) for key in ("engine_bytes", "weights_bytes", "activation_bytes")]
        difference = "0" if cell["difference"] is None else f"{cell['difference']:.1e}"
        row = [precision, cell["capability"], *figures, cell["kernels"], difference, ", ".join(beside), cell["seconds"]]
        lines.append(f"| {' | '.join(map(str, row))} |")
    return lines + ([""] if refusals else []) + refusals


def _precisions(found: Mapping[str, Any]) -> list[str]:
    return [step for step in found if step != "prune"]


def _cells(found: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    return [(precision, cell) for precision in _precisions(found) for cell in found[precision]["cells"]]


def _mb(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:.2f}"


def _short(text: str) -> str:
    """A refusal's beginning; the compiler's own words go on for lines."""
    plain = " ".join(text.split())
    return plain if len(plain) <= SHOWN * 2 else f"{plain[:SHOWN]} … {plain[-SHOWN:]}"
