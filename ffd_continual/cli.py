"""The command `ffd`. An error of the user's is one message and exit code 2; Ctrl-C is 130 and loses nothing saved."""

from __future__ import annotations

import argparse
import importlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import ffd_continual
from ffd_continual.scenarios.errors import FFDError, is_full
from ffd_continual.terminal import warnings_as_remarks

#: command -> (module with add_arguments and run, one line of help); a module is imported only when it is used.
COMMANDS = {
    "run": ("ffd_continual.run_command", "run a configuration: learn a stream of forgeries and report"),
    "resume": ("ffd_continual.resume_command", "go on with a run that was stopped or killed"),
    "sweep": ("ffd_continual.sweep_command", "run a grid of methods and seeds, resumable cell by cell"),
    "compare": ("ffd_continual.compare_command", "finished runs side by side: one page, and tables"),
    "targets": ("ffd_continual.targets_command", "run again what this project claims, and compare"),
    "adopt": ("ffd_continual.adopt_command", "put a finished run into use: version 1 of a lineage"),
    "add": ("ffd_continual.add_command", "learn one more forgery, or source of real faces, in a lineage"),
    "correct": ("ffd_continual.correct_command", "mend wrong labels of the version in use and learn it again"),
    "versions": ("ffd_continual.versions_command", "list a lineage's versions, or compare two"),
    "rollback": ("ffd_continual.rollback_command", "put another version of a lineage into use"),
    "prune": ("ffd_continual.prune_command", "remove the weights of old versions"),
    "forget": ("ffd_continual.forget_command", "remove a person's faces from a lineage"),
    "report": ("ffd_continual.report_command", "write a run's report again"),
    "predict": ("ffd_continual.predict_command", "judge pictures and videos with a run's or a lineage's detector"),
    "robust": ("ffd_continual.robust_command", "judge finished runs on perturbed test faces"),
    "serve": ("ffd_continual.serve_command", "a page on this machine: judge pictures, browse a lineage"),
    "benign": ("ffd_continual.benign_command", "count false alarms on real faces after harmless edits"),
    "discover": ("ffd_continual.discover_command", "groups of faces that resemble no known forgery"),
    "export": ("ffd_continual.export_command", "write a detector as ONNX, with a model card"),
    "check": ("ffd_continual.check_command", "find every fault of a manifest or folder"),
    "prepare": ("ffd_continual.prepare_command", "turn a downloaded data set into face crops and a manifest"),
    "forge": ("ffd_continual.forge_command", "turn real portraits into a data set of forgeries"),
    "clips": ("ffd_continual.clips_command", "turn real portraits into video clips, laid out as FF++ is"),
    "list": ("ffd_continual.list_command", "list learners, strategies, scenarios, configs"),
}


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ffd", description=ffd_continual.__doc__)
    parser.add_argument("--version", action="version", version=f"ffd {ffd_continual.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, words) in COMMANDS.items():
        sub = commands.add_parser(name, help=words, description=words)
        if name == chosen:
            importlib.import_module(module).add_arguments(sub)
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
    try:
        args = _parser(chosen).parse_args(words)
        with warnings_as_remarks():
            code: int = importlib.import_module(COMMANDS[args.command][0]).run(args)
        return code
    except FFDError as error:
        print(f"ffd: {error}", file=sys.stderr)
        return 2
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
    except KeyboardInterrupt as error:
        print(f"\nffd: stopped. {str(error) or 'A run goes on with `ffd resume RUN`.'}", file=sys.stderr)
        return 130
    finally:
        threading.excepthook = before


def default_out(name: str) -> Path:
    """runs/<name>, or the next free runs/<name>-N."""
    base = Path("runs") / name
    number, path = 2, base
    while path.exists():
        path, number = Path(f"{base}-{number}"), number + 1
    return path


if __name__ == "__main__":
    sys.exit(main())
