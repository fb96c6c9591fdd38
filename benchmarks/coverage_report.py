"""`docs/coverage.md` from the stored cells: no figure in it is written by hand, and what was not run stays empty."""

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.coverage_models import FAMILIES, Row
from benchmarks.coverage_records import AWAKE, EXACT, ONNX_CLOSE, TELLING, Ours, Peer, Verdict
from benchmarks.coverage_store import Setting, hash_sources, read_cell
from benchmarks.coverage_summary import Line, percent, summarize
from pruner.atomic import write_text

WIDTH = 150
"""Characters a line of prose, as in the other documents."""

INTRODUCTION = f"""\
Every network that torchvision lists, quantized ones left out: groups are found, about half of every prunable group is
removed at random (another number in each), and what is left is compared with the whole network in which the same
elements are zero. The comparison is awake: random values of ordinary size stand in all parameters and buffers, the mask
must change the output by at least {AWAKE:.0%}, all is in float64, and a deliberately wrong removal must differ by more
than {TELLING:g}. *Exact* is a relative difference of at most {EXACT:g}; *approximate* is what is exact but for groups
that are marked so, with a reason (below), which run and are left out of the comparison. Weights are random, nothing was
trained.

* **seconds**: of `profiler.find_groups`, its proof on a shrunk copy included, after the network was built and a small
  one was run to warm up. For Torch-Pruning: to build its pruner, enumerate all groups and prune half of each (random
  importance), stopped after 120 s; with as many threads, right after ours. No network gets help of its own.
* **prunable**: share of the parameters in a prunable group. **removed**: share that goes with half of every group,
  rounded up as Torch-Pruning rounds. **inner**: the same without the parameters of output layers, for both tools,
  which may not narrow these: convolutions and linear layers from which some way to the output meets no other of them.
* **shrunk − masked** and **ONNX**: largest relative difference, the latter of ONNX Runtime's output from PyTorch's for
  the shrunk network in float32, where at most {ONNX_CLOSE:g} counts as equal.
* **trains**: the shrunk network runs in train mode at batch 2; empty where the whole one does not.
* Pictures are 1x3x224x224 (Inception v3: 299), videos 1x3x16x112x112 (MViT and S3D: 224, Swin3D: 64), optical flow
  takes two of 1x3x128x128. Comparison and export take pictures of 96 pixels and videos of 8x64x64 where the network
  runs on them.
* Detectors run whole on a picture of 320 pixels, before and after, and keep the ten best of fifty candidates whatever
  their score, so that random weights detect something. Comparison and ONNX are of the dense part: backbone and heads,
  region heads on the corner of the first feature map. Where Torch-Pruning fails on the whole program it gets the dense
  part, which is said.
"""


def write_report(rows: Sequence[Row], store: Path, out: Path) -> None:
    """Write the report from what is stored."""
    lines = [Line(row, read_cell(store, row.name, Ours), read_cell(store, row.name, Peer)) for row in rows]
    write_text(out, make_report(lines))


def make_report(lines: Sequence[Line]) -> str:
    """The report as Markdown."""
    parts = ["# Coverage", INTRODUCTION, _measured_with(lines), "## In short", summarize(lines)]
    for family in FAMILIES:
        of_family = [line for line in lines if line.row.family == family]
        if of_family:
            parts += [f"## {family.capitalize()}", _table(of_family)]
    parts += [
        "## Why groups are approximate",
        _reasons(lines, lambda cell: cell.approximate_reasons),
        "## Why groups are frozen",
        _reasons(lines, lambda cell: cell.frozen_reasons),
        "## What failed",
        _failures(lines),
    ]
    return "\n\n".join(_wrapped(part.strip()) for part in parts) + "\n"


def _wrapped(text: str) -> str:
    """Prose and bullets in lines of `WIDTH`; tables and headings as they are."""
    found = ""
    for block in re.split(r"\n\n|\n(?=\* )", text):
        if not block.startswith(("|", "#")):
            wrapper = textwrap.TextWrapper(WIDTH, break_on_hyphens=False, break_long_words=False)
            wrapper.subsequent_indent = "  " if block.startswith("* ") else ""
            block = wrapper.fill(" ".join(block.split()))
        follows = block.startswith("* ") and found.rpartition("\n\n")[2].startswith("* ")
        found += ("\n" if follows else "\n\n" if found else "") + block
    return found


def _measured_with(lines: Sequence[Line]) -> str:
    """The command, the machine, the day and the versions, as stored with the cells."""
    ours = [line.ours.setting for line in lines if line.ours]
    peer = [line.peer.setting for line in lines if line.peer]
    settings = [*ours, *peer]
    if not settings:
        return "Nothing was run yet: `make coverage`."
    days = sorted({setting.date for setting in settings})
    day = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    machines = _listed(_machine(setting) for setting in settings)
    versions = _listed(f"{name} {version}" for s in settings for name, version in s.versions.items())
    text = f"`make coverage`, {day}, on {machines}; {versions}."
    for side, stored, folders in (("ours", ours, "lut/ or profiler/"), ("peer", peer, "benchmarks/")):
        old = sum(setting.sources != hash_sources(side) for setting in stored)
        if old:
            text += f" {old} of {len(stored)} cells on {_who(side)} side were measured with other sources of {folders}"
            text += " than those that this report was written with."
    if len({_without_date(s) for s in ours}) > 1 or len({_without_date(s) for s in peer}) > 1:
        text += " The cells of one side were not all measured with the same sources, versions, machine and threads."
    return text


def _machine(setting: Setting) -> str:
    side_by_side = f", {setting.jobs} networks at a time" if setting.jobs > 1 else ""
    return f"{setting.processor}, {setting.threads} thread{'s' if setting.threads > 1 else ''}{side_by_side}"


def _who(side: str) -> str:
    return "our" if side == "ours" else "Torch-Pruning's"


def _without_date(setting: Setting) -> tuple[str, str, str]:
    return _machine(setting), str(setting.versions), setting.sources


def _listed(items: Iterable[str]) -> str:
    return ", ".join(sorted(set(items)))


HEADER = (
    "| network | parameters | groups | frozen | prunable | removed | outcome | shrunk − masked | ONNX | trains "
    "| seconds | Torch-Pruning: seconds | outcome | inner: ours | inner: theirs |\n"
    "|---|--:|--:|--:|--:|--:|---|--:|--:|---|--:|--:|---|--:|--:|"
)


def _table(lines: Sequence[Line]) -> str:
    return "\n".join([HEADER, *(f"| {' | '.join(_cells(line))} |".replace("  ", " ") for line in lines)])


def _cells(line: Line) -> list[str]:
    ours, peer = line.ours.cell if line.ours else Ours(), line.peer.cell if line.peer else Peer()
    note = " (dense part)" if peer.part == "dense part" and not peer.failure else ""
    return [
        line.row.name,
        f"{ours.parameters / 1e6:.1f} M" if ours.parameters is not None else "",
        _whole(ours.groups),
        _whole(ours.frozen),
        percent(ours.prunable_share),
        percent(ours.removed_share),
        _word(line.our_verdict) + (f" ({ours.form})" if ours.form not in {None, "module"} else ""),
        _small(ours.difference),
        _small(ours.onnx_difference) or ("fails" if "export" in ours.failures else ""),
        "yes" if ours.trains else "no" if "train" in ours.failures else "",
        _seconds(ours.find_s),
        _seconds(peer.seconds),
        _word(line.peer_verdict) + note,
        percent(ours.inner_share),
        percent(None if peer.failure else peer.inner_share),
    ]


def _word(verdict: Verdict | None) -> str:
    """The verdict in few words: of an error its class only."""
    if verdict is None:
        return ""
    detail = verdict.detail
    if verdict.word in {"fails", "not compared", "timeout"}:
        found = re.search(r"\b[A-Z]\w*(Error|Exception|Exceeded)\b", detail)
        detail = found.group() if found and verdict.word != "timeout" else ""
    return f"{verdict.word}: {detail}" if detail else verdict.word


def _whole(number: int | None) -> str:
    return "" if number is None else str(number)


def _small(number: float | None) -> str:
    return "" if number is None else "0" if number == 0 else f"{number:.0e}"


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f}"


def _reasons(lines: Sequence[Line], of: Callable[[Ours], dict[str, int]]) -> str:
    """How many groups, in how many networks, have each reason; reasons that differ in numbers only are one."""
    groups: Counter[str] = Counter()
    networks: Counter[str] = Counter()
    for line in lines:
        found: Counter[str] = Counter()
        for reason, count in of(line.ours.cell).items() if line.ours else ():
            found[re.sub(r"\d+(\.\d+)?(e[-+]?\d+)?", "#", reason).replace("|", "\\|")] += count
        groups.update(found)
        networks.update(found.keys())
    if not groups:
        return "None is."
    rows = [f"| {reason} | {count} | {networks[reason]} |" for reason, count in groups.most_common()]
    return "\n".join(["| reason | groups | networks |\n|---|--:|--:|", *rows])


def _failures(lines: Sequence[Line]) -> str:
    """Every failure of ours, and Torch-Pruning's by kind."""
    ours = []
    for line in lines:
        verdict = line.our_verdict
        if line.ours and verdict:
            said = {str(verdict)} if not verdict.good else set()
            more = {f"{stage}: {reason}" for stage, reason in line.ours.cell.failures.items()} - {verdict.detail}
            ours += [f"* {line.row.name}: {text}" for text in [*sorted(said), *sorted(more)]]
    theirs: dict[str, list[str]] = {}
    for line in lines:
        verdict = line.peer_verdict
        if line.peer and verdict and not verdict.good:
            kind = str(verdict) if verdict.word == "fails" else _word(verdict)
            theirs.setdefault(kind.replace("|", "\\|"), []).append(line.row.name)
        if line.peer and line.peer.cell.whole_failure:
            kind = f"on the whole program: {line.peer.cell.whole_failure}"
            theirs.setdefault(kind, []).append(line.row.name)
    parts = ["Of ours:", "\n".join(ours) or "* none", "Of Torch-Pruning's:"]
    parts.append("\n".join(f"* {kind}: {', '.join(names)}" for kind, names in sorted(theirs.items())) or "* none")
    return "\n\n".join(parts)
