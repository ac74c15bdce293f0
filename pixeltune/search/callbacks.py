"""Who is told of what happens in a search."""

from __future__ import annotations

from pixeltune.config import ImageForm
from pixeltune.search.state import Ledger
from pixeltune.space import Resources


class Listener:
    """Told of what happens; the progress display is one."""

    def begin(self, ledger: Ledger, resources: Resources, concurrent: int, form: ImageForm) -> None:
        """The cluster is up and trials start."""

    def change(self) -> None:
        """A trial started, reported or ended."""

    def say(self, text: str) -> None:
        """Something that the user should read."""

    def end(self) -> None:
        """No trial runs any more."""
