"""Finding a learner or a strategy by the name of its file, or a user's own by `package.module:Class`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
from typing import Any, TypeVar

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Learner
from ffd_continual.strategies.strategy import Strategy

Base = TypeVar("Base", bound=type)

#: Where methods lie. A file that defines one subclass of the base with a `config_type` is one; others hold parts.
_PACKAGES: dict[type, str] = {Learner: "ffd_continual.strategies.learners", Strategy: "ffd_continual.strategies"}


def _exported(module: Any, base: type) -> list[type]:
    """The base's subclasses that a module defines itself, with settings of their own: shared bases have none."""
    classes = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__]
    return [c for c in classes if issubclass(c, base) and c is not base and "config_type" in vars(c)]


def known_methods(base: type) -> dict[str, type]:
    """All methods of the package by name: its files that define exactly one subclass of `base`."""
    package = importlib.import_module(_PACKAGES[base])
    found: dict[str, type] = {}
    for info in pkgutil.iter_modules(package.__path__):
        if not info.ispkg:
            classes = _exported(importlib.import_module(f"{_PACKAGES[base]}.{info.name}"), base)
            if len(classes) == 1:
                found[info.name] = classes[0]
    return found


def _load(name: str, base: type, word: str) -> type:
    if ":" in name:
        module_name, _, class_name = name.partition(":")
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise FFDError(
                f"{word} {name!r}: {module_name!r} cannot be imported ({error}). Install its package, or put the "
                "folder that holds it on PYTHONPATH: PYTHONPATH=. ffd ..."
            ) from error
        cls = getattr(module, class_name, None)
        if not (isinstance(cls, type) and issubclass(cls, base) and hasattr(cls, "config_type")):
            raise FFDError(f"{word} {name!r}: {class_name} must be a subclass of {base.__name__} with a config_type.")
        return cls
    full = f"{_PACKAGES[base]}.{name}"
    if name.isidentifier() and importlib.util.find_spec(full) is not None:
        classes = _exported(importlib.import_module(full), base)
        if len(classes) == 1:
            return classes[0]
    known = known_methods(base)
    near = difflib.get_close_matches(name, known, 1, 0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise FFDError(f"no {word} is named {name!r}.{hint} Known: {', '.join(known)}; your own: package.module:Class.")


def learner_class(name: str) -> type[Learner]:
    """The Learner subclass that `learner.name` selects. Raises FFDError naming the nearest known one."""
    return _load(name, Learner, "learner")


def strategy_class(name: str) -> type[Strategy]:
    """The Strategy subclass that `strategy.name` selects. Raises FFDError naming the nearest known one."""
    return _load(name, Strategy, "strategy")
