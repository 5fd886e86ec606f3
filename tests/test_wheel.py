"""The wheel: built from a copy of the sources, without network, and opened."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("ffd_continual", "scenarios", "replay", "strategies", "configs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel of a copy: setuptools writes build/ and egg-info beside its sources, and an old build/ would leak in."""
    copy, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("dist")
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def _text(wheel: zipfile.ZipFile, ending: str) -> str:
    (name,) = [name for name in wheel.namelist() if name.endswith(ending)]
    return wheel.read(name).decode()


def test_wheel_holds_every_source_file_in_its_place(wheel: zipfile.ZipFile) -> None:
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file()}
    files = {path for path in files if "__pycache__" not in path.parts}
    wanted = {(path if path.parts[0] == "ffd_continual" else "ffd_continual" / path).as_posix() for path in files}
    assert inside == wanted


def test_wheel_takes_one_top_level_name(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name} == {"ffd_continual"}


def test_wheel_metadata(wheel: zipfile.ZipFile) -> None:
    metadata = _text(wheel, ".dist-info/METADATA")
    version = re.search(r'__version__ = "(.+)"', (ROOT / "ffd_continual" / "__init__.py").read_text())
    assert version is not None
    assert f"\nVersion: {version[1]}\n" in metadata
    assert f"version: {version[1]}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{version[1]}]" in (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^License(-Expression)?: MIT$", metadata, re.M)
    assert re.search(r"^Requires-Python: .*>=3\.11", metadata, re.M)
    assert "MIT License" in _text(wheel, "/LICENSE")


def test_wheel_command_names_a_function_inside(wheel: zipfile.ZipFile) -> None:
    scripts = configparser.ConfigParser()
    scripts.read_string(_text(wheel, ".dist-info/entry_points.txt"))
    module, _, function = scripts["console_scripts"]["ffd"].partition(":")
    source = wheel.read(module.replace(".", "/") + ".py").decode()
    assert re.search(rf"^def {function}\(", source, re.M)
