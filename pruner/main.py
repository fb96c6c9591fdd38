"""The command line `latprune`: a thin layer over the API; `pruner/commands/` has a file a command.

Exit codes: 0 done, 1 done but the goal was missed, 2 the user's error, 130 stopped by Ctrl-C.
"""

import errno
import os
import signal
import sys
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lut import LatpruneError
from pruner.commands.backends import backends
from pruner.commands.export import export
from pruner.commands.frontier import frontier
from pruner.commands.groups import groups
from pruner.commands.measure import measure
from pruner.commands.output import complain
from pruner.commands.predict import predict_command
from pruner.commands.profile import profile
from pruner.commands.prune import prune
from pruner.commands.report import report
from pruner.commands.table import table

RESUMABLE = ("profile", "prune")
"""Commands that lose nothing when they are stopped."""

USER_ERROR = 2
STOPPED = 130
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""What the system says when a file cannot be written for want of room."""


class Commands(TyperGroup):
    """All commands; a user's error becomes its message and exit 2, Ctrl-C one line and exit 130."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except LatpruneError as error:
            complain(str(error))
            raise typer.Exit(USER_ERROR) from error
        except OSError as error:
            if error.errno not in NO_ROOM and "temporary directory" not in str(error.strerror):
                raise
            where = f" ({error.filename})" if error.filename else ""
            complain(
                f"A file cannot be written: {error.strerror}{where}.\n"
                "Make room; for temporary files TMPDIR names another folder"
            )
            raise typer.Exit(USER_ERROR) from error
        except KeyboardInterrupt as error:
            resumable = ctx.invoked_subcommand in RESUMABLE
            complain("stopped; the same command goes on from here" if resumable else "stopped")
            # When the interrupt left code that exec() ran (PyTorch's exporter does so), CPython would end by the signal
            # and not with our code. Running another string takes that back (pythonrun.c, unhandled_keyboard_interrupt).
            exec("")
            raise typer.Exit(STOPPED) from error


app = typer.Typer(
    cls=Commands, name="latprune", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
for name, command in (
    ("profile", profile),
    ("predict", predict_command),
    ("groups", groups),
    ("frontier", frontier),
    ("prune", prune),
    ("export", export),
    ("measure", measure),
    ("report", report),
    ("backends", backends),
):
    app.command(name)(command)
app.add_typer(table, name="table")


def _show_version(wanted: bool) -> None:
    if wanted:
        try:
            version = metadata.version("latprune")
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        typer.echo(f"latprune {version}")
        raise typer.Exit


@app.callback()
def _latprune(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Make a network fast on one given device: prune it to a budget in milliseconds measured there."""


def main() -> None:
    """The console script."""
    _keep_stdout()
    stop_in_order()
    app(prog_name="latprune")


def stop_in_order() -> None:
    """Have a request to end (`kill`, a scheduler, a lost terminal) do as Ctrl-C does, so that nothing stays behind."""

    def stop(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, stop)


def _keep_stdout() -> None:
    """Keep stdout for results: what compiled libraries and child processes write to file 1 goes to stderr."""
    try:
        sys.stdout.flush()
        own = os.dup(1)
        os.dup2(2, 1)
    except (OSError, AttributeError):  # closed from the start: there is nothing to keep
        return
    encoding = sys.stdout.encoding
    sys.stdout = open(own, "w", encoding=encoding, errors="replace", buffering=1)  # noqa: PTH123, SIM115 - a number, not a path


if __name__ == "__main__":
    main()
