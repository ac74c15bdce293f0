"""What all verbs share: errors in one line, exit codes, settings, the console."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pixeltune import files
from pixeltune.errors import ConfigError, PixeltuneError, require_packages
from pixeltune.tune.ray_address import COMMAND

if TYPE_CHECKING:
    from rich.console import Console

Verb = Callable[[argparse.Namespace], int]

EXIT_OK = 0
EXIT_REFUTED = 1
"""A check that was made, and failed."""
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """argparse with its complaints in our one-line shape."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is."""
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None, *verb: str) -> argparse.Namespace:
    """The options, and in `words` what was given as the words of `pixeltune`. verb: those that the program implies."""
    words = sys.argv[1:] if argv is None else [*argv]
    options = parser.parse_args(words)
    options.words = [*verb, *words]
    return options


def positive(text: str) -> int:
    """An argument that must be a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, but got {text!r}")
    return int(text)


def run(verb: Verb, options: argparse.Namespace) -> int:
    """Run a verb. What the user can put right becomes one line on stderr and exit code 2; SIGTERM is a Ctrl-C."""
    if threading.current_thread() is threading.main_thread():  # a job that is stopped, a queue whose time is over
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # a data function of the user's own lies where the command is given
    try:
        return verb(options)
    except PixeltuneError as error:
        print(f"pixeltune: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


@contextmanager
def writing(location: str) -> Iterator[None]:
    """Writing a file that an option names: what the disk answers becomes one line."""
    try:
        yield
    except OSError as error:
        raise PixeltuneError(f"a file must be writable, but {location} is not ({error.strerror or error})") from error


def require_writable(location: str) -> None:
    """Refuse what cannot be written before the work that goes into it, and make nothing yet.

    Object storage is not asked: it refuses when it is written.
    """
    if files.is_uri(location):
        return
    target = files.local_path(location)
    if target.is_dir():
        raise ConfigError(f"a file must be writable, but {location} is a folder; name a file in it")
    with writing(location):
        existing = next(folder for folder in target.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass


def say(line: str) -> None:
    """A line of a verb's answer, at once, so that a log can be followed."""
    print(line, flush=True)


def console() -> Console:
    """Where tables and live displays go; wide when not a terminal, so that lines stay whole in a log."""
    require_packages("a table", "rich")
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160, soft_wrap=False)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The repeatable --set key=value."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="change a dotted key, such as model.layers=12; repeatable",
    )


def epochs(text: str) -> tuple[float, ...]:
    """An argument of epochs, such as 1,5,20.5."""
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        values = (math.nan,)
    if not all(0 < value < math.inf for value in values):
        raise argparse.ArgumentTypeError(f"must be epochs above 0, such as 1,5,20, but got {text[:40]!r}")
    return values


def add_galleries(parser: argparse.ArgumentParser) -> None:
    """Pictures during training."""
    parser.add_argument(
        "--galleries",
        type=epochs,
        metavar="EPOCHS",
        help="at the reports nearest to these epochs, such as 1,5,20, keep a picture of what each model draws",
    )


def add_storage(parser: argparse.ArgumentParser) -> None:
    """Where results lie."""
    default = _default_storage()
    parser.add_argument(
        "--storage", default=default, metavar="DIR|URI", help=f"folder or URI (s3://…) of all results [{default}]"
    )


def storage_words(storage: str) -> str:
    """What a command to be copied needs in addition to mean this storage; "" where it is the default.

    What a job prints is read where it was submitted, which has a default of its own.
    """
    is_default = storage == _default_storage() and COMMAND not in os.environ
    return "" if is_default else f" --storage {shlex.quote(storage)}"


def _default_storage() -> str:
    return os.environ.get("PIXELTUNE_STORAGE") or "results"


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The --set options as dotted keys with values."""
    from pixeltune.config import parse_setting

    return dict(parse_setting(text) for text in options.settings)


TRIAL_HELP = "SEARCH (its best trial), SEARCH/TRIAL (a unique beginning is enough), or a .safetensors file"


def command_again() -> str:
    """The command that was given, to be copied; in a job of a cluster the one that submitted it."""
    import shlex

    from pixeltune.tune.ray_address import COMMAND

    if COMMAND in os.environ:
        return os.environ[COMMAND]
    program = Path(sys.argv[0])
    words = ["python", program.name] if program.suffix == ".py" else [program.name]
    return shlex.join([*words, *sys.argv[1:]])
