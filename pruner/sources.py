"""Where tasks come from: a Python file, an importable module, or the catalogues of torchvision and timm."""

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from lut.errors import TaskError

Shapes = Sequence[Sequence[int]]
"""Of the positional arguments, in order."""

IMAGE = "1x3x224x224"
"""What torchvision's classifiers take."""

EXAMPLES = {
    "detection": "3x320x320",
    "segmentation": IMAGE,
    "video": "1x3x16x224x224",
    "optical_flow": "1x3x128x128,1x3x128x128",
}
"""What the networks in torchvision's other modules take, such as `torchvision.models.video`."""


@dataclass(frozen=True)
class Source:
    """The functions of a task, as they were found.

    Attributes:
        name: short, for showing.
        where: as the user knows it, for messages.
        functions: whatever stands in the module, by name.
        file: of the module, or None.
        folder: what has to be on `sys.path` while the functions run, or None.
    """

    name: str
    where: str
    functions: Mapping[str, Any]
    file: Path | None = None
    folder: Path | None = None


def load_source(spec: str, input_shape: str | Shapes | None) -> Source:
    """Find what a TASK on the command line names.

    Raises:
        TaskError: there is none, or it cannot be imported.
    """
    catalogue, colon, name = spec.partition(":")
    if colon and catalogue in CATALOGUES:
        shapes = read_shapes(input_shape) if isinstance(input_shape, str) else input_shape
        return CATALOGUES[catalogue](name, shapes)
    if input_shape is not None:
        raise TaskError(f"--input is for torchvision:NAME and timm:NAME; {spec} tells its shapes by example_inputs().")
    if spec.endswith(".py") or "/" in spec or "\\" in spec or Path(spec).is_file():
        return _from_file(Path(spec), spec)
    return _from_module(spec)


@contextlib.contextmanager
def on_path(folder: Path | None) -> Iterator[None]:
    """Let a folder's files be imported meanwhile."""
    if folder is None:
        yield
        return
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _from_file(path: Path, spec: str) -> Source:
    if not path.is_file():
        hint = ""
        dotted = ".".join(path.with_suffix("").parts)
        if path.is_dir():
            hint = f" It is a folder; a file in it such as {path / 'task.py'} is meant."
        elif path.with_name(f"{path.name}.py").is_file():
            hint = f" Did you mean {spec}.py?"
        elif not path.is_absolute() and _exists(dotted):
            hint = f" Did you mean the module {dotted}?"
        raise TaskError(f"There is no task file {spec}.{hint}")
    file = path.resolve()
    name = f"latprune_task_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    found = importlib.util.spec_from_file_location(name, file)
    if found is None or found.loader is None:
        raise TaskError(f"{spec} is not a Python file: its name should end in .py.")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickling look their module up there
    loader = found.loader
    try:
        _imported(lambda: loader.exec_module(module), spec, file, file.parent)
    except TaskError:
        del sys.modules[name]
        raise
    return Source(file.stem, spec, vars(module), file, file.parent)


def _exists(dotted: str) -> bool:
    try:
        return importlib.util.find_spec(dotted) is not None
    except (ImportError, ValueError):
        return False


def _from_module(spec: str) -> Source:
    folder = Path.cwd()
    try:
        with on_path(folder):
            module = _imported(lambda: importlib.import_module(spec), spec, None, folder)
    except TaskError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and f"{spec}.".startswith(f"{cause.name}."):
            as_file = f"{spec.replace('.', '/')}.py"
            near = next((name for name in (as_file, f"{spec}.py") if Path(name).is_file()), None)
            hint = f" Did you mean {near}?" if near else " A task is a FILE.py, package.module or torchvision:NAME."
            raise TaskError(f"There is no module {spec!r}.{hint}") from cause
        raise
    file = Path(module.__file__).resolve() if module.__file__ else None
    return Source(spec.rpartition(".")[2], spec, vars(module), file, folder)


def _imported(run: Callable[[], Any], spec: str, file: Path | None, folder: Path) -> ModuleType:
    try:
        with on_path(folder):
            return run()  # type: ignore[no-any-return]
    except SyntaxError as error:
        where = spec if error.filename is None or Path(error.filename) == file else error.filename
        raise TaskError(f"{where}, line {error.lineno}: {type(error).__name__}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
        where = f"{spec}, line {frames[-1].lineno}" if frames else spec
        text = str(error).strip().splitlines()
        raise TaskError(
            f"{where}: importing it raises {type(error).__name__}{f': {text[0]}' if text else ''}"
        ) from error


def read_shapes(text: str) -> tuple[tuple[int, ...], ...]:
    """Read "1x3x224x224", or several shapes with commas between.

    Raises:
        TaskError: these are no shapes.
    """
    shapes = []
    for part in text.split(","):
        numbers = part.strip().lower().replace("×", "x").split("x")
        if not all(number.strip().isdecimal() and int(number) > 0 for number in numbers):
            raise TaskError(f"--input {text}: a shape such as 1x3x224x224 is meant.")
        shapes.append(tuple(int(number) for number in numbers))
    return tuple(shapes)


def _public(
    catalogue: str, name: str, shapes: Shapes, build: Callable[[], nn.Module], *, as_list: bool = False
) -> Source:
    """A network with random weights and inputs, the same ones every time; `as_list` gives the inputs as one list."""

    def model() -> nn.Module:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            return build().eval()

    def example_inputs() -> tuple[Tensor | list[Tensor], ...]:
        generator = torch.Generator().manual_seed(0)
        tensors = [torch.randn(size, generator=generator) for size in shapes]
        return (tensors,) if as_list else tuple(tensors)

    return Source(name, f"{catalogue}:{name}", {"model": model, "example_inputs": example_inputs})


def _unknown(catalogue: str, name: str, names: Sequence[str]) -> TaskError:
    close = difflib.get_close_matches(name.lower(), names, n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else f" It has {', '.join(sorted(names)[:3])} …"
    return TaskError(f"{catalogue} has no network {name!r}.{hint}")


def _torchvision(name: str, shapes: Shapes | None) -> Source:
    try:
        import torchvision.models as catalogue
    except ImportError as error:
        raise TaskError("torchvision is not installed: pip install 'latprune[vision]'") from error
    if name not in catalogue.list_models():
        raise _unknown("torchvision", name, catalogue.list_models())
    others = (kind for kind in EXAMPLES if name in catalogue.list_models(module=getattr(catalogue, kind)))
    kind = next(others, None)
    if shapes is None:
        if name not in catalogue.list_models(module=catalogue):
            example = EXAMPLES.get(kind or "", IMAGE)
            raise TaskError(
                f"torchvision:{name} does not classify images: give its input shape, such as --input {example}."
            )
        shapes = read_shapes(IMAGE)
    detects = kind == "detection"
    if detects and any(len(shape) != 3 for shape in shapes):
        given = ",".join("x".join(map(str, shape)) for shape in shapes)
        raise TaskError(
            f"torchvision:{name} takes a list of pictures, each of three dimensions, and --input gives {given}.\n"
            f"Give one shape for each picture: --input {EXAMPLES['detection']}, or several separated by commas."
        )
    builder = catalogue.get_model_builder(name)
    # `weights_backbone` and its like are asked for by default; decorated builders show them in the signature only
    weights = [parameter for parameter in inspect.signature(builder).parameters if parameter.startswith("weights")]
    return _public("torchvision", name, shapes, lambda: builder(**dict.fromkeys(weights)), as_list=detects)


def _timm(name: str, shapes: Shapes | None) -> Source:
    try:
        import timm
    except ImportError as error:
        raise TaskError("timm is not installed: pip install timm") from error
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    if shapes is None:
        known = timm.get_pretrained_cfg(name)
        shapes = ((1, *(known.input_size if known else (3, 224, 224))),)
    return _public("timm", name, shapes, lambda: timm.create_model(name, pretrained=False))


CATALOGUES: Mapping[str, Callable[[str, Shapes | None], Source]] = {"torchvision": _torchvision, "timm": _timm}
"""Prefixes of a TASK that name a public network."""
