"""What the wheel holds: exactly three packages, typed."""

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"lut", "profiler", "pruner"}
FOLDERS = ("lut", "profiler", "pruner", "tasks", "tests")
FILES = ("setup.py", "pyproject.toml", "LICENSE")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources, so that building leaves nothing behind in them."""
    copy = tmp_path / "tree"
    unwanted = shutil.ignore_patterns("__pycache__", "runs")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=unwanted)
    for file in FILES:
        shutil.copy(ROOT / file, copy / file)
    return copy


def build_wheel(tree: Path) -> list[str]:
    """Build a wheel without a network, and list the files in it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", "wheels", "."]
    done = subprocess.run([*pip, *offline], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tree / "wheels").glob("latprune-*.whl")
    with ZipFile(wheel) as archive:
        return archive.namelist()


def read_top_level(names: list[str]) -> set[str]:
    return {top for top in (name.split("/")[0] for name in names) if not top.endswith(".dist-info")}


def test_the_wheel_holds_exactly_the_three_packages_and_their_type_markers(tree: Path) -> None:
    names = build_wheel(tree)
    assert read_top_level(names) == PACKAGES
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    sources = {path.relative_to(tree).as_posix() for package in PACKAGES for path in (tree / package).rglob("*.py")}
    assert sources == {name for name in names if name.endswith(".py")}


def test_a_fourth_package_in_the_wheel_is_noticed(tree: Path) -> None:
    (tree / "lutplots").mkdir()
    (tree / "lutplots" / "__init__.py").touch()
    assert read_top_level(build_wheel(tree)) == PACKAGES | {"lutplots"}
