"""The modules of a network, by the names that recipes use.

A module is one numbered stack of layers with the tensors around it (an encoder, a decoder, a vision
tower), or the tensors that belong to no stack. Modules are found from the tensors' names and are
named after them: `encoder`, `model.visual`. mergekit's names for an architecture's modules work
too: `text_decoder`, `vision_tower`, `multi_modal_projector`, `shared`, `default`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from evomerge.errors import RecipeError
from evomerge.sources import Stack, Structure

_LANGUAGE = ("text_decoder", "language_model")
_VISION = ("vision_tower", "vision_model")
_PROJECTOR = "multi_modal_projector"
_REST = ("shared", "default")

_IN_PROJECTOR = re.compile(r"(^|[._])(projector|merger|merger_list|connector)\.")
_IN_VISION = re.compile(r"(^|[._])(vision|visual|vit)([._]|$)")


@dataclass(frozen=True)
class Part:
    """Tensors of the leading model, in its order, and the stack among them, if there is one."""

    tensors: tuple[str, ...]
    stack: Stack | None


def is_vision(stack: Stack) -> bool:
    """Whether a stack is a vision tower, by its name."""
    return bool(_IN_VISION.search(stack.prefix))


def whole(structure: Structure) -> Part:
    """All tensors of a network as one part. stack: None where there are several stacks."""
    only = structure.stacks[0] if len(structure.stacks) == 1 else None
    return Part(tuple(structure.shapes), only)


def parts_named(names: Iterable[str], structure: Structure) -> dict[str, Part]:
    """Module name -> its tensors, every tensor in one module at most.

    Raises RecipeError for a name that no module has.
    """
    stacks = {name: _stack_named(name, structure) for name in names}
    found: dict[str, list[str]] = {name: [] for name in stacks}
    module_of = {stack.prefix: name for name, stack in stacks.items() if stack is not None}
    if len(module_of) < sum(stack is not None for stack in stacks.values()):
        raise RecipeError(f"modules: {', '.join(stacks)} name one part twice; name each once")
    rest = next((name for name in _REST if name in stacks and stacks[name] is None), None)
    if rest is None and any(map(is_vision, structure.stacks)):
        # The head and similar tensors belong to the language model where another stack is vision.
        rest = module_of.get(structure.stacks[0].prefix)
    for tensor in structure.shapes:
        stack = structure.stack_of(tensor)
        module: str | None
        if stack is None and _PROJECTOR in stacks and _IN_PROJECTOR.search(tensor):
            module = _PROJECTOR
        else:
            around = stack or _stack_around(tensor, structure)
            module = rest if around is None else module_of.get(around.prefix)
        if module is not None:
            found[module].append(tensor)
    return {name: Part(tuple(found[name]), stack) for name, stack in stacks.items()}


def _stack_named(name: str, structure: Structure) -> Stack | None:
    """The stack of a module; None for the module of the tensors outside all stacks."""
    stacks = structure.stacks
    if len(stacks) == 1 and (name == "default" or name in _names_of(stacks[0], structure)):
        return stacks[0]
    vision_stacks = [stack for stack in stacks if is_vision(stack)]
    if vision_stacks:
        if name == _PROJECTOR:
            return None
        if name in _VISION:
            return vision_stacks[0]
        if name in _LANGUAGE:
            return next(stack for stack in stacks if not is_vision(stack))
    named = [stack for stack in stacks if name in _names_of(stack, structure)]
    if len(named) == 1:
        return named[0]
    if name in _REST and len(stacks) > 1:
        return None
    known = [_names_of(stack, structure)[0] for stack in stacks]
    known += [_PROJECTOR] if vision_stacks else []
    raise RecipeError(
        f"modules: {name} is no module of this network; it has {', '.join([*known, *_REST[:1]])}"
    )


def _names_of(stack: Stack, structure: Structure) -> list[str]:
    """Paths that lead to this stack alone, shortest first, then their last parts."""
    parts = stack.prefix.rstrip(".").split(".")
    paths = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    others = [other.prefix for other in structure.stacks if other is not stack]
    own = [p for p in paths if not any(other.startswith(f"{p}.") for other in others)]
    return [*own, *(path.rpartition(".")[2] for path in own)]


def _stack_around(tensor: str, structure: Structure) -> Stack | None:
    """The stack nearest to a tensor outside the layers, by their paths; None if none is nearer."""
    common_to_all = _shared_parts(stack.prefix for stack in structure.stacks)
    if len(structure.stacks) == 1:
        return structure.stacks[0]
    shared = {stack: _shared_parts((tensor, stack.prefix)) for stack in structure.stacks}
    longest = max(shared.values())
    if longest <= common_to_all:
        return None
    return next(stack for stack in structure.stacks if shared[stack] == longest)


def _shared_parts(names: Iterable[str]) -> int:
    """How many leading parts dotted names have in common."""

    def columns() -> Iterator[tuple[str, ...]]:
        yield from zip(*(name.rstrip(".").split(".") for name in names), strict=False)

    count = 0
    for column in columns():
        if len(set(column)) > 1:
            break
        count += 1
    return count
