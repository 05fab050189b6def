"""The modules of a model as PEFT sees them: their names, and which take LoRA factors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn
from transformers.pytorch_utils import Conv1D

from evomerge.errors import RecipeError
from evomerge.sources import UnbuildableModelError, UnknownModelError, meta_model, short

Kind = Literal["linear", "embedding", "bias", "whole"]
"""What an adapter can hold of a parameter: factors (two kinds), a bias, or the whole module."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a stored tensor is in the live model.

    parameter: its name there. module: the name of its module. kind: None where an adapter cannot
    hold it; problem then says why. transposed: whether the module stores (in, out). shared: the
    module's names with the same weight, if the model ties it.
    """

    parameter: str
    module: str
    kind: Kind | None
    problem: str = ""
    transposed: bool = False
    shared: tuple[str, ...] = ()

    @property
    def low_rank(self) -> bool:
        """Whether LoRA factors can change it."""
        return self.kind in ("linear", "embedding")


class PeftModules:
    """The modules of a base model."""

    def __init__(self, config: Mapping[str, Any], *, code: Path | None) -> None:
        """code: a folder whose modelling code may run. Raises RecipeError."""
        try:
            self._meta = meta_model(config, code=code)
        except (UnknownModelError, UnbuildableModelError) as error:
            raise RecipeError(
                f"--as-adapter: the names of the base's modules are not known ({short(error)}); "
                "export a checkpoint"
            ) from error
        self._modules: dict[str, nn.Module] = dict(self._meta.module.named_modules())
        self._tied = {*self._meta.tied, *self._meta.tied.values()}

    def place(self, stored: str) -> Place:
        """The place of a stored tensor of the base."""
        renaming = self._meta.rename(stored)
        parameter = renaming.name
        module, _, leaf = parameter.rpartition(".")
        found = self._modules.get(module)
        if renaming.joined or not renaming.taken or found is None:
            problem = "transformers joins it with other tensors, and LoRA changes whole modules"
            return Place(parameter=parameter, module=module, kind=None, problem=problem)
        if parameter in self._tied:
            return self._tied_place(parameter)
        if leaf == "weight" and isinstance(found, nn.Linear | Conv1D):
            transposed = isinstance(found, Conv1D)
            return Place(parameter=parameter, module=module, kind="linear", transposed=transposed)
        if leaf == "weight" and _looks_up(found):
            return Place(parameter=parameter, module=module, kind="embedding", transposed=True)
        if leaf == "bias" and isinstance(found, nn.Linear | Conv1D):
            return Place(parameter=parameter, module=module, kind="bias")
        if next(found.children(), None) is not None:
            owner = module or "the model"
            problem = f"it belongs to {owner} itself, which has other modules inside"
            return Place(parameter=parameter, module=module, kind=None, problem=problem)
        return Place(parameter=parameter, module=module, kind="whole")

    def _tied_place(self, parameter: str) -> Place:
        """A weight that modules share; PEFT merges factors of it twice, so it is stored whole."""
        group = sorted(
            {parameter, *(a for pair in self._meta.tied.items() if parameter in pair for a in pair)}
        )
        modules = tuple(name.rpartition(".")[0] for name in group)
        embeddings = [name for name in modules if isinstance(self._modules[name], nn.Embedding)]
        if len(group) > 2 or not embeddings:
            problem = f"it is shared by {', '.join(modules)}"
            return Place(parameter=parameter, module=modules[0], kind=None, problem=problem)
        return Place(
            parameter=f"{embeddings[0]}.weight",
            module=embeddings[0],
            kind="whole",
            shared=tuple(name for name in modules if name != embeddings[0]),
        )

    def tensors_of(self, module: str) -> tuple[str, ...]:
        """The names, in a module, of all that it stores."""
        return tuple(self._modules[module].state_dict())

    def named_alike(self, modules: Iterable[str]) -> tuple[str, ...]:
        """Modules and all others that PEFT saves with them: their names end in the same letters.

        `norm` at the top of a model without a head also means each `input_layernorm`.
        """
        wanted = tuple(dict.fromkeys(modules))
        return tuple(
            dict.fromkeys((*wanted, *(name for name in self._modules if name.endswith(wanted))))
        )

    def shortest(self, modules: Iterable[str]) -> list[str]:
        """Names for PEFT: the last part alone where all modules that end with it are meant."""
        wanted = set(modules)
        names = set()
        for module in wanted:
            leaf = module.rpartition(".")[2]
            alike = {name for name in self._modules if name.rpartition(".")[2] == leaf}
            names.add(leaf if alike <= wanted and not leaf.isdecimal() else module)
        return sorted(names)


def _looks_up(module: nn.Module) -> bool:
    """Whether a module gives the rows of its tokens, scaled at most, as PEFT assumes.

    Positions of OPT and BART have numbers of their own for their rows.
    """
    plain = type(module).forward is nn.Embedding.forward
    return isinstance(module, nn.Embedding) and (plain or hasattr(module, "embed_scale"))
