"""Who is told of what happens in a search."""

from __future__ import annotations

from pixeltune.config import ImageSpec
from pixeltune.search.state import SearchState
from pixeltune.space import Resources


class SearchCallback:
    """Told of what happens; the progress display is one."""

    def begin(self, state: SearchState, resources: Resources, concurrent: int, form: ImageSpec) -> None:
        """The cluster is up and trials start."""

    def change(self) -> None:
        """A trial started, reported or ended."""

    def say(self, text: str) -> None:
        """Something that the user should read."""

    def end(self) -> None:
        """No trial runs any more."""
