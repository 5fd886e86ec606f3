"""The layout's rules: packages on disk, imports one way, habits that are banned, versions that are pinned."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ORDER = ("scenarios", "replay", "strategies", "ffd_continual")  # a room imports itself and what stands left of it
ROOMS = (*ORDER, "configs")
#: Inside the platform: a file or package imports what stands left of it.
PLATFORM = (
    "load", "terminal", "stopping", "measuring", "config", "published", "protocols", "runs", "retesting", "reporting",
    "finish", "run", "comparing", "sweeping", "lineage", "detecting", "serving", "api", "cli", "commands",
)  # fmt: skip
LONGEST = 300
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:work|home|root|Users)/")
URL = re.compile(r"https?://(?!www\.w3\.org/)")  # an XML namespace is a name, not an address


def _config() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _sources(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _literal_start(node: ast.expr) -> str:
    """The text that a string or the beginning of an f-string is known to start with."""
    if isinstance(node, ast.JoinedStr) and node.values:
        return _literal_start(node.values[0])
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported, inside functions and through importlib too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = _dotted(node.func).rpartition(".")[2]
            if called in {"import_module", "__import__", "find_spec", "run_module"}:
                yield node.lineno, _literal_start(node.args[0])


def wrong_imports(source: str, room: str) -> list[str]:
    """What in this source breaks the one-way rule for a file of this room."""
    wrong = []
    for line, name in _imported(ast.parse(source)):
        parts = name.split(".")
        if parts[0] == "":
            if name.startswith("."):
                wrong.append(f"{line}: relative import {name}")
            continue
        if parts[0] in ROOMS and parts[0] != "ffd_continual":
            wrong.append(f"{line}: bare import of {name}: it is installed as ffd_continual.{name}")
            continue
        if parts[0] != "ffd_continual" or parts[1:] == ["__version__"] or room == "ffd_continual":
            continue
        target = parts[1] if len(parts) > 1 and parts[1] in ROOMS else "ffd_continual"
        if room not in ORDER or target not in ORDER or ORDER.index(target) > ORDER.index(room):
            wrong.append(f"{line}: {room} imports {name}, which is not to its left")
    return wrong


def wrong_in_the_platform(source: str, part: str) -> list[str]:
    """What in this source breaks the platform's own order for a file of this part of it."""
    wrong = []
    for line, name in _imported(ast.parse(source)):
        target = name.split(".")[1] if name.startswith("ffd_continual.") else ""
        late = target in PLATFORM and PLATFORM.index(target) > PLATFORM.index(part)
        if late and (part, target) != ("cli", "commands"):  # the command line finds its commands by name
            wrong.append(f"{line}: {part} imports {name}, which is not to its left")
    return wrong


def banned(source: str) -> list[str]:
    """What in this source is never done here: code from data, hidden errors, stubs, state at module level."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    # The card of a data set names the page where its terms are accepted; nothing opens it.
    cards = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _dotted(node.func) == "About"]
    told = docstrings | {id(part) for card in cards for part in ast.walk(card)}
    found = []
    for node in ast.walk(tree):
        what = ""
        if isinstance(node, ast.Call):
            called, options = _dotted(node.func), {word.arg: word.value for word in node.keywords}
            safe = options.get("weights_only")
            allowed = options.get("allow_pickle")
            if called == "torch.load" and not (isinstance(safe, ast.Constant) and safe.value is True):
                what = "torch.load without weights_only=True"
            elif called in {"eval", "exec"}:
                what = called
            elif allowed is not None and not (isinstance(allowed, ast.Constant) and allowed.value is False):
                what = "allow_pickle"
            elif called in {"np.random.seed", "numpy.random.seed", "random.seed"}:
                what = "global seed"
        elif isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or _dotted(kind) in {"Exception", "BaseException"} for kind in caught):
                what = "except that hides any error"
        elif isinstance(node, ast.Global):
            what = "global"
        elif isinstance(node, ast.Name) and node.id == "NotImplementedError":
            what = "stub (NotImplementedError)"
        elif isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            what = "import *"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            what = "address in code" if URL.search(node.value) else ""
        if what:
            found.append(f"{getattr(node, 'lineno', 0)}: {what}")
    for line, name in _imported(tree):
        if name.split(".")[0] in UNSAFE_MODULES:
            found.append(f"{line}: {name}")
    for statement in tree.body:
        value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
        empty = (
            isinstance(value, ast.List | ast.Set) and not value.elts or isinstance(value, ast.Dict) and not value.keys
        )
        made = isinstance(value, ast.Call) and _dotted(value.func).rpartition(".")[2] in {
            "dict", "list", "set", "defaultdict", "deque", "OrderedDict", "Counter"
        }  # fmt: skip
        if empty or made:
            found.append(f"{statement.lineno}: module-level state")
    return found


def test_setup_cfg_lists_the_packages_on_disk() -> None:
    options = _config()["options"]
    folders = {path.parent.relative_to(ROOT).as_posix() for path in _sources(*ROOMS) if path.name == "__init__.py"}
    names = {folder if folder.startswith("ffd_continual") else f"ffd_continual/{folder}": folder for folder in folders}
    on_disk = {name.replace("/", "."): folder for name, folder in names.items()}
    mapped = {
        name.strip(): folder.strip() for name, _, folder in (x.partition("=") for x in _lines(options["package_dir"]))
    }
    assert mapped == on_disk
    packages = _lines(options["packages"])
    assert sorted(packages) == sorted(set(packages)) == sorted(on_disk)


def test_a_folder_with_modules_is_a_package() -> None:
    bare = {_name(path.parent) for path in _sources(*ROOMS) if not (path.parent / "__init__.py").exists()}
    assert not bare, f"modules in folders without __init__.py never reach the wheel: {sorted(bare)}"


def test_tests_are_no_packages_and_have_names_of_their_own() -> None:
    paths = _sources("tests")
    assert not [_name(path) for path in paths if path.name == "__init__.py"]
    names = [path.name for path in paths if path.name != "conftest.py"]
    assert len(names) == len(set(names)), f"names used twice: {sorted(n for n in set(names) if names.count(n) > 1)}"


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room: str) -> None:
    wrong = [f"{_name(path)}:{what}" for path in _sources(room) for what in wrong_imports(path.read_text(), room)]
    assert not wrong, "\n".join(wrong)


def test_imports_inside_the_platform_go_one_way() -> None:
    wrong, parts = [], set()
    for path in _sources("ffd_continual"):
        part = path.relative_to(ROOT / "ffd_continual").parts[0].removesuffix(".py")
        if part != "__init__":
            parts.add(part)
            wrong += [f"{_name(path)}:{what}" for what in wrong_in_the_platform(path.read_text(), part)]
    assert parts == set(PLATFORM)
    assert not wrong, "\n".join(wrong)


def test_a_wrong_import_inside_the_platform_is_noticed() -> None:
    assert wrong_in_the_platform("from ffd_continual.reporting.report import x", "runs")
    assert wrong_in_the_platform("def f():\n    from ffd_continual import api", "detecting")
    assert not wrong_in_the_platform("from ffd_continual.runs.folder import x\nimport torch", "reporting")
    assert not wrong_in_the_platform("from ffd_continual.scenarios.faces import Face", "load")


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("scenarios", "from ffd_continual.replay.queue import Queue"),
        ("scenarios", "def f():\n    import ffd_continual.replay"),
        ("replay", "from ffd_continual import strategies"),
        ("replay", "import importlib\nimportlib.import_module(f'ffd_continual.strategies.{x}')"),
        ("strategies", "from ffd_continual.measuring.metrics import auc"),
        ("strategies", "import replay.queue"),
        ("ffd_continual", "from . import metrics"),
        ("ffd_continual", "from scenarios import faces"),
        ("configs", "import ffd_continual.scenarios"),
    ],
)  # fmt: skip
def test_a_wrong_import_is_noticed(room: str, source: str) -> None:
    assert len(wrong_imports(source, room)) == 1


def test_right_imports_pass() -> None:
    source = "import torch\nfrom ffd_continual import __version__\nfrom ffd_continual.scenarios.faces import Face\n"
    assert not wrong_imports(source, "replay")
    assert not wrong_imports(source + "import ffd_continual.reporting.report\n", "ffd_continual")


def test_the_platform_package_itself_imports_nothing() -> None:
    tree = ast.parse((ROOT / "ffd_continual" / "__init__.py").read_text())
    assert not list(_imported(tree))
    assert [_dotted(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)] == ["__version__"]


def test_no_file_is_longer_than_one_can_read() -> None:
    lengths = {_name(path): len(path.read_text().splitlines()) for path in _sources(*ROOMS)}
    assert lengths
    assert not {name: n for name, n in lengths.items() if n > LONGEST}


def test_nothing_banned_in_the_rooms() -> None:
    found = [f"{_name(path)}:{what}" for path in _sources(*ROOMS) for what in banned(path.read_text())]
    assert not found, "\n".join(found)
    assert not [_name(path) for path in _sources(*ROOMS) if path.name in {"utils.py", "helpers.py", "misc.py"}]


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(p)",
        "torch.load(p, weights_only=False)",
        "import pickle",
        "def f():\n    from joblib import load",
        "np.load(p, allow_pickle=True)",
        "eval(text)",
        "try:\n    f()\nexcept:\n    pass",
        "try:\n    f()\nexcept (ValueError, Exception):\n    pass",
        "def f():\n    raise NotImplementedError",
        "from os import *",
        "cache = {}",
        "seen: list[int] = list()",
        "np.random.seed(0)",
        "weights = 'https://example.org/weights.pth'",
    ],
)
def test_a_banned_habit_is_noticed(source: str) -> None:
    assert len(banned(source)) == 1


def test_what_is_allowed_passes() -> None:
    assert not banned(
        '"""After https://arxiv.org/abs/1."""\nNAMES = {"a": 1}\ntorch.load(p, weights_only=True)\n'
        "try:\n    f()\nexcept (OSError, ValueError):\n    seen = {}\nmodel.eval()\n"
    )


def test_no_path_of_one_machine() -> None:
    paths = [*_sources(*ROOMS), *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("configs/*.yaml")]
    found = [_name(path) for path in paths if MACHINE_PATH.search(path.read_text(encoding="utf-8"))]
    assert not found
    assert MACHINE_PATH.search("open('/home/me/x')")


def _asserts(test: ast.AST) -> bool:
    for node in ast.walk(test):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = _dotted(node.func).rpartition(".")[2].lstrip("_")
            if called in {"raises", "warns", "fail"} or called.startswith(("assert", "check", "expect")):
                return True
    return False


def test_every_test_asserts() -> None:
    tests = [
        (f"{_name(path)}:{node.lineno} {node.name}", node)
        for path in _sources("tests")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and path.name.startswith("test_")
    ]
    assert tests
    assert not [where for where, node in tests if not _asserts(node)]


def test_constraints_pin_everything_that_setup_cfg_asks_for() -> None:
    config = _config()
    extras = [line for lines in config["options.extras_require"].values() for line in _lines(lines)]
    asked = [*_lines(config["options"]["install_requires"]), *extras]
    pins: dict[str, list[Requirement]] = {}
    for line in _lines((ROOT / "constraints.txt").read_text()):
        if not line.startswith("#"):
            pin = Requirement(line)
            assert [part.operator for part in pin.specifier] == ["=="], line
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    for need in map(Requirement, asked):
        assert canonicalize_name(need.name) in pins, f"{need.name} is not pinned"
        for pin in pins[canonicalize_name(need.name)]:
            assert next(iter(pin.specifier)).version in need.specifier, f"{pin} is outside setup.cfg's {need}"
