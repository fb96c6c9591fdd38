"""Read what users write for a budget, a memory bound, input shapes and compute capabilities."""

import re
from dataclasses import dataclass

from lut.errors import LatpruneError

_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_MS_EACH = {"us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3}
_BYTES_EACH = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class OptionError(LatpruneError):
    """An option's value cannot be read, or does not go with the others."""


@dataclass(frozen=True)
class Bound:
    """A bound as the user wrote it: a figure (ms or bytes), or a fraction of the unpruned network's own.

    Attributes:
        value: in ms or bytes, or None.
        fraction: above 0 and below 1, or None; exactly one of the two is set.
    """

    value: float | None = None
    fraction: float | None = None


def parse_budget(text: str) -> Bound:
    """Read a latency such as "8ms", "0.5s", "800us" or "60%".

    Raises:
        OptionError: it is none of these; says what is accepted.
    """
    return _parse_bound("--budget", text, _MS_EACH, "a time with its unit (8ms, 0.5s, 800us)")


def parse_memory(text: str) -> Bound:
    """Read a size such as "40MB" (10^6), "38MiB" (2^20), "1000B" or "50%"; a value is a whole number of bytes.

    Raises:
        OptionError: it is none of these; says what is accepted.
    """
    accepted = "a size with its unit (40MB = 40·10^6 bytes, 38MiB = 38·2^20, 1000B)"
    found = _parse_bound("--memory", text, _BYTES_EACH, accepted)
    if found.value is None:
        return found
    if found.value < 1:
        raise OptionError(f"--memory {text!r} is less than one byte.\nGive {accepted}")
    return Bound(value=int(found.value))


def parse_inputs(text: str) -> tuple[tuple[int, ...], ...]:
    """Read the shapes of one or several inputs: "1x3x224x224", or "1x3x32x32,1x10".

    Raises:
        OptionError: it is no list of shapes; says what is accepted.
    """
    shapes = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[1-9]\d*(?:[xX×][1-9]\d*)*", shape) for shape in shapes):
        raise OptionError(
            f"--input {text!r} is no input shape.\n"
            "Give the sizes joined by x, such as 1x3x224x224; several inputs separated by commas"
        )
    return tuple(tuple(int(size) for size in re.split("[xX×]", shape)) for shape in shapes)


def parse_capabilities(text: str) -> tuple[str, ...]:
    """Read compute capabilities: "8.6", or "8.6,8.9".

    Raises:
        OptionError: it is no list of them; says what is accepted.
    """
    found = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"\d{1,2}\.\d", part) for part in found):
        raise OptionError(
            f"--compute-capability {text!r} is no compute capability.\n"
            "Give it as two numbers with a point, such as 8.6; several separated by commas: 8.6,8.9"
        )
    return tuple(dict.fromkeys(found))


def _parse_bound(option: str, text: str, units: dict[str, float] | dict[str, int], accepted: str) -> Bound:
    refusal = f"Give {accepted}, or a share of the unpruned network's own measured figure (60%)"
    match = re.fullmatch(_NUMBER + r"\s*([a-zµμ%]*)", text.strip().lower())
    if match is None:
        raise OptionError(f"{option} {text!r} is not understood.\n{refusal}")
    number, unit = float(match[1]), match[2]
    if unit == "%":
        if not 0 < number < 100:
            raise OptionError(f"{option} {text!r}: a share lies above 0 % and below 100 %.\n{refusal}")
        return Bound(fraction=number / 100)
    if unit not in units:
        what = f"has no unit {unit!r} that is known" if unit else "has no unit"
        raise OptionError(f"{option} {text!r} {what}.\n{refusal}")
    if not number > 0:
        raise OptionError(f"{option} {text!r} is nothing.\n{refusal}")
    return Bound(value=number * units[unit])
