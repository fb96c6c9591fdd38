"""Write pictures into files: the colours that all share, what is checked before the work, and how a figure is saved."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lut.errors import LatpruneError
from pruner.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png", ".pdf")
COLOURS = ("#2f6db5", "#c8622c", "#2f8a5a", "#a8324a", "#7a5aa6", "#8a6a2f", "#b8508f", "#1f8490")
INK, FAINT, LINE = "#1c2430", "#737c88", "#aab3bf"
DOTS = 130
"""An inch, of a PNG."""


class DrawError(LatpruneError):
    """A picture cannot be drawn, or not into this file."""


def check_picture(path: Path, option: str) -> None:
    """Make sure that a picture can be drawn, before the work for it.

    Args:
        path: of the picture.
        option: that named it, for messages.

    Raises:
        DrawError: the suffix is none that is possible, there is no such folder, or matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DrawError(f"{option} {path}: its name tells no kind of picture.\nPossible are {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise DrawError(f"{option} {path}: there is no folder {path.parent}.\nMake it: mkdir -p {path.parent}")
    if importlib.util.find_spec("matplotlib") is None:
        raise DrawError(f'{option} needs matplotlib, which is not installed.\nInstall it: pip install "latprune[plot]"')


def save_picture(figure: "Figure", path: Path, option: str, *, dots: float = DOTS) -> None:
    """Write a figure, whole or not at all; the same figure gives the same file.

    Raises:
        DrawError: the file cannot be written.
    """
    import matplotlib

    kind = path.suffix.lower().removeprefix(".")
    undated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "latprune", "pdf.fonttype": 42}  # text stays text
    try:
        with matplotlib.rc_context(settings), replacing(path) as partial:
            figure.savefig(partial, format=kind, dpi=dots, metadata=undated)
    except OSError as error:
        raise DrawError(f"{option} {path}: it cannot be written: {error.strerror or error}.") from error
