"""`latprune backends`: which runtimes are here, what they can do, and why one is not."""

from dataclasses import asdict

from profiler.backends import statuses
from pruner.commands.options import Json
from pruner.commands.output import make_table, print_json, results
from pruner.commands.progress import working
from pruner.show import NOTHING


def backends(json: Json = False) -> None:
    """Which runtimes are here, and why one is not."""
    with working():
        found = statuses()
    if json:
        print_json({"backends": [asdict(status) for status in found]})
        return
    table = make_table("", "backend", "version", "can", "what is missing")
    for status in found:
        what = ", ".join(status.abilities) or ("nothing here" if status.installed else "not installed")
        table.add_row(status.name, status.version or NOTHING, what, status.why_not or "")
    results().print(table)
