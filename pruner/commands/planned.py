"""What a plan leaves of the network that a command reads: widths and blocks."""

from pathlib import Path
from typing import TYPE_CHECKING

from lut import RunError

if TYPE_CHECKING:
    from profiler.blocks import Block
    from profiler.network import Network
    from pruner.plan import PrunePlan
    from pruner.task import Task


def read_plan(path: Path) -> "PrunePlan":
    """Read a plan, or that of a run's directory.

    Raises:
        RunError: it cannot be read.
    """
    from pruner.plan import PrunePlan

    return PrunePlan.read(path / "plan.json" if path.is_dir() else path)


def analyze_planned(task: "Task", plan: "PrunePlan | None") -> tuple["Network", frozenset[str]]:
    """Trace what a task deploys, as it was when a plan was made of it.

    Returns:
        The network, and the groups that the plan was told to keep whole: no module is run as a program for them.

    Raises:
        LatpruneError: the network does not run on the inputs, or has no layer that the plan kept whole.
    """
    from profiler.network import analyze
    from pruner.narrow import asked_to_stay, out_of_place, without_programs_of

    model = task.build()
    network = analyze(task.deployed(model), task.inputs())
    if plan is None:
        return network, frozenset()
    stay = asked_to_stay(model, network, plan.frozen) | out_of_place(model, network)
    return without_programs_of(stay, network), stay


def plan_widths(network: "Network", plan: "PrunePlan") -> dict[str, int]:
    """The widths that a plan leaves of the network that it was made for (at this or another input shape).

    Raises:
        RunError: it was made for another network.
    """
    names = network.widths.keys() | plan.sizes.keys()
    strange = sorted(name for name in names if network.widths.get(name) != plan.sizes.get(name))
    if strange:
        shown = ", ".join(strange[:3]) + (" …" if len(strange) > 3 else "")
        raise RunError(
            f"The plan was made for another network: {len(strange)} of {len(names)} groups do not fit ({shown}).\n"
            "Name the task that it was made with"
        )
    return network.widths | plan.widths


def plan_blocks(network: "Network", plan: "PrunePlan") -> list["Block"]:
    """The blocks that a plan leaves out.

    Raises:
        RunError: the network has no such block.
    """
    from profiler.blocks import find_blocks

    if not plan.removed_blocks:
        return []
    known = {block.name: block for block in find_blocks(network)}
    strange = [name for name in plan.removed_blocks if name not in known]
    if strange:
        raise RunError(f"The plan was made for another network: it leaves out {strange[0]!r}, which this one lacks.")
    return [known[name] for name in plan.removed_blocks]
