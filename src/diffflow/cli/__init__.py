"""The command line: `diffflow train`, `sample`, `flow`, `calibrate`, `evaluate`, `likelihood`, `diagnose`, and more.

One file a command; each is a frozen dataclass whose fields are the flags (read by tyro) and whose `main()` does what
five lines of Python could do. This file finds the command and turns every error that a user can mend into one paragraph
and exit status 2.

Exit status: 0 done · 2 the request cannot be met (nothing half-written) · 130 interrupted (a running training saved a
checkpoint first).
"""

from __future__ import annotations

import importlib
import inspect
import io
import os
import sys
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import tyro

from diffflow import __version__
from diffflow.registry import PluginError, import_plugin, installed_plugins, load_installed

COMMANDS = {
    "train": "train a model on your data",
    "runs": "list the runs of a folder: how far, how good, in which state",
    "sample": "draw samples from a run",
    "flow": "move particles to a target without training: SVGD, MMD, Langevin, ...",
    "distill": "train a few steps of a sampler into a generator",
    "calibrate": "make a run's sampler as exact as its evaluations allow",
    "evaluate": "measure a run against data it has not seen",
    "frontier": "quality against cost, and the settings worth using",
    "compare": "several evaluations in one table, if they were taken alike",
    "weights": "the networks that judge images: list, verify, fetch",
    "likelihood": "how probable data are under a run: nats, bits per dimension",
    "diagnose": "check the fields of a run: its denoiser per noise level, its discriminator's odds",
    "explore": "watch particles move between GAN and diffusion, and play runs, in the browser",
    "models": "every model as a setting of the equation, and how to run it",
    "cite": "BibTeX for the equation, or for what a run uses",
    "demo": "digits in minutes: train, sample along the dial, write a report",
}

NO_PLUGINS = ("explore", "runs", "cite", "weights")  # they look at files, and import nothing that is not named

HELP = """\
diffflow: GANs, Langevin dynamics and diffusion models as settings of one equation

  usage: diffflow COMMAND ...          diffflow COMMAND --help explains every flag

{commands}

  examples
    diffflow demo                                           a report in minutes, no GPU: runs/demo/report.html
    diffflow train 8gaussians --minutes 1                   a 2-D toy with exact answers
    diffflow train path/to/images --flip --minutes 30       a folder or zip of images (subfolder = class)
    diffflow train path/to/mnist --preset mnist --dry-run   scan the data and build the model, train nothing
    diffflow train --resume auto --out runs/mnist           go on after a crash, ctrl-C or a kill
    diffflow runs                                           what is in runs/, and how good it is
    diffflow sample runs/mnist -n 100 --class 3 --out threes.png
    diffflow sample runs/mnist -n 5000 --churn 1 --out samples.zip
    diffflow flow 25gaussians --animate particles.gif       particles that follow a law, nothing trained
    diffflow calibrate runs/mnist --steps 5 8 20            sampling plans made for this model, used from then on
    diffflow evaluate runs/mnist
    diffflow frontier runs/mnist                            quality against cost; then sample --quality fast
    diffflow distill runs/mnist --steps 1                   its sampler of one step, trained into a generator
    diffflow compare runs/mnist runs/other                  one table, or in what their protocols differ
    diffflow weights list                                   the networks that images can be judged with
    diffflow likelihood runs/mnist --against path/to/other  bits per dimension, two sources under one model
    diffflow diagnose runs/mnist                            its denoiser per noise level, beside a linear one
    diffflow explore                                        particles and runs, in the browser
    diffflow train table.csv                                a model of a table, samples back as CSV
    diffflow models                                         every model as a setting of the equation
    diffflow --import my_models.py train ...                with models, networks, losses of your own

  from Python
    import diffflow as df
    run = df.load("runs/mnist"); x = run.sample(100, steps=20, churn=0.5).last
"""


Command = TypeVar("Command")


class UsageError(ValueError):
    """A request the command line cannot meet; the message names the value and the remedy."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: its words; default: the process's arguments.

    Returns:
        The exit status.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    print_any_name()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            return dispatch(args)
    except SystemExit as stop:  # tyro has printed help (0) or what it could not parse (2)
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `diffflow ... | head`: whoever reads has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        code = status(error)
        if code is None or os.environ.get("DIFFFLOW_TRACEBACK") == "1":
            raise
        print(error_message(error), file=sys.stderr)
        return code


def print_any_name() -> None:
    """Let names of files be printed that are no valid text, or do not fit the terminal's encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            utf8 = stream.encoding.lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
    """Print a warning of ours as one line for a user, anybody else's as Python shows it."""
    ours = Path(filename).is_relative_to(Path(__file__).parents[1])
    text = f"diffflow: warning: {message}\n" if ours else warnings.formatwarning(message, category, filename, lineno)
    print(text, end="", file=sys.stderr)


def split_imports(args: list[str]) -> tuple[list[str], list[str]]:
    """The plug-ins named by --import FILE, wherever they stand, and the other words."""
    names, rest = [], []
    words = iter(args)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag != "--import":
            rest.append(word)
        elif name := value if equals else next(words, ""):
            names.append(name)
        else:
            raise UsageError("--import wants a file or a module: diffflow --import my_models.py COMMAND ...")
    return names, rest


def dispatch(args: list[str]) -> int:
    """Run the command that the words name and return its exit status."""
    plugins, args = split_imports(args)
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP.format(commands=listing(COMMANDS)))
        return 0 if args else 2
    if args[0] in ("-V", "--version"):
        print(f"diffflow {__version__}")
        return 0
    if args[0] not in COMMANDS:
        near = get_close_matches(args[0], COMMANDS, n=1)
        raise UsageError(
            f"unknown command {args[0]!r}."
            + (f" Did you mean {near[0]!r}?" if near else "")
            + f" Commands: {', '.join(COMMANDS)}."
        )
    if (text := saved_help(args)) is not None and not plugins and not installed_plugins():
        print(text, end="")
        return 0
    if args[0] not in NO_PLUGINS:
        load_installed()
    for name in plugins:
        try:
            import_plugin(name)
        except PluginError as error:
            if not {"-h", "--help"} & set(args):  # whoever asks for help gets it, whatever is broken
                raise
            warnings.warn(str(error))
    return importlib.import_module(f"diffflow.cli.{args[0]}").main(args[1:])


def help_file(command: str) -> Path:
    """Where the help of a command is kept whose flags are those of classes that build networks, and so need torch.

    `python tests/stub.py` writes it, 100 columns wide; a test compares it with what the command says of itself.
    """
    return Path(__file__).with_name(f"{command}_help.txt")


def saved_help(args: Sequence[str]) -> str | None:
    """The kept help of a command that is asked for nothing else; None: the command has to answer itself."""
    path = help_file(args[0])
    return path.read_text(encoding="utf-8") if args[1:] in (["-h"], ["--help"]) and path.is_file() else None


def listing(entries: Mapping[str, str]) -> str:
    """Text of names and what they are, a line each, in two columns."""
    wide = max(map(len, entries)) + 2
    return "\n".join(f"    {name:<{wide}}{what}" for name, what in entries.items())


def parse(command: type[Command], args: Sequence[str], default: Command | None = None, more: str = "") -> Command:
    """The command's dataclass filled in from its flags.

    Args:
        command: the dataclass; its docstring is the help, as written.
        args: the words after the command's name.
        default: values of the flags that are not given.
        more: what stands in the help after the docstring.
    """
    about, name = inspect.cleandoc(command.__doc__ or "") + more, f"diffflow {command.__name__.lower()}"
    # A union takes the alternative of the preset's type instead of turning into subcommands.
    options = (tyro.conf.AvoidSubcommands,)
    given: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(command, prog=name, description=about, args=args, config=options, **given)


def status(error: Exception) -> int | None:
    """The exit status of an error that the user can mend; None for a fault of ours, which deserves its traceback."""
    code = getattr(error, "code", None)
    if isinstance(code, int):
        return code
    ours = type(error).__module__.partition(".")[0] == "diffflow"
    return 2 if ours or isinstance(error, (ValueError, OSError, NotImplementedError)) else None


def error_message(error: Exception) -> str:
    """What a user reads of an error, folded where a terminal reads it."""
    text = str(error) or type(error).__name__
    if isinstance(error, FileNotFoundError) and error.filename is not None and error.strerror:
        text = f"no such file or directory: {error.filename}"
    if sys.stderr.isatty():  # elsewhere a name with spaces stays whole
        lines = text.splitlines()
        text = "\n".join(textwrap.fill(line, 110, break_long_words=False, break_on_hyphens=False) for line in lines)
    return f"diffflow: {text}"
