"""The hook through which a search reports what happens."""

from __future__ import annotations

from pixeltune.config import ImageSpec
from pixeltune.search.state import SearchState
from pixeltune.space import Resources


class SearchCallback:
    """Is called as a search runs; the progress display is one."""

    def begin(self, state: SearchState, resources: Resources, concurrent: int, form: ImageSpec) -> None:
        """The cluster is up and trials start."""

    def change(self) -> None:
        """A trial started, reported or ended."""

    def say(self, text: str) -> None:
        """Something that the user should read."""

    def end(self) -> None:
        """No trial runs any more."""
