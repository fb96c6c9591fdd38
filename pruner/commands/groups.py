"""`latprune groups`: which channels hang together, how many can go, and what is frozen and why."""

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from lut import ChannelGroup
from pruner.commands.options import Batch, Freeze, Input, Json, TaskSpec, analyze_task, find_task
from pruner.commands.output import make_table, plain, print_json, results
from pruner.commands.progress import working
from pruner.show import NOTHING, format_count, format_percent

if TYPE_CHECKING:
    from profiler.network import Network


def groups(task: TaskSpec, input: Input = None, batch: Batch = None, freeze: Freeze = None, json: Json = False) -> None:
    """Channel groups: their sizes, members, and what is frozen and why."""
    with working():
        found = find_task(task, input, batch)
        start = time.perf_counter()
        network = analyze_task(found, freeze)
        seconds = time.perf_counter() - start
        report = describe(network) | {"task": found.name, "network": network.hash, "seconds": seconds}
    if json:
        print_json(report)
    else:
        _show(report)


def describe(network: "Network") -> dict[str, Any]:
    """What the command tells of a network, as plain JSON (without the seconds that it took)."""
    sizes = _parameter_shapes(network)
    total = sum(_product(shape) for shape in sizes.values())
    all_macs = network.macs(network.widths)
    found = []
    for group in network.groups:
        touched = sum(unit.macs(network.widths) for unit in network.units if group.name in unit.groups)
        parameters = count_parameters(group, sizes)
        more = {"parameters": parameters, "parameter_share": parameters / total if total else None}
        share = None if group.frozen_because or not all_macs else touched / all_macs
        found.append(plain(group) | more | {"macs_share": share})
    return {"groups": found, "parameters": total, "macs": all_macs, "units": len(network.units)}


def count_parameters(group: ChannelGroup, shapes: dict[str, tuple[int, ...]]) -> int:
    """How many of the network's parameters stand in a group's channels.

    Args:
        group: its members may be buffers too, which do not count.
        shapes: of the parameters, by name.
    """
    covered: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for member in group.members:
        if member.parameter in shapes:
            positions = covered[member.parameter][member.dimension]
            positions.update(index for choice in member.indices for index in choice)
    count = 0
    for name, dimensions in covered.items():
        shape = shapes[name]
        # an element belongs to the group when any of its dimensions does
        outside = [size - len(dimensions.get(number, ())) for number, size in enumerate(shape)]
        count += _product(shape) - _product(outside)
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


def _product(sizes: Any) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product


def _show(report: dict[str, Any]) -> None:
    console = results()
    table = make_table(
        "", "group", "size", "members", "parameters", "share", "multiply-adds", "", right=(1, 2, 3, 4, 5)
    )
    for group in report["groups"]:
        remark = ""
        if group["frozen_because"]:
            remark = f"frozen: {group['frozen_because']}"
        elif group["approximate_because"]:
            remark = f"approximate: {group['approximate_because']}"
        table.add_row(
            group["name"],
            str(group["size"]) if group["size"] else NOTHING,
            str(len(group["members"])),
            format_count(group["parameters"]),
            format_percent(group["parameter_share"]),
            format_percent(group["macs_share"]),
            remark,
        )
    console.print(table)
    prunable = [group for group in report["groups"] if not group["frozen_because"]]
    frozen = len(report["groups"]) - len(prunable)
    approximate = sum(bool(group["approximate_because"]) for group in prunable)
    console.print(
        f"{len(prunable)} groups of {sum(group['size'] for group in prunable)} channels can be pruned"
        f" ({approximate} of them approximately), {frozen} groups are frozen"
    )
    console.print(
        f"{report['task']}: {format_count(report['parameters'])} parameters, {report['macs'] / 1e6:,.1f} million "
        f"multiply-adds, {report['units']} units; read in {report['seconds']:.1f} s"
    )
    console.print("A parameter between two groups counts in both, so that the shares add up to more than 100 %.")
