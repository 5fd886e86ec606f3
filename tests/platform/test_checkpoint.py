"""Checkpoints: whole or not there, and what is loaded is what was saved."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import ffd_continual.runs.checkpoint as module
from ffd_continual.config import CheckpointConfig
from ffd_continual.runs.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
)
from ffd_continual.runs.saving import SafePoints, checked, latest_safe_point
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.stopping import Stopping


def _checkpoint(value: float = 1.0) -> Checkpoint:
    base = torch.full((4, 3), value)
    return Checkpoint({"a": base, "b": base[1:], "n": torch.tensor(3), "none": torch.zeros(0, 5)}, {"growth": ["x"]})


def test_round_trip(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "runs" / "one", _checkpoint())
    found = load_checkpoint(tmp_path / "runs" / "one")
    assert found.meta == {"growth": ["x"]}
    for name, tensor in _checkpoint().tensors.items():
        assert torch.equal(found.tensors[name], tensor), name
        assert found.tensors[name].dtype == tensor.dtype
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["one"]
    save_checkpoint(tmp_path / "runs" / "one", _checkpoint(2.0))  # over the old one
    assert float(load_checkpoint(tmp_path / "runs" / "one").tensors["a"][0, 0]) == 2.0
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["one"]


def test_a_half_written_folder_of_a_killed_run_is_ignored(tmp_path: Path) -> None:
    part = tmp_path / "e000_s0000004.part"
    part.mkdir()
    (part / "tensors.safetensors").write_bytes(b"half")
    save_checkpoint(tmp_path / "e000_s0000002", _checkpoint())
    assert latest_safe_point(tmp_path, 0) == tmp_path / "e000_s0000002"
    assert latest_safe_point(tmp_path, 1) is None
    save_checkpoint(tmp_path / "e000_s0000004", _checkpoint(5.0))
    assert latest_safe_point(tmp_path, 0) == tmp_path / "e000_s0000004"
    assert not part.exists()
    points = SafePoints(tmp_path, CheckpointConfig(), 1, True, float, Stopping())
    with pytest.raises(FFDError, match="no entry 'position'"):
        points.find(0)
    meta = {"position": [0, 4], "growth": ["x"], "strategy": {}}
    save_checkpoint(tmp_path / "e000_s0000004", Checkpoint(_checkpoint(5.0).tensors, meta))
    found = points.find(0)
    assert found is not None
    assert float(found[1].tensors["a"][0, 0]) == 5.0
    assert SafePoints(tmp_path, CheckpointConfig(), 1, False, float, Stopping()).find(0) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position", None), ("position", 3), ("position", [1]), ("position", [1, "2"]), ("position", [0, -1]),
        ("growth", None), ("growth", "alpha"), ("growth", [1]), ("strategy", None), ("strategy", []),
    ],
)  # fmt: skip
def test_meta_without_an_entry_or_with_a_wrong_one(tmp_path: Path, key: str, value: object) -> None:
    meta = {"position": [0, 4], "growth": ["x"], "strategy": {}}
    good = Checkpoint({}, meta)
    assert checked(good, tmp_path) is good
    broken = Checkpoint({}, {k: v for k, v in meta.items() if k != key} if value is None else {**meta, key: value})
    with pytest.raises(FFDError, match="not a whole checkpoint") as caught:
        checked(broken, tmp_path / "e000_s0000004")
    for word in (f"{key}", "meta.json", "e000_s0000004", "Delete that folder"):
        assert word in str(caught.value)


@pytest.mark.parametrize("keep", [0, 7, 60, -1])
def test_tensors_cut_short(tmp_path: Path, keep: int) -> None:
    save_checkpoint(tmp_path / "one", _checkpoint())
    file = tmp_path / "one" / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(FFDError, match="not a whole checkpoint") as caught:
        load_checkpoint(tmp_path / "one")
    assert str(tmp_path / "one") in str(caught.value)
    assert "ffd resume" in str(caught.value)


def test_other_damage(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "one", _checkpoint())
    meta = tmp_path / "one" / "meta.json"
    text = meta.read_text()
    for damaged in (text[:10], "", "\x00", "[1, 2]", "3"):
        meta.write_text(damaged)
        with pytest.raises(FFDError, match="not a whole checkpoint"):
            load_checkpoint(tmp_path / "one")
    meta.write_bytes(b"\xff\xfe")
    with pytest.raises(FFDError, match="not a whole checkpoint"):
        load_checkpoint(tmp_path / "one")
    meta.write_text(json.dumps({**json.loads(text), "format": 99}))
    with pytest.raises(FFDError, match="format 99, this version reads format 1"):
        load_checkpoint(tmp_path / "one")
    meta.unlink()
    with pytest.raises(FFDError, match="not a whole checkpoint"):
        load_checkpoint(tmp_path / "one")
    with pytest.raises(FFDError, match="not a whole checkpoint"):
        load_checkpoint(tmp_path / "nowhere")


def test_a_full_disk_keeps_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "one", _checkpoint())

    def full(tensors: Any, path: Path) -> None:
        path.write_bytes(b"some of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    for name in ("one", "two"):
        with pytest.raises(FFDError, match="the disk is full") as caught:
            save_checkpoint(tmp_path / name, _checkpoint(2.0))
        assert "make room" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["one"]
    assert float(load_checkpoint(tmp_path / "one").tensors["a"][0, 0]) == 1.0


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FFDError, match="cannot write the checkpoint"):
        save_checkpoint(tmp_path / "file" / "one", _checkpoint())


def _network() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    return network, torch.optim.AdamW(network.parameters(), lr=0.1)


def _step(network: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    optimizer.zero_grad()
    network(torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
    optimizer.step()


def _names(network: torch.nn.Module) -> dict[int, str]:
    return {id(p): n for n, p in network.named_parameters()}


def test_an_optimizer_goes_on_bit_for_bit_by_name(tmp_path: Path) -> None:
    network, optimizer = _network()
    for seed in range(3):
        _step(network, optimizer, seed)
    moments = optimizer_tensors(optimizer, _names(network))
    assert {"0.weight/exp_avg", "0.weight/exp_avg_sq", "2.bias/step"} <= moments.keys()
    save_checkpoint(tmp_path / "one", Checkpoint(moments, {}))
    weights = {k: v.clone() for k, v in network.state_dict().items()}
    _step(network, optimizer, 9)

    other, _ = _network()
    other.load_state_dict(weights)
    # groups in another order: names decide, not places
    fresh = torch.optim.AdamW(list(other.parameters())[::-1], lr=0.1)
    load_optimizer(fresh, _names(other), load_checkpoint(tmp_path / "one").tensors)
    _step(other, fresh, 9)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))

    forgetful, _ = _network()
    forgetful.load_state_dict(weights)
    _step(forgetful, torch.optim.AdamW(forgetful.parameters(), lr=0.1), 9)
    assert not all(torch.equal(a, b) for a, b in zip(network.parameters(), forgetful.parameters(), strict=True))
