"""A task is loaded from a file, a module or a catalogue; whatever is wrong with it is said in a line or two."""

import sys
from collections.abc import Sized
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lut.errors import LatpruneError, TaskError
from pruner.task import Task, load_task

GOOD = """
import torch
from torch import nn

def model():
    return nn.Linear(3, 2)

def example_inputs():
    return (torch.zeros(2, 3),)
"""


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def message(spec: str, **options: object) -> str:
    def use() -> None:
        task = load_task(spec, **options)  # type: ignore[arg-type]
        task.build()
        task.inputs()

    with pytest.raises(TaskError) as caught:
        use()
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    return text


def test_a_file_gives_a_model_in_eval_mode_and_its_inputs(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, GOOD))
    assert task.name == "mine"
    assert not task.build().training
    assert [leaf.shape for leaf in task.inputs()] == [(2, 3)]


def test_a_file_may_import_its_neighbours_also_later(tmp_path: Path) -> None:
    write(tmp_path, "from torch import nn\ndef layer(): return nn.Linear(3, 2)\n", "neighbour_of_mine.py")
    write(tmp_path, "WIDTH = 3\n", "late_neighbour.py")
    text = GOOD.replace("nn.Linear(3, 2)", "neighbour_of_mine.layer()")
    text = text.replace("import torch\n", "import torch, neighbour_of_mine\n")
    text = text.replace("    return (torch", "    import late_neighbour\n    return (torch")
    before = list(sys.path)
    task = load_task(write(tmp_path, text))
    assert isinstance(task.build(), nn.Linear)
    assert len(task.inputs()) == 1
    assert sys.path == before


def test_a_file_may_hold_dataclasses(tmp_path: Path) -> None:
    text = "import dataclasses\n@dataclasses.dataclass\nclass Size:\n    width: int = 3\n"
    assert load_task(write(tmp_path, f"from __future__ import annotations\n{text}{GOOD}")).build()


def test_a_module_on_the_path_is_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD, "mine_as_module.py")
    monkeypatch.chdir(tmp_path)
    assert load_task("mine_as_module").name == "mine_as_module"


def test_a_missing_file_is_named_and_the_likely_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, GOOD)
    assert message("absent.py") == "There is no task file absent.py."
    assert "Did you mean ./mine.py?" in message("./mine")
    assert "Did you mean the module lut.records?" in message("lut/records")


def test_a_missing_module_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "There is no module 'absent.module'" in message("absent.module")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def model(:\n", "line 1: SyntaxError"),
        ("import torch\nimport absent_library\n", "line 2: importing it raises ModuleNotFoundError"),
        ("import sys\nsys.exit(3)\n", "line 2: importing it raises SystemExit: 3"),
        ("x = 1\n", r"lacks model()"),
        ("def model(): pass\n", "lacks example_inputs()"),
        ("model = 3\nexample_inputs = 4\n", "model is int, not a function"),
        (GOOD.replace("nn.Linear(3, 2)", "None"), "model() gives None, not a torch.nn.Module"),
        (GOOD.replace("nn.Linear(3, 2)", "nn.Linear(-3, 2)"), "line 6: model() raises RuntimeError"),
        (GOOD.replace("(torch.zeros(2, 3),)", "{'x': 1}"), "example_inputs() gives dict"),
        (GOOD.replace("(torch.zeros(2, 3),)", "()"), "example_inputs() gives no tensor"),
        (GOOD.replace("(torch.zeros(2, 3),)", "(object(),)"), "example_inputs() gives a object"),
        (GOOD.replace("torch.zeros(2, 3)", "1 / 0"), "line 9: example_inputs() raises ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    spec = write(tmp_path, text)
    found = message(spec)
    assert said in found
    assert spec in found


def task_of(inputs: object, batch: int | None = None) -> Task:
    return Task("t", lambda: nn.Identity(), lambda: inputs, batch=batch)  # type: ignore[arg-type, return-value]


def test_a_single_tensor_and_nests_are_inputs() -> None:
    assert len(task_of(torch.zeros(1, 2)).inputs()) == 1
    nested = [{"a": torch.zeros(1), "b": [torch.ones(2)]}, None]
    assert task_of(nested).inputs()[0] is nested[0]


@pytest.mark.parametrize(("batch", "rows"), [(1, [0]), (2, [0, 1]), (5, [0, 1, 2, 0, 1])])
def test_batch_repeats_or_cuts_the_leading_dimension(batch: int, rows: list[int]) -> None:
    images = torch.arange(3.0).view(3, 1)
    found = task_of(({"x": images, "scale": torch.ones(7)},), batch).inputs()[0]
    assert found["x"].flatten().tolist() == rows
    assert found["scale"].shape == (7,)


def test_a_batch_below_one_is_refused() -> None:
    with pytest.raises(TaskError, match="--batch 0"):
        task_of(torch.zeros(1, 2), 0).inputs()


def test_a_task_says_what_it_lacks_and_what_for() -> None:
    with pytest.raises(TaskError, match=r"lacks train_batches\(\) and loss\(\).*Fisher"):
        task_of(()).require("train_batches", "loss")


def test_the_deployed_part_is_the_model_unless_the_task_says_otherwise(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    assert task_of(()).deployed(model) is model
    task = load_task(write(tmp_path, GOOD + "def network(model): return model[0]\n"))
    assert task.deployed(model) is model[0]
    bad = load_task(write(tmp_path, GOOD + "def network(model): return 3\n"))
    with pytest.raises(TaskError, match=r"network\(model\) gives int"):
        bad.deployed(model)


def test_errors_in_batches_and_in_the_loss_are_the_tasks(tmp_path: Path) -> None:
    text = "def train_batches():\n    yield 1\n    raise OSError('disk')\n"
    text += "def loss(model, batch):\n    return model.absent\n"
    task = load_task(write(tmp_path, text + GOOD))
    assert task.train_batches is not None
    assert task.loss is not None
    batches = iter(task.train_batches())
    assert next(iter(batches)) == 1
    with pytest.raises(TaskError, match=r"line 3: train_batches\(\) raises OSError: disk"):
        next(batches)
    with pytest.raises(TaskError, match=r"line 5: loss\(\) raises AttributeError"):
        task.loss(nn.Linear(1, 1), 1)


LOADER = """
class Loader:
    def __len__(self): return 3
    def __iter__(self):
        yield 1
        import beside
        yield beside.TWO
        raise OSError("disk")
def train_batches(): return Loader()
"""


def test_a_loader_keeps_its_length_finds_its_neighbours_and_its_errors_are_the_tasks(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("TWO = 2\n")
    task = load_task(write(tmp_path, LOADER + GOOD))
    assert task.train_batches is not None
    loader = task.train_batches()
    assert isinstance(loader, Sized)
    assert len(loader) == 3
    batches = iter(loader)
    assert [next(batches), next(batches)] == [1, 2]
    with pytest.raises(TaskError, match=r"line 8: train_batches\(\) raises OSError: disk"):
        next(batches)


def test_batches_that_are_none_are_refused(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, GOOD + "def train_batches(): pass\n"))
    assert task.train_batches is not None
    with pytest.raises(TaskError, match=r"train_batches\(\) gives None, not batches"):
        task.train_batches()


def test_a_task_may_measure_the_distance_from_a_teacher_itself(tmp_path: Path) -> None:
    assert load_task(write(tmp_path, GOOD)).distill is None
    task = load_task(write(tmp_path, GOOD + "def distill(student, teacher): return student.absent\n"))
    assert task.distill is not None
    with pytest.raises(TaskError, match=r"line 10: distill\(\) raises AttributeError"):
        task.distill(torch.zeros(1), torch.zeros(1))


def test_our_own_errors_pass_through_the_users_functions(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, GOOD + "def loss(model, batch): return model(batch)\n"))

    class Raises(nn.Module):
        def forward(self, _x: Tensor) -> Tensor:
            raise LatpruneError("ours")

    assert task.loss is not None
    with pytest.raises(LatpruneError, match=r"^ours$"):
        task.loss(Raises(), None)


def test_torchvision_gives_the_same_random_network_every_time() -> None:
    task = load_task("torchvision:squeezenet1_1", input_shape="2x3x64x64")
    state = torch.random.get_rng_state()
    one, other = task.build().state_dict(), task.build().state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [leaf.shape for leaf in task.inputs()] == [(2, 3, 64, 64)]
    assert [leaf.shape for leaf in load_task("torchvision:squeezenet1_1", batch=4).inputs()] == [(4, 3, 224, 224)]
    two = load_task("torchvision:alexnet", input_shape=((1, 2), (3,)))
    assert [leaf.shape for leaf in two.inputs()] == [(1, 2), (3,)]


def test_an_unknown_network_is_answered_with_the_closest() -> None:
    assert "Did you mean resnet50" in message("torchvision:resnt50")


def test_a_network_that_does_not_classify_needs_its_shape() -> None:
    assert "--input" in message("torchvision:r3d_18")


def test_a_shape_that_is_none_is_refused() -> None:
    assert "such as 1x3x224x224" in message("torchvision:alexnet", input_shape="1x3xhello")


def test_a_shape_for_a_task_file_is_refused(tmp_path: Path) -> None:
    assert "--input is for torchvision" in message(write(tmp_path, GOOD), input_shape="1x3")


@pytest.mark.parametrize(("catalogue", "library"), [("torchvision", "torchvision.models"), ("timm", "timm")])
def test_a_catalogue_that_is_not_installed_says_what_to_install(
    catalogue: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    assert "pip install" in message(f"{catalogue}:anything")
