"""A deployed file and what belongs beside it, written all together or not at all."""

from pathlib import Path

import onnx


class Staged:
    """Files in a folder of their own until all are there; then each takes its place, the deployed one last."""

    def __init__(self, folder: Path, target: Path) -> None:
        """Take an empty folder on the disk of the target."""
        self._target = target
        self.beside = target.with_name(f"{target.name}.onnx")
        self.file, self.json, self._onnx = (folder / name for name in ("file", "json", "onnx"))

    def write_onnx(self, model: onnx.ModelProto) -> Path:
        """Write the ONNX file that the deployed one is made from."""
        self._onnx.write_bytes(model.SerializeToString())
        return self._onnx

    def put(self) -> tuple[str, ...]:
        """Move them; returns the names of those that there are."""
        places = {self.json: self._target.with_name(f"{self._target.name}.json"), self.file: self._target}
        if self._onnx.is_file() and self._target.suffix != ".onnx":
            places = {self._onnx: self.beside, **places}
        for staged, place in places.items():
            staged.replace(place)
        return tuple(place.name for place in places.values())
