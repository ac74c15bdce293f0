"""Words of a command line without the secrets in them: the addresses of `--notify`."""

from __future__ import annotations

from collections.abc import Iterable

OPTION = "--notify"
HIDDEN = "***"
_SHORTEST = "--no"
"""The shortest beginning of the option that argparse may accept for it."""


def masked_url(url: str) -> str:
    """Return the kind of an address without the rest, in which any part may be a secret."""
    kind, colon, _rest = url.partition("://")
    return f"{kind}://{HIDDEN}" if colon and kind.isalnum() else HIDDEN


def masked_words(words: Iterable[str]) -> list[str]:
    """Return the words of a command line, with masked addresses; also those of `--notify=URL` and `--not URL`."""
    found: list[str] = []
    is_next = False
    for word in words:
        name, equals, value = word.partition("=")
        is_option = len(name) >= len(_SHORTEST) and OPTION.startswith(name)
        if is_next:
            found.append(masked_url(word))
        elif is_option and equals:
            found.append(f"{name}={masked_url(value)}")
        else:
            found.append(word)
        is_next = is_option and not equals and not is_next
    return found
