"""Configurations are strict: what is unknown or of another type is an error that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ffd_continual.config import apply_sets, config_from, known_configs, read_yaml, to_mapping
from ffd_continual.scenarios.errors import FFDError

PLAIN: dict[str, Any] = {"learner": "plain", "strategy": "naive"}


def _with(path: str, value: Any) -> dict[str, Any]:
    """PLAIN with one key set, given as a.b.c."""
    made: dict[str, Any] = {"learner": {"name": "iin"}, "strategy": {"name": "iin"}}
    at = made
    *parents, last = path.split(".")
    for parent in parents:
        at = at.setdefault(parent, {})
    at[last] = value
    return made


def test_names_alone_are_enough() -> None:
    config = config_from(PLAIN)
    assert (config.name, config.seed, config.learner.name, config.strategy.name) == ("run", 0, "plain", "naive")
    assert config.learner.config.trunk.backbone == "tf_efficientnet_lite0"


def test_the_resolved_mapping_reads_back_unchanged() -> None:
    config = config_from(
        {
            **_with("learner.trunk.frozen_stages", 2),
            "scenario": {"order": ["a", "b+c"], "profiles": {"*": "dslr"}},
            "train": {"lr": 1, "clip": 0},
            "seed": 4,
        }
    )
    mapping = to_mapping(config)
    assert config_from(mapping) == config
    assert config_from(yaml.safe_load(yaml.safe_dump(mapping))) == config
    assert mapping["scenario"]["order"] == ["a", "b+c"]
    assert config.scenario.order == ("a", "b+c")
    assert isinstance(config.train.lr, float)
    assert mapping["learner"]["name"] == "iin"
    assert mapping["learner"]["trunk"]["frozen_stages"] == 2


def test_numbers_that_yaml_takes_for_text_are_numbers() -> None:
    values = yaml.safe_load("{learner: plain, strategy: naive, train: {lr: 1e-3}}")
    assert values["train"]["lr"] == "1e-3"
    assert config_from(values).train.lr == 0.001


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("scnario", ["unknown key scnario", "Did you mean 'scenario'?"]),
        ("train.step", ["unknown key train.step", "Did you mean 'steps'?", "batch"]),
        ("learner.trnk", ["unknown key learner.trnk", "Did you mean 'trunk'?"]),
        ("learner.trunk.backbon", ["unknown key learner.trunk.backbon", "'backbone'"]),
        ("strategy.examplars", ["unknown key strategy.examplars", "'exemplars'"]),
        ("evaluation.zzzzz", ["unknown key evaluation.zzzzz.", "Known: bootstrap"]),
    ],
)
def test_an_unknown_key_names_the_nearest(path: str, words: list[str]) -> None:
    with pytest.raises(FFDError) as caught:
        config_from(_with(path, 1))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        ("train.steps", "many", "a whole number"),
        ("train.steps", "3", "a whole number"),
        ("train.steps", 2.5, "a whole number"),
        ("train.steps", True, "a whole number"),
        ("train.lr", "fast", "a number"),
        ("train.lr", False, "a number"),
        ("train.bf16", "yes", "true or false"),
        ("train.bf16", 1, "true or false"),
        ("train.device", 3, "text"),
        ("scenario.order", "alpha", "a list"),
        ("scenario.order", [1], "text"),
        ("scenario.profiles", ["dslr"], "a mapping"),
        ("train", 3, "a mapping"),
        ("learner.trunk", "resnet18", "a mapping"),
        ("seed", None, "a whole number"),
        ("train.steps", 0, "at least 1"),
        ("train.batch", 3, "at least 4"),
        ("scenario.size", 8, "at least 32"),
        ("scenario.seed", -1, "at least 0"),
        ("views.rotate", 400, "at most 180"),
    ],
)
def test_values_of_another_type_or_range_are_refused(path: str, value: Any, wanted: str) -> None:
    with pytest.raises(FFDError) as caught:
        config_from(_with(path, value))
    assert path.split(".")[-1] in str(caught.value)
    assert wanted in str(caught.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"strategy": "naive"}, ["learner is missing"]),
        ({"learner": "plain"}, ["strategy is missing"]),
        ({"learner": {"features": 3}, "strategy": "naive"}, ["learner needs a name"]),
        ({"learner": ["plain"], "strategy": "naive"}, ["learner needs a name"]),
        ({"learner": "plaim", "strategy": "naive"}, ["no learner is named 'plaim'", "'plain'"]),
        ({"learner": "plain", "strategy": "repaly"}, ["no strategy is named 'repaly'", "'replay'"]),
        ({"learner": "trunk", "strategy": "naive"}, ["no learner is named 'trunk'"]),
        (
            {"learner": "nowhere.at_all:Mine", "strategy": "naive"},
            ["'nowhere.at_all' cannot be imported", "PYTHONPATH"],
        ),
        ({"learner": "json:JSONDecoder", "strategy": "naive"}, ["must be a subclass of Learner"]),
        (["learner"], ["a mapping"]),
    ],
)
def test_methods_are_found_by_name(values: Any, words: list[str]) -> None:
    with pytest.raises(FFDError) as caught:
        config_from(values)
    for word in words:
        assert word in str(caught.value)


def test_a_user_s_own_class_is_found_by_its_path() -> None:
    config = config_from({"learner": "ffd_continual.strategies.learners.plain:Plain", "strategy": "naive"})
    assert type(config.learner.config).__name__ == "PlainConfig"


def test_sets_override_and_leave_the_mapping_alone() -> None:
    values = {"learner": "iin", "strategy": {"name": "iin", "exemplars": 3}, "train": {"steps": 5}}
    made = apply_sets(values, ["train.steps=7", "scenario.order=[a, b]", "learner.trunk.frozen_stages=1", "seed=2"])
    assert made["train"] == {"steps": 7}
    assert made["scenario"] == {"order": ["a", "b"]}
    assert made["learner"] == {"name": "iin", "trunk": {"frozen_stages": 1}}
    assert values["train"] == {"steps": 5}
    assert values["learner"] == "iin"
    swapped = apply_sets(values, ["strategy.name=naive"])
    assert swapped["strategy"] == {"name": "naive"}  # the other method's settings go
    kept = apply_sets(values, ["strategy.name=iin", "strategy.share=0.5"])
    assert kept["strategy"] == {"name": "iin", "exemplars": 3, "share": 0.5}
    for item in ("train.steps", "=3"):
        with pytest.raises(FFDError, match="write it as key=value"):
            apply_sets(values, [item])
    with pytest.raises(FFDError, match="not readable YAML"):
        apply_sets(values, ["train.steps=[1"])


def test_packaged_configurations_are_valid() -> None:
    assert "demo" in known_configs()
    for name in known_configs():
        values = read_yaml(name)
        if "learner" in values:
            assert config_from(values).name


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(FFDError, match="Did you mean 'demo'"):
        read_yaml("demoo")
    for text, word in (("a: [", "not readable YAML"), ("- a", "must hold a mapping"), ("", "must hold a mapping")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(FFDError, match=word):
            read_yaml(str(tmp_path / "bad.yaml"))
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FFDError, match="not readable YAML"):
        read_yaml(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.lr=-1", "train.lr must be at least 0"),
        ("train.lr=.nan", "train.lr must be a number, not nan"),
        ("train.lr=1e999", "train.lr must be a number, not inf"),
        ("train.clip=-1", "train.clip must be at least 0"),  # would turn every gradient round
        ("train.workers=-1", "train.workers must be at least 0"),
        ("train.batch=100000", "train.batch must be at most 65536"),
        ("seed=-1", "seed must be at least 0"),
        ("scenario.size=1000000", "scenario.size must be at most 2048"),
        ("views.flip=9", "views.flip must be at most 1"),
        ("evaluation.bootstrap=-1", "evaluation.bootstrap must be at least 0"),
        ("learner.queue=-3", "learner.queue must not be negative"),
        ("learner.trunk.frozen_stages=-2", "learner.trunk.frozen_stages must not be negative"),
        ("strategy.share=7", "strategy.share is a share, 0 to 1, not 7"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_computed(setting: str, message: str) -> None:
    with pytest.raises(FFDError, match=message):
        config_from(apply_sets(read_yaml("demo"), [setting]))
