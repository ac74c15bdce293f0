"""The hook through which a search reports what happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pixeltune.config import ImageSpec
from pixeltune.search.state import SearchState
from pixeltune.space import Resources


class SearchCallback:
    """Hooks that a search calls as it runs; the progress display implements them."""

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:  # noqa: ARG002
        """Show, while the context lasts, what is waited for."""
        yield

    def begin(self, state: SearchState, resources: Resources, concurrent: int, form: ImageSpec) -> None:
        """Handle the start of the trials; the cluster is up."""

    def change(self) -> None:
        """Handle a trial that started, reported or ended."""

    def say(self, text: str) -> None:
        """Show a message to the user."""

    def end(self) -> None:
        """Handle the end of the last trial."""


class Callbacks(SearchCallback):
    """Several callbacks as one; each hook calls theirs in order.

    Args:
        callbacks: Them.
    """

    def __init__(self, *callbacks: SearchCallback) -> None:
        self._callbacks = callbacks

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show in all what is waited for."""
        with ExitStack() as stack:
            for callback in self._callbacks:
                stack.enter_context(callback.waiting(what))
            yield

    def begin(self, state: SearchState, resources: Resources, concurrent: int, form: ImageSpec) -> None:
        """Call `begin` of all."""
        for callback in self._callbacks:
            callback.begin(state, resources, concurrent, form)

    def change(self) -> None:
        """Call `change` of all."""
        for callback in self._callbacks:
            callback.change()

    def say(self, text: str) -> None:
        """Call `say` of all."""
        for callback in self._callbacks:
            callback.say(text)

    def end(self) -> None:
        """Call `end` of all."""
        for callback in self._callbacks:
            callback.end()
