"""The same command goes on from the last finished stage; nothing that is not ours is deleted."""

from pathlib import Path

import pytest
import torch

from lut.errors import RunError
from pruner.runstate import open_run

REQUEST = {"budget": "8ms", "seed": 0, "shape": (1, 2)}


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_an_unfinished_run_goes_on_with_what_its_stages_left(tmp_path: Path) -> None:
    state = open_run(tmp_path / "run", request=REQUEST)
    state.complete("scores", {"rounds": 2}, {"s": torch.arange(3.0)})
    again = open_run(tmp_path / "run", request=REQUEST)
    assert again.has("scores")
    assert not again.has("tuned")
    assert again.payload("scores") == {"rounds": 2}
    assert torch.equal(again.tensors("scores")["s"], torch.arange(3.0))


def test_a_later_checkpoint_replaces_the_earlier(tmp_path: Path) -> None:
    state = open_run(tmp_path, request=REQUEST)
    for epoch in (1, 2):
        state.complete("tuned", {"epoch": epoch}, {"w": torch.full((1,), float(epoch))})
    again = open_run(tmp_path, request=REQUEST)
    assert again.payload("tuned") == {"epoch": 2}
    assert float(again.tensors("tuned")["w"]) == 2
    assert len(names(tmp_path)) == 2


def test_what_a_killed_process_was_just_writing_goes(tmp_path: Path) -> None:
    open_run(tmp_path / "run", request=REQUEST).complete("before", {})
    (tmp_path / "run" / ".state.json.4711.partial").write_text("{")
    assert open_run(tmp_path / "run", request=REQUEST).has("before")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["state.json"]


def test_another_request_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    open_run(tmp_path, request=REQUEST)
    with pytest.raises(RunError, match="seed was 0 and is now 1"):
        open_run(tmp_path, request=REQUEST | {"seed": 1})
    assert not open_run(tmp_path, overwrite=True, request=REQUEST | {"seed": 1}).has("scores")


def test_a_finished_run_is_only_overwritten_when_asked(tmp_path: Path) -> None:
    state = open_run(tmp_path, request=REQUEST)
    state.complete("scores", {}, {"s": torch.ones(1)})
    state.add_file("net.engine")
    state.finish()
    for name in ("plan.json", "net.engine", "mine.txt"):
        (tmp_path / name).touch()
    with pytest.raises(RunError, match="--overwrite"):
        open_run(tmp_path, request=REQUEST)
    assert names(tmp_path) == ["mine.txt", "net.engine", "plan.json", "state.json"]
    fresh = open_run(tmp_path, overwrite=True, request=REQUEST)
    assert not fresh.finished
    fresh.complete("round 1")
    fresh.settle()
    assert names(tmp_path) == ["mine.txt", "state.json"]


def finished_run(folder: Path) -> list[str]:
    state = open_run(folder, request=REQUEST)
    state.add_file("net.engine")
    state.finish()
    for name in ("plan.json", "net.engine", "mine.txt"):
        (folder / name).write_text(name)
    return names(folder)


def test_a_finished_run_comes_back_when_what_was_to_replace_it_comes_to_nothing(tmp_path: Path) -> None:
    before = finished_run(tmp_path)
    fresh = open_run(tmp_path, overwrite=True, request=REQUEST | {"seed": 1})
    (tmp_path / "model.onnx").touch()
    fresh.discard()
    assert names(tmp_path) == before
    assert (tmp_path / "net.engine").read_text() == "net.engine"
    with pytest.raises(RunError, match="finished run"):
        open_run(tmp_path, request=REQUEST)


def test_a_finished_run_outlives_interrupted_tries_to_replace_it(tmp_path: Path) -> None:
    before = finished_run(tmp_path)
    open_run(tmp_path, overwrite=True, request=REQUEST | {"seed": 1})
    again = open_run(tmp_path, overwrite=True, request=REQUEST | {"seed": 2})
    again.discard()
    assert names(tmp_path) == before
    open_run(tmp_path, overwrite=True, request=REQUEST | {"seed": 3})
    (tmp_path / "state.json").unlink()  # stopped before the new run was written down
    with pytest.raises(RunError, match="finished run"):
        open_run(tmp_path, request=REQUEST)
    assert names(tmp_path) == before


def test_what_was_saved_by_hand_is_only_overwritten_when_asked(tmp_path: Path) -> None:
    (tmp_path / "plan.json").touch()
    with pytest.raises(RunError, match="--overwrite"):
        open_run(tmp_path, request=REQUEST)


def test_a_directory_that_is_not_ours_is_refused_even_with_overwrite(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for overwrite in (False, True):
        with pytest.raises(RunError, match=r"thesis\.tex"):
            open_run(tmp_path, overwrite=overwrite, request=REQUEST)
    with pytest.raises(RunError, match="is a file"):
        open_run(tmp_path / "thesis.tex", request=REQUEST)


def test_a_state_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for text in ("{", "{}"):
        (tmp_path / "state.json").write_text(text)
        with pytest.raises(RunError, match=r"state\.json"):
            open_run(tmp_path, request=REQUEST)


def test_a_run_that_came_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    open_run(tmp_path / "run", request=REQUEST).discard()
    assert not (tmp_path / "run").exists()
    (tmp_path / "other").mkdir()
    state = open_run(tmp_path / "other", request=REQUEST)
    (tmp_path / "other" / "mine.txt").touch()
    state.discard()
    assert names(tmp_path) == ["other/mine.txt"]
