"""The command `ffd`. An error of the user's is one message and exit code 2; Ctrl-C is 130 and loses nothing saved."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import sys
import threading
from collections.abc import Sequence
from types import ModuleType

import ffd_continual
from ffd_continual.scenarios.errors import FFDError, is_full
from ffd_continual.terminal import warnings_as_remarks

#: command -> one line of help. Its file in commands/ has add_arguments and run, and is imported only when it is used.
COMMANDS = {
    "run": "run a configuration: learn a stream of forgeries and report",
    "resume": "go on with a run that was stopped or killed",
    "sweep": "run a grid of methods and seeds, resumable cell by cell",
    "compare": "finished runs side by side: one page, and tables",
    "targets": "run again what this project claims, and compare",
    "adopt": "put a finished run into use: version 1 of a lineage",
    "add": "learn one more forgery, or source of real faces, in a lineage",
    "correct": "mend wrong labels of the version in use and learn it again",
    "versions": "list a lineage's versions, or compare two",
    "rollback": "put another version of a lineage into use",
    "prune": "remove the weights of old versions",
    "forget": "remove a person's faces from a lineage",
    "bench": "what growing costs and reaches, against retraining",
    "report": "write a run's report again",
    "predict": "judge pictures and videos with a run's or a lineage's detector",
    "evaluate": "measure a run's or a lineage's detector on other data",
    "robust": "judge finished runs on perturbed test faces",
    "serve": "a page on this machine: judge pictures, browse a lineage",
    "benign": "count false alarms on real faces after harmless edits",
    "discover": "groups of faces that resemble no known forgery",
    "export": "write a detector as ONNX, with a model card",
    "check": "find every fault of a manifest or folder",
    "prepare": "turn a downloaded data set into face crops and a manifest",
    "forge": "turn real portraits into a data set of forgeries",
    "clips": "turn real portraits into video clips, laid out as FF++ is",
    "list": "list learners, strategies, scenarios, configs",
}


def _command(name: str) -> ModuleType:
    return importlib.import_module(f"ffd_continual.commands.{name}")


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ffd", description=ffd_continual.__doc__)
    parser.add_argument("--version", action="version", version=f"ffd {ffd_continual.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, words in COMMANDS.items():
        sub = commands.add_parser(name, help=words, description=words)
        if name == chosen:
            _command(name).add_arguments(sub)
    return parser


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """TensorBoard writes in a thread; on a full disk it fails there as well as here, and one message is enough."""
    if not (isinstance(failed.exc_value, OSError) and is_full(failed.exc_value)):
        threading.__excepthook__(failed)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((w for w in words if w in COMMANDS), None)
    before, threading.excepthook = threading.excepthook, _thread_failed
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show ends no command
    try:
        args = _parser(chosen).parse_args(words)
        with warnings_as_remarks():
            code: int = _command(args.command).run(args)
        sys.stdout.flush()
        return code
    except FFDError as error:
        print(f"ffd: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who reads the output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left there must not fail at exit
        return 0
    except OSError as error:
        if not is_full(error) and error.filename is None:
            raise
        where = f" {error.filename}" if error.filename else ""
        if is_full(error):
            text = f"the disk is full: cannot write{where}. Make room and try again; what was saved is kept."
        else:
            text = f"cannot use{where}: {error.strerror or error}. Check the path and its permissions."
        print(f"ffd: {text}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("allocate memory|out of memory", str(error)):
            raise
        print(
            f"ffd: out of memory: {error}. Choose less: train.batch, train.eval_batch, scenario.size.", file=sys.stderr
        )
        return 2
    except KeyboardInterrupt as error:
        print(f"\nffd: stopped. {str(error) or 'A run goes on with `ffd resume RUN`.'}", file=sys.stderr)
        return 130
    finally:
        threading.excepthook = before


if __name__ == "__main__":
    sys.exit(main())
