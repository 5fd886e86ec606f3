from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from ffd_continual.config import config_from
from ffd_continual.detecting.opened import Opened, open_detector
from ffd_continual.reporting import plots
from ffd_continual.run import start
from ffd_continual.scenarios.studio.portrait import render_portrait


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    """Runs set torch's threads and determinism for their process: other tests shall not notice."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


class _Unrendered(Figure):
    """A chart that is drawn as ever and saved as one pixel: rendering takes matplotlib a second a report."""

    def savefig(self, fname: str | PathLike[Any] | IO[Any], **settings: Any) -> None:
        Image.new("RGB", (1, 1)).save(fname)


@pytest.fixture(autouse=True, scope="session")
def _charts_are_not_rendered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "Figure", _Unrendered)
        yield


@pytest.fixture(scope="session")
def rendered() -> Callable[[], AbstractContextManager[None]]:
    """`with rendered():` charts come out as a user gets them."""

    @contextmanager
    def within() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plots, "Figure", Figure)
            yield

    return within


@pytest.fixture(autouse=True, scope="module")
def _but_where_they_are_tested(
    request: pytest.FixtureRequest, rendered: Callable[[], AbstractContextManager[None]]
) -> Iterator[None]:
    with rendered() if request.module.__name__.endswith("test_report") else nullcontext():
        yield


@pytest.fixture
def small_config(tiny_config: dict[str, Any]) -> dict[str, Any]:
    """The plain learner on the tiny faces: the quickest run there is."""
    trunk = {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 2}
    scenario = {**tiny_config["scenario"], "size": 32, "order": ["alpha"], "unseen": []}
    evaluation = {"bootstrap": 0, "samples": 1, "controls": False}
    train = {**tiny_config["train"], "steps": 2, "batch": 8}
    method = {"learner": {"name": "plain", "trunk": trunk}, "strategy": {"name": "naive"}}
    return {"name": "small", "scenario": scenario, "train": train, "evaluation": evaluation, **method}


@pytest.fixture(scope="session")
def iin_run(tmp_path_factory: pytest.TempPathFactory, tiny_faces: Path) -> Path:
    """IIN on two tiny forgeries, four steps each; its data lie beside it, in data/."""
    folder = tmp_path_factory.mktemp("predict")
    shutil.copytree(tiny_faces.parent, folder / "data")
    manifest = folder / "data" / "manifest.csv"
    trunk = {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 4}
    config = {
        "name": "tiny",
        "scenario": {"data": str(manifest), "order": ["alpha", "beta"], "unseen": ["gamma"], "size": 48},
        "learner": {"name": "iin", "trunk": trunk, "local": 16, "queue": 64},
        "strategy": {"name": "iin", "exemplars": 8},
        "train": {"steps": 4, "batch": 12, "threads": 1, "eval_batch": 16, "device": "cpu"},
        "evaluation": {"bootstrap": 0, "samples": 0, "controls": False},
    }  # fmt: skip
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ffd_continual.finish.write_report", lambda folder, **_: folder)
        start(config_from(config), folder / "run")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    return folder / "run"


@pytest.fixture(scope="session")
def iin_detector(iin_run: Path) -> Opened:
    return open_detector(iin_run)


@pytest.fixture(scope="session")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rendered persons side by side on grey."""
    path = tmp_path_factory.mktemp("portrait") / "two.png"
    wide = np.full((300, 640, 3), 128, np.uint8)
    for person, side in ((3, 280), (4, 180)):
        face = render_portrait(person, 0, side).image
        left = 20 if person == 3 else 400
        wide[10 : 10 + side, left : left + side] = face
    Image.fromarray(wide).save(path)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_faces: Path) -> Path:
    """A run of two experiences and an unseen forgery on the tiny faces, of whose people sex and age are known."""
    torch.set_num_threads(1)
    table = pd.read_csv(tiny_faces, dtype=str).fillna("")
    number = table["identity"].str[1:].astype(int)
    manifest = tiny_faces.with_name("grouped.csv")
    table.assign(sex=["fm"[n % 2] for n in number], age=[str(20 + 2 * n) for n in number]).to_csv(manifest, index=False)
    trunk = {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 2}
    values = {
        "name": "tiny",
        "scenario": {"data": str(manifest), "order": ["alpha", "beta"], "unseen": ["gamma"], "size": 48},
        "learner": {"name": "plain", "trunk": trunk},
        "strategy": {"name": "naive"},
        "train": {"steps": 12, "batch": 12, "threads": 1, "eval_batch": 32, "device": "cpu", "lr": 0.003},
        "evaluation": {"bootstrap": 20, "samples": 1, "controls": False},
    }
    path = tmp_path_factory.mktemp("finished") / "run"
    start(config_from(values), path)
    return path
