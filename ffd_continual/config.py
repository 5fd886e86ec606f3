"""Configurations: YAML fills frozen dataclasses that stand beside the code they configure; nothing else is accepted.

An unknown key is an error that names the nearest known one. `name:` selects a learner or a strategy by its file; its
other keys fill that file's own dataclass.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import math
import operator
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml

from ffd_continual.load import learner_class, strategy_class
from ffd_continual.measuring.video_level import VideoRule
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.perturb import RobustnessConfig, chosen
from ffd_continual.scenarios.streams import ScenarioConfig
from ffd_continual.scenarios.views import ViewConfig
from ffd_continual.strategies.training.settings import TrainConfig

T = TypeVar("T")


#: (setting, least, most) of numbers that no method's file checks; what lies outside would fail late, or train oddly
RANGES: tuple[tuple[str, float, float], ...] = (
    ("seed", 0, 2**32 - 1),
    ("scenario.seed", 0, 2**32 - 2),
    ("scenario.size", 32, 2048),
    ("train.steps", 1, math.inf),
    ("train.batch", 4, 65_536),
    ("train.lr", 0, math.inf),
    ("train.weight_decay", 0, math.inf),
    ("train.warmup", 0, 1),
    ("train.clip", 0, math.inf),
    ("train.accumulate", 1, math.inf),
    ("train.kept_views", 0, 1000),
    ("train.workers", 0, 1024),
    ("train.threads", 1, 1024),
    ("train.eval_batch", 1, math.inf),
    ("views.rotate", 0, 180),
    *((f"views.{name}", 0, 1) for name in ("flip", "shift", "zoom", "colour", "blur", "jpeg", "noise")),
    ("evaluation.bootstrap", 0, 1_000_000),
    ("evaluation.samples", 0, math.inf),
    ("checkpoint.minutes", 0, math.inf),
    ("checkpoint.steps", 0, math.inf),
)


@dataclass(frozen=True)
class EvaluationConfig:
    """How a run is measured."""

    bootstrap: int = 1000  # resamples of persons or videos for each confidence interval
    samples: int = 3  # pictures a forgery in the report
    controls: bool = True  # border probe and shallow baselines beside the scenario
    video: str = "mean"  # a video's score from its frames': "mean", "top" or "vote" (video_level.py)
    video_share: float = 0.25  # of a video's frames, the highest, that "top" takes the mean of
    benign: bool = False  # false alarms on real faces after harmless edits, `ffd benign`
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)  # perturbed test faces, `ffd robust`

    @property
    def video_rule(self) -> VideoRule:
        """Raises FFDError where it is none."""
        return VideoRule(self.video, self.video_share)


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved inside an experience; after each experience it always is."""

    minutes: float = 5.0
    steps: int = 0  # also every so many steps; 0: by time alone


@dataclass(frozen=True)
class Choice:
    """A learner or strategy by name, with the settings of its own dataclass."""

    name: str
    config: Any


@dataclass(frozen=True)
class RunConfig:
    """A whole run."""

    name: str
    learner: Choice
    strategy: Choice
    scenario: ScenarioConfig = field(default_factory=ScenarioConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    seed: int = 0
    protocol: str = ""  # of `ffd run protocols/NAME` on the data that it names; its published figures may stand beside


def _bad(where: str, value: object, wanted: str) -> FFDError:
    return FFDError(f"config: {where} must be {wanted}, not {value!r}.")


def _convert(kind: Any, value: Any, where: str) -> Any:
    """A YAML value as the annotated type, without guessing: "3" is not a number, 3 is a float where one is wanted."""
    if dataclasses.is_dataclass(kind):
        return fill(typing.cast(Any, kind), value, where)
    origin = get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(a for a in get_args(kind) if a is not type(None)), value, where)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise _bad(where, value, "a list")
        return tuple(_convert(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _bad(where, value, "a mapping of key: value")
        return {str(k): _convert(get_args(kind)[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise _bad(where, value, "a number")
        return float(value)
    if kind is str and isinstance(value, str):
        return value
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is float and isinstance(value, str):
        try:
            return _convert(float, float(value), where)  # YAML 1.1 reads 1e-3 as text
        except ValueError:
            pass
    raise _bad(where, value, {float: "a number", int: "a whole number", bool: "true or false"}.get(kind, "text"))


def _unknown(where: str, key: str, known: Sequence[str]) -> FFDError:
    near = difflib.get_close_matches(key, known, 1, 0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return FFDError(f"config: unknown key {where + '.' if where else ''}{key}.{hint} Known: {', '.join(known)}.")


def fill(kind: type[T], values: Any, where: str = "") -> T:
    """Fill a dataclass from a mapping, strictly. Raises FFDError on an unknown key or a value of another type."""
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise _bad(where or "the file", values, "a mapping of key: value")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(typing.cast(Any, kind))]
    for key in values:
        if key not in known:
            raise _unknown(where, str(key), known)
    prefix = f"{where}." if where else ""
    made = {key: _convert(hints[key], value, prefix + key) for key, value in values.items()}
    return kind(**made)


def _choice(values: Any, where: str, finder: Any) -> Choice:
    if isinstance(values, str):
        values = {"name": values}
    if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
        raise FFDError(f"config: {where} needs a name, e.g. `{where}: {{name: iin}}`; see `ffd list {where}s`.")
    cls = finder(values["name"])
    rest = {k: v for k, v in values.items() if k != "name"}
    return Choice(values["name"], fill(cls.config_type, rest, where))


def config_from(values: Any) -> RunConfig:
    """A whole configuration from YAML's mapping."""
    if not isinstance(values, Mapping):
        raise _bad("the file", values, "a mapping of key: value")
    known = [f.name for f in dataclasses.fields(RunConfig)]
    for key in values:
        if key not in known:
            raise _unknown("", str(key), known)
    for key in ("learner", "strategy"):
        if key not in values:
            raise FFDError(f"config: {key} is missing, e.g. `{key}: {{name: iin}}`; see `ffd list {key}s`.")
    plain: dict[str, Any] = {"name": "run", **{k: v for k, v in values.items() if k not in ("learner", "strategy")}}
    hints = typing.get_type_hints(RunConfig)
    made = {k: _convert(hints[k], v, k) for k, v in plain.items()}
    config = RunConfig(
        learner=_choice(values["learner"], "learner", learner_class),
        strategy=_choice(values["strategy"], "strategy", strategy_class),
        **made,
    )
    _check_numbers(config)
    return config


def _check_numbers(config: RunConfig) -> None:
    _ = config.evaluation.video_rule, chosen(config.evaluation.robustness)  # errors here, not after training
    for where, least, most in RANGES:
        value: float = operator.attrgetter(where)(config)
        if not least <= value:
            raise FFDError(f"config: {where} must be at least {least:g}, not {value}.")
        if value > most:
            raise FFDError(f"config: {where} must be at most {most:g}, not {value}.")
    for where in ("learner", "strategy"):
        _check_settings(getattr(config, where).config, where)


def _check_settings(settings: Any, where: str) -> None:
    """A method's own numbers: shares are shares, and what is not negative by default never is."""
    for item in dataclasses.fields(settings):
        value, name = getattr(settings, item.name), f"{where}.{item.name}"
        if dataclasses.is_dataclass(value):
            _check_settings(value, name)
        elif isinstance(value, int | float):
            usual = item.default if isinstance(item.default, int | float) else 0
            if value < min(0, usual):
                raise FFDError(f"config: {name} must not be negative, as {value} is.")
            if item.name.endswith("share") and value > 1:
                raise FFDError(f"config: {name} is a share, 0 to 1, not {value}.")


def to_mapping(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration, every default filled in; `config_from` reads it back unchanged."""

    def plain(value: Any) -> Any:
        if isinstance(value, Choice):
            return {"name": value.name, **plain(value.config)}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return value

    mapping = plain(config)
    assert isinstance(mapping, dict)
    return mapping


def known_configs() -> dict[str, Path]:
    """Configurations that come with the package, by name."""
    folder = Path(str(importlib.resources.files("ffd_continual.configs")))
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def read_yaml(name: str) -> dict[str, Any]:
    """The mapping of a packaged configuration (by name) or of a file (by path)."""
    path = Path(name)
    known = known_configs()
    if not path.is_file():
        if name in known:
            path = known[name]
        else:
            near = difflib.get_close_matches(name, known, 1, 0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise FFDError(f"no configuration {name!r}: neither a file nor one of {', '.join(known)}.{hint}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FFDError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(values, dict):
        raise FFDError(f"{path} must hold a mapping of key: value.")
    return values


def apply_sets(values: dict[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """Apply `--set a.b=value` (the value is YAML) over a mapping; the result is a new mapping."""
    merged: dict[str, Any] = yaml.safe_load(yaml.safe_dump(values))
    for item in sets:
        key, sign, text = item.partition("=")
        if not sign or not key:
            raise FFDError(f"--set {item}: write it as key=value, e.g. --set train.steps=30.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise FFDError(f"--set {item}: the value is not readable YAML: {error}") from error
        at = merged
        *parents, last = key.split(".")
        for parent in parents:
            inner = at.get(parent)
            if isinstance(inner, str) and parent in ("learner", "strategy"):
                inner = {"name": inner}
            at[parent] = inner if isinstance(inner, dict) else {}
            at = at[parent]
        if last == "name" and parents in (["learner"], ["strategy"]) and at.get("name") != value:
            at.clear()  # another method has other settings
        at[last] = value
    return merged
