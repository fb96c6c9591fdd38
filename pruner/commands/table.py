"""`latprune table`: what can be done with a table file; a file a command. None needs torch but `recheck`."""

import inspect
import re

import typer

from pruner.commands.table_export import export_table
from pruner.commands.table_merge import merge_tables
from pruner.commands.table_plot import plot
from pruner.commands.table_recheck import recheck
from pruner.commands.table_show import show


def flow(text: str) -> str:
    """A docstring whose paragraphs are one line each, for `--help` to wrap at the terminal's width."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(text))


table = typer.Typer(help="Show, merge, export, plot or recheck table files.", no_args_is_help=True)
for name, command in (
    ("show", show),
    ("merge", merge_tables),
    ("export", export_table),
    ("plot", plot),
    ("recheck", recheck),
):
    table.command(name, help=flow(command.__doc__ or ""))(command)
