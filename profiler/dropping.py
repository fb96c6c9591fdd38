"""Take whole parameters out of a model, and with them the modules that were made of these."""

from collections import defaultdict
from collections.abc import Collection
from typing import Any

from torch import nn

from lut.errors import LatpruneError
from profiler.program_module import ProgramModule


def owners_of(model: nn.Module) -> dict[str, list[tuple[nn.Module, str, str]]]:
    """Every place where a parameter or buffer hangs: its module, name there and path, by the name that the trace uses.

    Tied parameters hang in several places.
    """
    first: dict[int, str] = {}
    found: dict[str, list[tuple[nn.Module, str, str]]] = defaultdict(list)
    for path, module in model.named_modules(remove_duplicate=True):
        for kind in (module._parameters, module._buffers):
            for leaf, tensor in kind.items():
                if tensor is not None:
                    name = first.setdefault(id(tensor), f"{path}.{leaf}" if path else leaf)
                    found[name].append((module, leaf, path))
    return found


class Removed(nn.Module):
    """Stands where a module was whose parameters are gone; keeps the module's public attributes and what is below."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for name, value in vars(module).items():
            if not name.startswith("_") and name not in vars(self):
                setattr(self, name, value)
        self._modules = dict(module._modules)
        self.training = module.training
        self.kind = type(module).__name__

    def extra_repr(self) -> str:
        """How the module shows itself."""
        return self.kind

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        """There is nothing to run.

        Raises:
            LatpruneError: always.
        """
        raise LatpruneError(f"This {self.kind} is gone: it was in the branch of a residual block that was removed.")


def drop_tensors(model: nn.Module, names: Collection[str]) -> nn.Module:
    """Take parameters and buffers out of a model, in place; gives back the model.

    A module that has none of its own left stays as a name with its plain attributes, which code around it may ask for.

    Raises:
        LatpruneError: the model has no such parameter.
    """
    owners = owners_of(model)
    emptied: dict[int, nn.Module] = {}
    for name in names:
        if name not in owners:
            raise LatpruneError(f"The network has no parameter {name!r}: its blocks belong to another network.")
        for module, leaf, _ in owners[name]:
            (module._parameters if leaf in module._parameters else module._buffers)[leaf] = None
            emptied[id(module)] = module
    removed = {
        number: Removed(module)
        for number, module in emptied.items()
        if not isinstance(module, ProgramModule)
        and all(tensor is None for tensor in [*module._parameters.values(), *module._buffers.values()])
    }
    for module in [*model.modules(), *removed.values()]:
        for leaf, child in module._modules.items():
            module._modules[leaf] = removed.get(id(child), child)
    return model
