"""The figures of `docs/fusion.md`, from the rows that `make fusion` keeps; what stands before the mark is kept."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from pruner.atomic import write_text

MARK = "<!-- figures of `make fusion` -->"
ALIKE = ("alone", "several")
BEARING = (*ALIKE, "shared", "spread")
COMMONEST = 25


def write_report(report: Path, store: Path, names: tuple[str, ...], precisions: tuple[str, ...]) -> None:
    """Write the figures of all networks that are stored."""
    stored = {
        (name, precision): json.loads(path.read_text())
        for precision in precisions
        for name in names
        if (path := store / f"{_slug(name)}.{precision}.json").is_file()
    }
    padding = store / "padding.all.json"
    probed = json.loads(padding.read_text()) if padding.is_file() else None
    contents = [*stored.values(), *([probed] if probed else [])]
    dates = sorted({content["date"] for content in contents})
    versions = sorted({f"{name} {version}" for content in contents for name, version in content["versions"].items()})
    lines = [
        f"`make fusion`, {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}; {', '.join(versions)}. No GPU was there."
    ]
    for precision in precisions:
        rows = {name: stored[name, precision]["rows"] for name in names if (name, precision) in stored}
        if rows:
            lines += ["", f"## In {precision}", "", *_nodes(rows), "", *_units(rows)]
    lines += ["", "## What the compiler fuses further than the cut", "", *_patterns(stored)]
    lines += ["", "## Units that are spread over several kernels, some with others", "", *_spread(stored)]
    if probed is not None:
        lines += ["", "## Padding, width by width", "", *_padding(probed["rows"])]
    text = report.read_text() if report.is_file() else f"# Fusion\n\n{MARK}\n"
    write_text(report, text[: text.index(MARK) + len(MARK)] + "\n\n" + "\n".join(lines) + "\n")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _nodes(networks: dict[str, list[dict[str, Any]]]) -> list[str]:
    built = [row for rows in networks.values() for row in rows if row["failure"] is None]
    lacking = sum(len(row["unaccounted"]) for row in built)
    lines = [
        f"{sum(row['covered'] for row in built)} of {sum(row['nodes'] for row in built)} nodes are in kernels, "
        f"{sum(sum(row['folded'].values()) for row in built)} fall under a rule, **{lacking} are unaccounted for**.",
        "",
        "| network | widths | nodes | in kernels | folded | unaccounted | kernels | padding | pads too | border | "
        "reformat | on other streams |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in networks.items():
        for row in rows:
            if row["failure"] is not None:
                lines.append(f"| {name} | {row['widths']} | not built: {row['failure'].splitlines()[0]} |" + " |" * 9)
                continue
            folded = ", ".join(f"{count} {rule}" for rule, count in row["folded"].items()) or "–"
            roles = Counter(row["roles"])
            extra = sum(count for stream, count in row["streams"].items() if stream != "0")
            cells = [name, row["widths"], row["nodes"], row["covered"], folded]
            cells += [", ".join(row["unaccounted"]) or 0, sum(roles.values()), roles["padding"]]
            cells += [row["pads"] - roles["padding"], roles["border"], roles["reformat"], extra]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _units(networks: dict[str, list[dict[str, Any]]]) -> list[str]:
    built = [row for rows in networks.values() for row in rows if row["failure"] is None]
    total = sum((Counter(row["agreements"]) for row in built), Counter[str]())
    bearing = sum(total[word] for word in BEARING)
    agreeing = sum(total[word] for word in ALIKE)
    lines = [
        f"The cut agrees for {agreeing} of {bearing} units that bear time ({_share(agreeing, bearing)}).",
        "",
        "| network | widths | units | no kernel | one kernel | several of its own | shares one | spread | agree |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in networks.items():
        for row in rows:
            if row["failure"] is not None:
                continue
            found = Counter(row["agreements"])
            with_kernel = sum(found[word] for word in BEARING)
            cells = [name, row["widths"], sum(found.values()), found["gone"], *(found[word] for word in BEARING)]
            cells.append(_share(sum(found[word] for word in ALIKE), with_kernel))
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _counted(stored: dict[tuple[str, str], Any], key: str) -> tuple[Counter[str], dict[str, dict[str, None]]]:
    counts: Counter[str] = Counter()
    where: dict[str, dict[str, None]] = {}
    for (name, _), content in stored.items():
        for row in content["rows"]:
            for pattern, count in (row[key] or {}).items():
                counts[pattern] += count
                where.setdefault(pattern, {})[name] = None
    return counts, where


def _patterns(stored: dict[tuple[str, str], Any]) -> list[str]:
    counts, where = _counted(stored, "patterns")
    lines = ["| units in one kernel, by their operations | kernels | in |", "|---|---|---|"]
    lines += [
        f"| {pattern} | {count} | {', '.join(where[pattern])} |" for pattern, count in counts.most_common(COMMONEST)
    ]
    rest = counts.total() - sum(count for _, count in counts.most_common(COMMONEST))
    return [*lines, "", f"{rest} more kernels in {max(len(counts) - COMMONEST, 0)} other patterns."]


def _spread(stored: dict[tuple[str, str], Any]) -> list[str]:
    counts, where = _counted(stored, "spread")
    lines = ["| operation | units | in |", "|---|---|---|"]
    return lines + [f"| {name} | {count} | {', '.join(where[name])} |" for name, count in counts.most_common()]


def _padding(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "Two layers and a ReLU, 64 → width → 64 channels, at each width from 56 to 72; kernels that pad for the layer",
        "that writes the width, and for the one that reads it.",
        "",
        "| precision | operation | no padding at | first layer pads at | second layer pads at |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if "failure" in row:
            lines.append(
                f"| {row['precision']} | {row['operation']} | not built: {row['failure'].splitlines()[0]} | | |"
            )
            continue
        at = {int(width): pair for width, pair in row["at"].items()}
        free, first, second = ({w for w, p in at.items() if test(p)} for test in (_none, _first, _second))
        cells = [row["precision"], row["operation"], *(_told(some, set(at)) for some in (free, first, second))]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _none(pair: list[int]) -> bool:
    return not any(pair)


def _first(pair: list[int]) -> bool:
    return pair[0] > 0


def _second(pair: list[int]) -> bool:
    return pair[1] > 0


def _told(some: set[int], every: set[int]) -> str:
    """A set of widths in words, where it is a set of multiples."""
    if not some or some == every:
        return "all" if some else "none"
    for step in (2, 4, 8, 16, 32):
        multiples = {width for width in every if width % step == 0}
        if some == multiples:
            return f"multiples of {step}"
        if some == every - multiples:
            return f"all but multiples of {step}"
    return ", ".join(map(str, sorted(some)))
