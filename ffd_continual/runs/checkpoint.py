"""Checkpoints: a folder of one safetensors file and one JSON, written beside its place and renamed into it.

A folder that bears its final name is whole: its files were synced to disk before the rename. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ffd_continual.scenarios.errors import FFDError, is_full

FORMAT = 1
TENSORS, META = "tensors.safetensors", "meta.json"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by dotted name, and JSON-able values."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's own entries, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `folder` so that a kill at any moment leaves either the old state or the new one, never half of one."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        # Clones, since safetensors refuses tensors that share memory (views of one buffer).
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in checkpoint.tensors.items()}, part / TENSORS)
        (part / META).write_text(json.dumps({"format": FORMAT, **checkpoint.meta}, indent=1), encoding="utf-8")
        sync(part / TENSORS)
        sync(part / META)
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        sync(folder.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        cause = "the disk is full" if is_full(error) else str(error)
        run = next((parent.parent for parent in folder.parents if parent.name == "checkpoints"), folder.parent)
        raise FFDError(
            f"cannot write the checkpoint {folder}: {cause}. Everything up to the one before is kept; make room, then "
            f"`ffd resume {run}`."
        ) from error


def broken(folder: Path, cause: object) -> FFDError:
    """What to say of a checkpoint that cannot be used."""
    version = next((path for path in folder.parents if path.parent.name == "versions"), None)
    if version is not None and (version.parent.parent / "lineage.json").is_file():
        return FFDError(
            f"{folder} is not a whole checkpoint ({cause}): version {version.name.lstrip('0')} is damaged. Restore "
            f"that folder from a copy, or put another version into use: `ffd rollback {version.parent.parent} N`."
        )
    return FFDError(
        f"{folder} is not a whole checkpoint ({cause}). Delete that folder and `ffd resume` again: "
        "the run goes on from the one before."
    )


def read_meta(folder: Path) -> dict[str, Any]:
    """A checkpoint's JSON alone. Raises FFDError as `load_checkpoint`."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise broken(folder, error) from error
    if not isinstance(meta, dict):
        raise broken(folder, f"{META} holds no mapping")
    found = meta.pop("format", None)
    if found != FORMAT:
        raise FFDError(
            f"{folder} is a checkpoint of format {found}, this version reads format {FORMAT}. "
            "Use the version that wrote it (environment.json names it), or start a new run."
        )
    return meta


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint. Raises FFDError when it is of another format, cut short, or not one."""
    meta = read_meta(folder)
    try:
        with safe_open(folder / TENSORS, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, ValueError, SafetensorError) as error:
        raise broken(folder, error) from error
    return Checkpoint(tensors, meta)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[int, str]) -> dict[str, Tensor]:
    """An optimizer's state by parameter name: "<parameter>/<entry>"; `names` maps id(parameter) to its name."""
    return {
        f"{names[id(parameter)]}/{entry}": value
        for parameter, state in optimizer.state.items()
        for entry, value in state.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(optimizer: torch.optim.Optimizer, names: dict[int, str], tensors: dict[str, Tensor]) -> None:
    """Take back what `optimizer_tensors` gave; parameters without an entry start afresh, as they did then."""
    by_parameter: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        parameter, _, entry = key.rpartition("/")
        by_parameter.setdefault(parameter, {})[entry] = value
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = by_parameter.get(names[id(parameter)])
            if state is not None:
                optimizer.state[parameter] = {
                    entry: value if entry == "step" else value.to(parameter.device) for entry, value in state.items()
                }
