"""Writes down which names classic TensorRT has, read from its type stubs, so that tests need not install these.

The package tensorrt-stubs asks for TensorRT itself; it is unpacked beside everything else, without what it asks for:

    pip install --no-deps --target /tmp/stubs tensorrt-stubs==10.13.0.35.1
    python -m tests.profiler.backends.record_names /tmp/stubs
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

OUT = Path(__file__).parent / "recorded" / "tensorrt-names.txt"
STUB = Path("tensorrt_bindings", "tensorrt.pyi")
LINE = re.compile(
    r"(?P<indent> *)(?:class (?P<klass>\w+)(?:\((?P<base>\w+)\))?|def (?P<function>\w+)\(|(?P<attribute>\w+): )"
)


def read_names(text: str) -> Iterator[str]:
    """Every class, function and attribute of a stub, with the class that it stands in, and what classes inherit.

    Read line by line: the stub of 10.13 is no valid Python (an argument without a default after one with).
    """
    inside: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        indent = len(match["indent"])
        while inside and inside[-1][0] >= indent:
            inside.pop()
        name = ".".join([*(outer for _, outer in inside), match["klass"] or match["function"] or match["attribute"]])
        yield name
        if match["klass"]:
            inside.append((indent, match["klass"]))
            if match["base"]:
                yield f"{name} < {match['base']}"
        elif match["function"]:
            inside.append((indent, match["function"]))


def main(site: str) -> None:
    """Write the file of names."""
    text = (Path(site) / STUB).read_text(encoding="utf-8")
    (found,) = Path(site).glob("tensorrt_stubs-*.dist-info")
    version = found.name.removeprefix("tensorrt_stubs-").removesuffix(".dist-info")
    names = sorted(name for name in set(read_names(text)) if "__" not in name)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(f"# names in tensorrt-stubs {version}, by record_names.py\n" + "\n".join(names) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
