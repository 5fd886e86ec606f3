"""What a forgery family is: a class that changes one face, found by the name of its file."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

import ffd_continual.scenarios.forging as package
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Face, Picture


@dataclass(frozen=True)
class Forged:
    """A forged crop and its mask: 255 wherever the forgery may have changed a pixel, 0 where it certainly did not.

    `source_identity` is the person whose face, or part of it, was put in; "" when nobody's was.
    """

    image: Picture
    mask: Picture
    source_identity: str = ""


@runtime_checkable
class Family(Protocol):
    """One kind of forgery. `forge` returns None where this face does not allow it (nobody fits, mouth hidden)."""

    @property
    def name(self) -> str:
        """Name in manifests, plots and configs."""

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        """Forge `target`; the people of `others` may lend their faces. A pure function of its arguments."""


@runtime_checkable
class Fitted(Protocol):
    """A family that first learns from faces; only faces of the train split may be shown to it."""

    def fit(self, faces: Sequence[Face], rng: np.random.Generator) -> None:
        """Train on these faces; the weights are a function of the faces and the generator."""


FAMILIES: tuple[str, ...] = (
    "swap",
    "resynthesis",
    "warp",
    "upsampling",
    "selfblend",
    "morph",
    "inpaint",
    "parts",
    "reshape",
    "relight",
    "retouch",
    "eigenface",
    "superres",
    "fill",
)


def load_family(name: str) -> Family:
    """The family of that name with its default settings, or a user's own given as "package.module:Class".

    A family `swap` is the class `Swap` of `scenarios/forging/swap.py`. Raises FFDError with the nearest known name.
    """
    if ":" in name:
        module_name, class_name = name.split(":", 1)
    else:
        modules = [info.name for info in pkgutil.iter_modules(package.__path__)]
        if name not in modules or name not in FAMILIES:
            near = difflib.get_close_matches(name, FAMILIES, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise FFDError(f"no forgery family is called {name!r}{hint}; known are {', '.join(FAMILIES)}")
        module_name, class_name = f"{package.__name__}.{name}", name.capitalize()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise FFDError(f"forgery family {name!r}: there is no module {module_name}") from error
        raise
    if not hasattr(module, class_name):
        raise FFDError(f"forgery family {name!r}: module {module_name} has no class {class_name}")
    made = cast(Any, getattr(module, class_name))()
    if not isinstance(made, Family):
        raise FFDError(f"forgery family {name!r}: {class_name} needs a `name` and a method `forge`")
    return made
