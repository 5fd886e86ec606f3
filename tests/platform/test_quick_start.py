"""What a command loads before it knows what to do: nothing that takes seconds and that only training needs."""

from __future__ import annotations

import json
import subprocess
import sys

from ffd_continual.cli import COMMANDS

SLOW = {"avalanche", "timm", "torchvision", "tensorboard"}
LOADED = """
import importlib, json, sys
for name in {commands}:
    importlib.import_module(f"ffd_continual.commands.{{name}}")
from ffd_continual.config import known_configs, config_from, read_yaml
for name in known_configs():
    config_from(read_yaml(name))
print(json.dumps(sorted(sys.modules)))
"""


def test_no_command_and_no_configuration_loads_what_only_training_needs() -> None:
    code = LOADED.format(commands=sorted(COMMANDS))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    loaded = set(json.loads(done.stdout))
    assert "torch" in loaded  # the list is that of a process which did load the commands
    assert not loaded & SLOW
