"""`latprune groups`: which channels hang together, how many can go, and what is frozen and why."""

import functools
import math
import re
import textwrap
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from lut import ChannelGroup
from pruner.commands.options import Batch, Freeze, Input, Json, TaskSpec, analyze_task, find_task
from pruner.commands.output import make_table, plain, print_json, results
from pruner.commands.progress import working
from pruner.draw import OPTION, save_drawing
from pruner.picture import check_picture
from pruner.show import format_count, format_percent

if TYPE_CHECKING:
    from torch import nn

    from profiler.network import Network

Draw = Annotated[
    Path | None,
    typer.Option(
        "--draw", metavar="FILE", help="Draw which layers share which channels: FILE.svg, .png or .pdf.",
    ),
]  # fmt: skip

Passage = tuple[set[str], set[str]]
"""Names of the groups in what a step of a layer reads, and in what it writes."""


def groups(
    task: TaskSpec,
    input: Input = None,
    batch: Batch = None,
    freeze: Freeze = None,
    draw: Draw = None,
    json: Json = False,
) -> None:
    """Channel groups: their sizes, members, and what is frozen and why."""
    with working():
        if draw is not None:
            check_picture(draw, OPTION)
        found = find_task(task, input, batch)
        start = time.perf_counter()
        network = analyze_task(found, freeze)
        seconds = time.perf_counter() - start
        report = describe(network) | {"task": found.name, "network": network.hash, "seconds": seconds}
        if draw is not None:
            save_drawing(report, draw)
            report["drawing"] = str(draw)
    if json:
        print_json(report)
    else:
        show_groups(report, results())


def describe(network: "Network") -> dict[str, Any]:
    """What the command tells of a network, as plain JSON (without the seconds that it took)."""
    shapes = _parameter_shapes(network)
    total = sum(map(math.prod, shapes.values()))
    all_macs = network.macs(network.widths)
    found = []
    for group in network.groups:
        touched = sum(unit.macs(network.widths) for unit in network.units if group.name in unit.groups)
        parameters = count_parameters([group], shapes)
        more = {"parameters": parameters, "parameter_share": parameters / total if total else None}
        share = None if group.frozen_because or not all_macs else touched / all_macs
        found.append(_record(group) | more | {"macs_share": share})
    return {
        "groups": found,
        "parameters": total,
        "prunable_parameters": count_parameters((g for g in network.groups if not g.frozen_because), shapes),
        "macs": all_macs,
        "prunable_macs": sum(unit.macs(network.widths) for unit in network.units if unit.groups),
        "units": len(network.units),
        "layers": read_layers(network),
    }


def _record(group: ChannelGroup) -> dict[str, Any]:
    """A group as plain JSON: of a module that runs as a program once the group is cut only the name."""
    keys = ("name", "size", "members", "frozen_because", "approximate_because", "attributes")
    programs = [program.module for program in getattr(group, "programs", ())]
    return {key: plain(getattr(group, key)) for key in keys} | {"programs": programs}


def count_parameters(groups: Iterable[ChannelGroup], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many of the network's parameters stand in the channels of some groups; each counts once.

    Args:
        groups: their members may be buffers too, which do not count.
        shapes: of the parameters, by name.
    """
    covered: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for member in (member for group in groups for member in group.members):
        if member.parameter in shapes:
            covered[member.parameter][member.dimension].update(index for choice in member.indices for index in choice)
    count = 0
    for name, dimensions in covered.items():
        shape = shapes[name]
        # an element belongs to a group when any of its dimensions does
        outside = [size - len(dimensions.get(number, ())) for number, size in enumerate(shape)]
        count += math.prod(shape) - math.prod(outside)
    return count


def _parameter_shapes(network: "Network") -> dict[str, tuple[int, ...]]:
    members = {member.parameter for group in network.groups for member in group.members}
    shapes: dict[str, tuple[int, ...]] = {}
    seen: dict[int, str] = {}
    for name, parameter in network.model.named_parameters(remove_duplicate=False):
        first = seen.setdefault(id(parameter), name)
        if first != name and name in members:  # a shared parameter counts once, under the name that groups use
            shapes.pop(first, None)
        if first == name or name in members:
            shapes[name] = tuple(parameter.shape)
    return shapes


def read_layers(network: "Network") -> list[dict[str, Any]]:
    """The layers in the order in which they run, and the groups whose channels each takes in, gives out or keeps.

    A layer is what one module holds, or one parameter beside other modules. It *keeps* channels that come in and go out
    one by one, as norms and depthwise convolutions do. Layers that did not run (heads for training) come last, with
    "runs" false; what they would do is read from their weights' dimensions.
    """
    modules = dict(network.model.named_modules())
    places: dict[str, dict[str, set[tuple[str, int]]]] = defaultdict(lambda: defaultdict(set))
    for group in network.groups:
        for member in group.members:
            places[layer_of(member.parameter, modules)][group.name].add((member.parameter, member.dimension))
    parameters: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for name, shape in _parameter_shapes(network).items():
        parameters[layer_of(name, modules)][name] = shape
    passages = _passages(network, modules)
    found = []
    for name in dict.fromkeys([*passages, *parameters, *places]):
        if not parameters[name] and not places[name]:  # buffers that no group touches
            continue
        roles: dict[str, list[str]] = {"takes": [], "gives": [], "keeps": []}
        for group_name, where in places[name].items():
            for role in _roles(group_name, where, parameters[name], passages.get(name, [])):
                roles[role].append(group_name)
        kind = type(modules[name]).__name__ if name in modules else "parameter"
        layer = {"name": name, "kind": kind, "runs": name in passages, "parameters": parameters[name]}
        found.append(plain(layer | roles))
    return found


def layer_of(parameter: str, modules: Mapping[str, "nn.Module"]) -> str:
    """The layer that a parameter or buffer belongs to: its module, or itself where other layers stand inside that."""
    parameter = re.sub(r"(^|\.)parametrizations\.([^.]+)\..*", r"\1\2", parameter)
    path, _, leaf = parameter.rpartition(".")
    children = dict(modules[path].named_children()) if path in modules else {}
    children.pop("parametrizations", None)
    if path and not any(True for child in children.values() for _ in child.parameters()):
        return path
    stem = leaf.removesuffix("_weight").removesuffix("_bias")  # in_proj_weight and in_proj_bias are one layer
    return f"{path}.{stem}" if path else stem


def _passages(network: "Network", modules: Mapping[str, "nn.Module"]) -> dict[str, list[Passage]]:
    """For each layer, step by step: the groups in what its parameters meet, and those in what comes of it."""
    from profiler.labels import compact

    trace, structure = network.trace, network.structure
    names = [group.name for group in network.groups]
    sources: dict[int, set[str]] = {
        number: {layer_of(value.name, modules)} for number, value in enumerate(trace.values) if value.name
    }

    first: dict[str, int] = {}
    for number, layers in sources.items():
        first.update((name, number) for name in layers if name not in first)

    @functools.cache
    def groups_in(value: int) -> set[str]:
        numbers: set[int] = set()
        for layer in structure.layers.get(value, ()):
            numbers.update(structure.group_of[compact(layer).numpy()].flat)
        return {names[number] for number in numbers if number >= 0}

    found: dict[str, list[Passage]] = {}
    for step in trace.steps:
        own: set[str] = set().union(*(sources.get(value, ()) for value in step.inputs))
        outputs = [value for value in step.outputs if value is not None]
        met = [value for value in step.inputs if trace.values[value].from_input]
        if not met:
            sources.update((value, own | sources.get(value, set())) for value in outputs)
        elif own:
            came: set[str] = set().union(*map(groups_in, met))
            went: set[str] = set().union(*map(groups_in, outputs))
            for name in sorted(own, key=first.__getitem__):
                found.setdefault(name, []).append((came, went))
    return found


def _roles(
    group: str, places: Collection[tuple[str, int]], shapes: Mapping[str, Sequence[int]], passages: Sequence[Passage]
) -> list[str]:
    if passages:
        of_parameter = [parameter for parameter, _ in places]
        crossed = len(of_parameter) > len(set(of_parameter))  # one parameter's rows and its columns are of this group
        through = crossed and any(group in came & went for came, went in passages)
        takes = through or any(group in came - went for came, went in passages)
        gives = through or any(group in went - came for came, went in passages)
    else:
        dimensions = {dimension for parameter, dimension in places if len(shapes.get(parameter, ())) > 1}
        takes, gives = 1 in dimensions, 0 in dimensions
    return [role for role, plays in (("takes", takes), ("gives", gives), ("keeps", not takes and not gives)) if plays]


def show_groups(report: Mapping[str, Any], console: Console) -> None:
    """Print the table, then why groups are frozen or approximate, then the totals."""
    headings = ("group", "size", "members", "parameters", "share", "multiply-\nadds")
    table = make_table("", *headings, right=(1, 2, 3, 4, 5))
    reasons: dict[str, list[str]] = defaultdict(list)
    for group in report["groups"]:
        size = str(group["size"])
        if group["frozen_because"]:
            size = "frozen"
            reasons[f"frozen: {group['frozen_because']}"].append(group["name"])
        elif group["approximate_because"]:
            size = f"≈ {size}"
            reasons[f"≈ approximate: {group['approximate_because']}"].append(group["name"])
        for module in group["programs"]:
            reasons[f"once cut, {module or 'the network'} runs as a program"].append(group["name"])
        table.add_row(
            group["name"],
            size,
            str(len(group["members"])),
            format_count(group["parameters"]),
            format_percent(group["parameter_share"]),
            format_percent(group["macs_share"]),
        )
    console.print(table)
    for reason, names in reasons.items():
        console.print(_wrapped(f"{reason} ({', '.join(names)})", console.width, indent="  "))
    for line in _totals(report):
        console.print(_wrapped(line, console.width))
    if "drawing" in report:
        console.print(f"{report['drawing']}  which layers share which channels", soft_wrap=True)


def _totals(report: Mapping[str, Any]) -> Iterator[str]:
    prunable = [group for group in report["groups"] if not group["frozen_because"]]
    frozen = len(report["groups"]) - len(prunable)
    approximate = sum(bool(group["approximate_because"]) for group in prunable)
    yield (
        f"{len(prunable)} groups of {sum(group['size'] for group in prunable)} channels can be pruned"
        f" ({approximate} of them approximately), {frozen} groups are frozen"
    )
    for key, what in (("parameters", "parameters"), ("macs", "multiply-adds")):
        part, total = report[f"prunable_{key}"], report[key]
        share = format_percent(part / total if total else None)
        yield f"{_count(total)} {what}, {_count(part)} ({share}) of them in groups that can be pruned"
    yield "What stands between two groups counts in both of their rows, and once here."
    yield f"{report['task']}: {report['units']} units, read in {report['seconds']:.1f} s"


def _count(number: float) -> str:
    return format_count(number) if number < 1e8 else f"{number / 1e6:,.1f} million"


def _wrapped(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
