"""The packages' names are there, and cost no torch until they are used."""

import subprocess
import sys

import pytest

import profiler
import pruner


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_packages_imports_no_torch_and_no_runtime() -> None:
    assert run("import sys, pruner, profiler; print({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))") == "set()"


def test_a_plan_can_be_read_without_torch() -> None:
    assert run("import sys, pruner; pruner.PrunePlan; print('torch' in sys.modules)") == "False"


@pytest.mark.parametrize("package", [pruner, profiler])
def test_every_name_is_callable_and_listed(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]
        assert callable(getattr(package, name))
        assert name in dir(package)
    with pytest.raises(AttributeError, match="absent"):
        package.absent  # type: ignore[attr-defined] # noqa: B018


def test_a_function_stays_one_when_the_file_of_its_name_is_imported() -> None:
    imports = "import profiler.profile, pruner.prune, profiler, pruner"
    assert run(f"{imports}; print(callable(profiler.profile), callable(pruner.prune))") == "True True"
