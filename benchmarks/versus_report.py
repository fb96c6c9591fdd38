"""`docs/versus.md` from the stored cells: no figure in it is written by hand, and what was not run stays empty."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fidelity_report import wrapped
from benchmarks.versus_data import SHIFT
from benchmarks.versus_figures import Results, Verdict, read_results, speedup
from benchmarks.versus_methods import METHODS, OURS, PEERS, SCRATCH
from benchmarks.versus_networks import (
    DIGITS,
    FASHION,
    LITE,
    NETWORKS,
    PHOTOGRAPHS,
    QUICK,
    TRIAL,
    USUAL,
    Effort,
    comes_trained,
)
from benchmarks.versus_photos import ALBUMS
from benchmarks.versus_plot import draw_curves
from benchmarks.versus_store import hash_sources
from benchmarks.versus_tables import accuracies, budgets_met, counted, exchanged, losses, speedups, unpruned
from pruner.atomic import write_text
from pruner.loop import WITHIN
from pruner.training import LEARNING_RATE

RUNTIMES = ("onnxruntime", "openvino")

AIMS = {"seed": 1.5, "seed_step": 1.25}
"""The speed-up at equal accuracy that is aimed at, by peer."""
BEST_AIM = 1.1
"""The same over the best peer."""

INTRODUCTION = f"""\
Each method prunes a network to 75, 50 and 30 % of its measured latency, one picture at a time, one thread. What is left
gets its norms measured anew and is fine-tuned with `pruner.training.finetune` (AdamW) on the same pictures for all
methods, and is exported. Its latency is that of the exported file in a fresh process, by turns with the unpruned
network's, as a ratio to it. It is judged by pictures by which nothing is chosen.

Channels are scored once, by the first of the training pictures, and all methods but Torch-Pruning's
have these scores. Methods that count something else than latency get what they want most: how strongly they prune is
found by bisection on the measured latency, until it is between {WITHIN[0]:.1%} and {WITHIN[1]:.1%} of the
budget, which is what our loop aims at too. Group Fisher Pruning as published takes scores afresh while training goes on
between removals; here its rule is compared, at fixed scores. *On steps* means that each width is rounded up to the step
that the measured table shows for the group, at most a quarter of the group, as for our own widths.
"""


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"


def _effort(effort: Effort) -> str:
    return (
        f"fine-tuning is {_epochs(effort.tune_epochs)} in batches of {effort.batch} with a highest learning rate of "
        f"{effort.tune_peak or LEARNING_RATE:g}, and the first "
        f"{effort.score_images:,} score channels"
    )


DATA = {
    FASHION: f"""\
trained here on the first {USUAL.images:,} pictures of Fashion-MNIST (moved by up to {SHIFT} pixels, mirrored), once a
seed; {_effort(USUAL)}. *Accuracy* is that on the {USUAL.test_images:,} test pictures.""",
    PHOTOGRAPHS: f"""\
comes with its ImageNet weights, and *accuracy* is how often the class that it finds first is the one that the unpruned
network finds first, on {LITE.test_images:,} squares of {sum(len(album.held_out) for album in ALBUMS)} photographs that
are in no training. Nobody labels anything: on {LITE.images:,} squares of
{sum(len(album.training) for album in ALBUMS)} other photographs (other squares for each seed; random places and sizes,
every second one mirrored) the unpruned network's logits are learnt, by the distance of `prune --distill`;
{_effort(LITE)}, towards classes drawn from the unpruned network's own probabilities. The photographs are those of
{", ".join(album.package for album in ALBUMS)}. Weights and judging squares are the same for all seeds.""",
    DIGITS: f"""\
trained here on the first {TRIAL.images:,} of scikit-learn's digits; {_effort(TRIAL)}. *Accuracy* is that on
{TRIAL.test_images:,} others.""",
}
"""What networks are trained on and judged by, by their data."""

SPEEDUP_INTRODUCTION = """\
How many times longer a peer's network takes to be as accurate as ours: the methods' curves of each seed (with the
unpruned network, trained on as much, at 100 %) are read at the accuracies of all measured networks of both; the best
accuracy so far counts, linear between points. *Outside* are accuracies that one of the two curves does not reach:
nothing is extrapolated. Median (range).
"""

VERDICT_INTRODUCTION = """\
At the accuracy of each of our networks (of the peer's fastest one, where even that is more accurate), both methods'
curves read where they first reach it: a win where the peer takes longer with every seed, or never gets there; a loss
where ours does; even where seeds disagree. The standard error of one accuracy is about 0.3 points on 10,000 pictures,
and more than 1.5 on squares of few photographs. Of a loss it is told how much Fisher importance ours and the peer gave
up: where ours gave up less, the scores misjudged these channels; where both gave up next to nothing, the network is so
wide for the task that accuracies differ by chance.
"""

EXCHANGE_INTRODUCTION = """\
Our networks on the runtime for which they were planned (**bold**) and on the other, over the unpruned network's latency
on the same.
"""


def write_report(names: Sequence[str], store: Path, out: Path) -> int:
    """Write the report, and the plot beside it.

    Returns:
        How many records are failures.
    """
    results = read_results(names, store, RUNTIMES)
    plot = draw_curves(results, out.with_suffix(".svg"))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, make_report(results, names, plot.name if plot else None))
    return len(results.failures)


def make_report(results: Results, names: Sequence[str], plot: str | None = None) -> str:
    """The report as Markdown."""
    found, lost = losses(results)
    parts = [
        "# Versus",
        wrapped(INTRODUCTION),
        _bullets(_data(names)),
        wrapped(_made_with(results)),
        "## In short",
        wrapped(_in_short(results, found)),
    ]
    if plot:
        parts += [f"![accuracy against measured latency]({plot})", wrapped(PLOT_CAPTION)]
    parts += ["## The unpruned networks", unpruned(results, names, RUNTIMES)]
    parts += [
        "## Accuracy at equal measured latency",
        wrapped("Mean over seeds ± half of the range; *latency* is measured afresh."),
    ]
    for pair in results.pairs():
        parts += [f"### {NETWORKS[pair[0]].title} on {pair[1]}", accuracies(results, pair)]
    parts += ["## Speed-up at equal accuracy", wrapped(SPEEDUP_INTRODUCTION), speedups(results, results.pairs())]
    parts += ["## Wins and losses", wrapped(VERDICT_INTRODUCTION), counted(found)]
    parts += ["### Losses", _bullets(lost)]
    parts += ["## Budgets", budgets_met(results)]
    parts += [
        "## Planned for one runtime, run on the other",
        wrapped(EXCHANGE_INTRODUCTION),
        exchanged(results, RUNTIMES),
    ]
    parts += [
        "## The methods",
        _bullets([f"**{method.title}** (`{name}`): {method.what}" for name, method in METHODS.items()]),
    ]
    parts += ["## What was not run", _bullets(_not_run(results, names)), "## What failed", _bullets(results.failures)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


PLOT_CAPTION = """\
Lines join means over seeds, small marks are single networks, the dashed line is the unpruned network's accuracy after
as much training.
"""


def _bullets(lines: Sequence[str]) -> str:
    return wrapped("\n".join(f"* {line}" for line in lines)) if lines else "None."


def _data(names: Sequence[str]) -> list[str]:
    """What each network is trained on and judged by."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(NETWORKS[name].data, []).append(f"**{NETWORKS[name].title}**")
    return [f"{', '.join(titles)}: {' '.join(DATA[data].split())}" for data, titles in kinds.items()]


def _made_with(results: Results) -> str:
    """The command, the machine, the day and the versions, as stored with the cells."""
    if not results.settings:
        return "Nothing was run yet: `make versus`."
    days = sorted({setting.date for setting in results.settings})
    day = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    versions = sorted(
        {f"{name} {version}" for setting in results.settings for name, version in setting.versions.items()}
    )
    machines = sorted({setting.processor for setting in results.settings})
    text = f"`make versus`, {day}, on {', '.join(machines)}; {', '.join(versions)}."
    solvers = sorted({p.plan.solver for p in results.points.values() if p.key.method == OURS and p.plan.solver})
    if solvers:
        text += f" Our solver: {', '.join(solvers)}."
    old = sum(setting.sources != hash_sources() for setting in results.settings)
    if old:
        text += f" {old} of {len(results.settings)} records were made with other sources than those of this report."
    return text


def _in_short(results: Results, found: Sequence[Verdict]) -> str:
    """What came out, in words."""
    medians = {}
    for method in METHODS:
        values = (
            [v for pair in results.pairs() for v in speedup(results, *pair, method).values] if method != OURS else []
        )
        if values:
            medians[method] = statistics.median(values)
    if not medians:
        return "Nothing to compare yet."
    lines = []
    for method, median in medians.items():
        aim = AIMS.get(method)
        beside = f", where {aim:g} is aimed at" if aim else ""
        lines.append(f"* Speed-up over {METHODS[method].title} at equal accuracy: {median:.2f} as a median{beside}.")
    peers = [method for method in medians if method in PEERS]
    if peers:
        best = min(peers, key=lambda method: medians[method])
        lines.append(_best_peer(best, medians[best]))
    words = [verdict.word for verdict in found if verdict.peer in PEERS]
    told = ", ".join(
        f"{words.count(word)} {name}" for word, name in (("win", "wins"), ("even", "even"), ("loss", "losses"))
    )
    lines.append(
        f"* Of {len(words)} comparisons of one of our networks with a peer {told}; the losses are listed below."
    )
    return "\n".join(lines)


def _best_peer(method: str, median: float) -> str:
    return f"* The best peer is {METHODS[method].title}: {median:.2f}, where {BEST_AIM:g} over the best is aimed at."


def _not_run(results: Results, names: Sequence[str]) -> list[str]:
    """Cells of the full form that are not there."""
    lines = []
    for name in names:
        for runtime in RUNTIMES:
            possible = [method for method in METHODS if method != SCRATCH or not comes_trained(name)]
            absent = [
                METHODS[method].title
                for method in possible
                if not any((key.network, key.runtime, key.method) == (name, runtime, method) for key in results.points)
            ]
            if len(absent) == len(possible):
                lines.append(f"{NETWORKS[name].title} on {runtime}: all.")
            elif absent:
                lines.append(f"{NETWORKS[name].title} on {runtime}: {', '.join(absent)}.")
    seeds = {key.seed for key in results.points}
    if len(seeds) < 3 and QUICK not in names:
        lines.append(f"A third seed ({len(seeds)} were run).")
    return lines
