"""Messages at the end of a search, a final or a training, through apprise; the secrets in their addresses stay here.

An address such as slack://TOKEN/CHANNEL is a secret. It is sent to its service alone: printed commands, errors and
Ray's list of drivers show `slack://***`, and a job of a cluster does not get it.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixeltune.cli.common import command_again
from pixeltune.errors import ConfigError, first_line
from pixeltune.format import duration
from pixeltune.masking import HIDDEN, OPTION, masked_url
from pixeltune.own_code import exception_words
from pixeltune.packages import require_packages

if TYPE_CHECKING:
    from pixeltune.search.attempt import Row
    from pixeltune.search.run import Outcome

VARIABLE = "PIXELTUNE_NOTIFY"
"""The environment variable that holds addresses, separated by white space."""
_SEND_SECONDS = 20.0


def add_notify(parser: argparse.ArgumentParser) -> None:
    """Add the repeatable --notify."""
    parser.add_argument(
        OPTION,
        action="append",
        default=[],
        metavar="URL",
        help=f"send a message to this address of apprise at the end, such as slack://…; repeatable [{VARIABLE}]",
    )


def addresses_of(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the addresses of the options and of the environment, each once; only those that apprise accepts.

    Raises:
        MissingPackageError: apprise is not installed.
        ConfigError: An address is not valid.
    """
    urls = tuple(dict.fromkeys([*options.notify, *os.environ.get(VARIABLE, "").split()]))
    if urls:
        require_packages(OPTION, "apprise")
    for url in urls:
        if HIDDEN in url:
            raise ConfigError(
                f"{OPTION} must have the whole address, but got {masked_url(url)}, as printed commands hide its "
                f"secrets; give it again, or set {VARIABLE}"
            )
        if not _is_valid(url):
            raise ConfigError(
                f"{OPTION} must be an address of apprise, such as slack://TOKEN/CHANNEL, but got "
                f"{masked_url(url)}, which apprise cannot read; its documentation lists the forms"
            )
    return urls


def require_no_address_in_job(options: argparse.Namespace) -> None:
    """Refuse an address in the command of a job, which everyone on a cluster can read.

    Raises:
        ConfigError: One is given.
    """
    if options.notify:
        raise ConfigError(
            f"{OPTION} must not be given with --cluster, because a job's command is no secret; set {VARIABLE} in the "
            "environment of the cluster's head, and leave it out"
        )


@dataclass
class Ending:
    """What the message at the end says; a launch that sets nothing has failed with an exception.

    Attributes:
        title: What happened.
        lines: More of it.
        can_resume: Whether the same command resumes it.
    """

    title: str = ""
    lines: tuple[str, ...] = ()
    can_resume: bool = False

    def of_search(self, outcome: Outcome) -> None:
        """Take over the end of a search or a final."""
        from pixeltune.results.ranking import bound_mark, counted_statuses
        from pixeltune.results.repeats import error_text, trial_text

        state = outcome.state
        if state.at_target() is not None:
            self.title = "reached its target"
        elif outcome.interrupted:
            self.title = "was stopped"
        else:
            self.title = "ended" if outcome.has_result else "ended without a result"
        best = None if state.space.is_final else state.best()
        lines = [f"Why: {outcome.reason}."]
        if best is not None:
            lines.append(
                f"Best: {bound_mark(best)}{best[state.objective]:.4f}{error_text(best, state.objective)} "
                f"({state.objective}), trial {trial_text(best)}."
            )
        lines.append(f"Trials: {counted_statuses(list(state.ended.values())) or 'none'}.")
        self.lines = tuple(lines)
        self.can_resume = outcome.interrupted

    def of_training(self, row: Row) -> None:
        """Take over the end of `pixeltune train`."""
        from pixeltune.results.ranking import bound_mark
        from pixeltune.results.schema import Status

        status = Status(row["status"])
        titles = {Status.FINISHED: "ended", Status.INTERRUPTED: "was stopped"}
        self.title = titles.get(status, f"failed ({status})")
        lines = [f"Why: {row['reason']}"] if row["reason"] else []
        if row["valid_bits_per_dim"] is not None:
            lines.append(f"Best: {bound_mark(row)}{row['valid_bits_per_dim']:.4f} bits/dim.")
        self.lines = (*lines, f"Images: {row['images_seen'] or 0:,}.")
        self.can_resume = status in (Status.INTERRUPTED, Status.FAILED)


@contextmanager
def notified(urls: Sequence[str], name: str) -> Iterator[Ending]:
    """Send a message when the context ends, also by an exception. name: of the search, for its title."""
    ending, began = Ending(), time.monotonic()
    try:
        yield ending
    except KeyboardInterrupt:
        ending.title = ending.title or "was stopped"
        ending.can_resume = True
        raise
    except BaseException as error:
        ending.title, ending.can_resume = "failed", True
        ending.lines = (f"Why: {first_line(error, exception_words(error))}",)
        raise
    finally:
        if urls and ending.title:
            again = [f"To go on: {command_again()}"] if ending.can_resume else []
            lines = [*ending.lines, f"Time of this launch: {duration(time.monotonic() - began)}.", *again]
            _send_all(urls, f"pixeltune: {name} {ending.title}", "\n".join(lines))


def _is_valid(url: str) -> bool:
    import apprise

    with _silent():
        try:
            return bool(apprise.Apprise.instantiate(url, suppress_exceptions=True))
        except Exception:  # a plugin's own, whose text may have the secret
            return False


def _send_all(urls: Sequence[str], title: str, text: str) -> None:
    """Send a message to all addresses at once; one warning for each that does not take it in time."""
    taken: set[str] = set()

    def send(url: str) -> None:
        import apprise

        with suppress(Exception):
            service = apprise.Apprise()
            if service.add(url) and service.notify(body=text, title=title):
                taken.add(url)

    with _silent():
        threads = [threading.Thread(target=send, args=(url,), daemon=True) for url in urls]
        for thread in threads:
            thread.start()
        until = time.monotonic() + _SEND_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
    for url in urls:
        if url not in taken:
            print(f"pixeltune: the message to {masked_url(url)} could not be sent; results are kept", file=sys.stderr)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what apprise logs to itself: it may have the address."""
    logger = logging.getLogger("apprise")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
