"""Shared by all verbs: errors in one line, exit codes, settings, the console."""

from __future__ import annotations

import argparse
import itertools
import math
import os
import platform
import re
import shlex
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pixeltune import files
from pixeltune.errors import ConfigError, PixeltuneError, did_you_mean
from pixeltune.own_code import exception_words, place_of
from pixeltune.packages import require_packages
from pixeltune.results.storage import COMMAND, default_storage

if TYPE_CHECKING:
    from rich.console import Console

Verb = Callable[[argparse.Namespace], int]

EXIT_OK = 0
EXIT_REFUTED = 1
"""A check was made and failed, or a search ended without a result."""
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """An argparse parser with examples under the help, and errors in one line that suggest the nearest word.

    Args:
        examples: Command lines to show under the help.
        has_verbs: Only one of its verbs can be run, and takes the options that all commands have.
        **options: Those of `argparse.ArgumentParser`.
    """

    def __init__(self, *, examples: Sequence[str] = (), has_verbs: bool = False, **options: Any) -> None:
        shown = "examples:\n" + "\n".join(f"  $ {line}" for line in examples) if examples else None
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, epilog=shown, **options)
        self.examples = tuple(examples)
        if not has_verbs:
            self.add_argument("-q", "--quiet", action="store_true", help="print results and errors, no progress")
            self.add_argument("-v", "--verbose", action="store_true", help="show where an error comes from")
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        """Print the error, the nearest word if one is close, and where help is; exit with code 2."""
        suggestion = self._suggestion(message)
        if suggestion:  # instead of the whole list
            message = re.sub(r" \(choose from .*\)", "", message)
        print(f"{self.prog}: {message}{suggestion}; see {self.prog} --help", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)

    def _suggestion(self, message: str) -> str:
        """Return the suggestion for an unknown verb, choice or option; "" if nothing is close."""
        if choice := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            near = did_you_mean(choice[1], re.findall(r"[\w-]+", choice[2]))
        elif option := re.search(r"unrecognized arguments: (--[\w-]+)", message):
            near = did_you_mean(option[1], [*self._option_string_actions])
        else:
            return ""
        return f"; {near.rstrip('?')}" if near else ""


class VerbsParser(Parser):
    """The parser of a program with verbs, whose help shows them in groups."""

    def __init__(self, **options: Any) -> None:
        super().__init__(has_verbs=True, **options)
        self._groups: dict[str, int] = {}

    def add_subparsers(self, **options: Any) -> Any:
        """Make the verbs ordinary parsers, and keep them for the help."""
        self._verbs = super().add_subparsers(parser_class=Parser, help=argparse.SUPPRESS, **options)
        return self._verbs

    def add_group(self, title: str, count: int) -> None:
        """Show the last `count` verbs under this title."""
        self._groups[title] = count

    def format_help(self) -> str:
        """Return usage, the verbs by group, and the options."""
        verbs = iter(self._verbs._choices_actions)
        lines = [f"usage: {self.prog} VERB [options]", "", str(self.description), ""]
        for title, count in self._groups.items():
            lines.append(f"{title}:")
            lines += [f"  {verb.dest:<13}{verb.help}" for verb in itertools.islice(verbs, count)]
            lines.append("")
        more = f"--version, -h, --help; {self.prog} VERB --help shows the options of a verb, with examples"
        return "\n".join([*lines, more]) + "\n"


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None, *verb: str) -> argparse.Namespace:
    """Return the options, with `pixeltune`'s arguments as `words`. verb: arguments that the program implies."""
    words = sys.argv[1:] if argv is None else [*argv]
    options, unknown = parser.parse_known_args(words)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.words = [*verb, *words]
    return options


class ShowVersion(argparse.Action):
    """The option that prints the versions of pixeltune and Python, and exits."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, help="show the version and exit", **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Print the versions without heavy imports."""
        from importlib import metadata

        try:
            version = metadata.version("pixeltune")
        except metadata.PackageNotFoundError:
            version = "not installed"
        say(f"pixeltune {version}, Python {platform.python_version()}")
        parser.exit()


def positive(text: str) -> int:
    """Return an argument that must be a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, but got {text!r}")
    return int(text)


def natural(text: str) -> int:
    """Return an argument that must be a whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more, but got {text!r}")
    return int(text)


@dataclass
class _Verbosity:
    """The verbosity options of the running command."""

    quiet: bool = False
    verbose: bool = False


_verbosity = _Verbosity()


def is_quiet() -> bool:
    """Return whether the running command prints no progress (`--quiet`)."""
    return _verbosity.quiet


def is_verbose() -> bool:
    """Return whether the running command shows where an error comes from (`--verbose`)."""
    return _verbosity.verbose


def say_progress(line: str) -> None:
    """Print a line of progress, unless `--quiet` was given."""
    if not is_quiet():
        say(line)


def run(verb: Verb, options: argparse.Namespace) -> int:
    """Run a verb. Errors that a user can correct become one line on stderr and exit code 2; SIGTERM is a Ctrl-C.

    These are errors of pixeltune, and any exception that the user's own code raises.
    """
    if threading.current_thread() is threading.main_thread():  # a stopped job, a queue's time limit
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # the user's data functions are in the working directory
    _verbosity.quiet, _verbosity.verbose = options.quiet, options.verbose
    try:
        with _plain_warnings():
            return verb(options)
    except PixeltuneError as error:
        if options.verbose:
            traceback.print_exc()
        print(f"pixeltune: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USER_ERROR
    except Exception as error:
        place = place_of(error)
        if not place:
            raise
        if options.verbose:
            traceback.print_exc()
        words = f"{place} raises {exception_words(error)}"
        print(f"pixeltune: your own code must work, but {words}; fix it; -v shows the traceback", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print a warning about the results as one line for a user, without the place in the source that gave it."""
    before = warnings.formatwarning

    def plain(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        from pixeltune.results.table_folder import StoreWarning  # where there is one, it has been imported

        if issubclass(category, StoreWarning):
            return f"pixeltune: {message}\n"
        return before(message, category, filename, lineno, line)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextmanager
def writing(location: str) -> Iterator[None]:
    """Turn errors of writing an option's file into one line."""
    try:
        yield
    except OSError as error:
        raise PixeltuneError(f"a file must be writable, but {location} is not ({error.strerror or error})") from error


def require_writable(location: str) -> None:
    """Refuse paths that cannot be written before the work is done; create nothing yet.

    Object storage is not checked: it raises when it is written.
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
    """Print a line of a verb's output at once, so that a log can be followed."""
    print(line, flush=True)


def console() -> Console:
    """Return the console for tables and live displays; wide if not a terminal, so that a log has whole lines."""
    require_packages("a table", "rich")
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160, soft_wrap=False)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the repeatable --set key=value."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="change a dotted key, such as model.layers=12; repeatable",
    )


def epochs(text: str) -> tuple[float, ...]:
    """Return an argument of epochs, such as 1,5,20.5."""
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        values = (math.nan,)
    if not all(0 < value < math.inf for value in values):
        raise argparse.ArgumentTypeError(f"must be epochs above 0, such as 1,5,20, but got {text[:40]!r}")
    return values


def add_galleries(parser: argparse.ArgumentParser) -> None:
    """Add the option for galleries during training."""
    parser.add_argument(
        "--galleries",
        type=epochs,
        metavar="EPOCHS",
        help="at the reports nearest to these epochs, such as 1,5,20, keep a picture of what each model draws",
    )


def add_storage(parser: argparse.ArgumentParser) -> None:
    """Add the option for the location of the results."""
    default = default_storage()
    parser.add_argument(
        "--storage", default=default, metavar="DIR|URI", help=f"folder or URI (s3://…) of all results [{default}]"
    )


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the --set options as dotted keys with values."""
    from pixeltune.config import parse_setting

    return dict(parse_setting(text) for text in options.settings)


TRIAL_HELP = "SEARCH (its best trial), SEARCH/TRIAL (a unique beginning is enough), or a .safetensors file"


def command_again() -> str:
    """Return the user's command for copying; in a job of a cluster, the one that submitted it."""
    if COMMAND in os.environ:
        return os.environ[COMMAND]
    program = Path(sys.argv[0])
    words = ["python", program.name] if program.suffix == ".py" else [program.name]
    return shlex.join([*words, *sys.argv[1:]])
