"""A digest inside the file that it protects: a flipped bit, or a cut, is found when the file is read.

A file holds `pixeltune:sha256:` and 64 hexadecimal digits where its format has room for text: in the key-value
metadata of a Parquet file, in the header of a safetensors file, as the last key of a JSON object, at the end of a
training state. The digits are the SHA-256 of the whole file with zeros in their place. So the digest is published
together with what it protects, in one rename or PUT, and other programs read the file as they read any of its kind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "sha256"
"""The name of the digest where a format has names; a file with this name and no readable digest is damaged."""

_MARK = b"pixeltune:sha256:"
_ZEROS = b"0" * 64

PLACEHOLDER = (_MARK + _ZEROS).decode()
"""What `seal` replaces, of the same length as the digest."""


class DigestError(ValueError):
    """A file that is not as it was written."""

    def __init__(self) -> None:
        super().__init__("its bytes are not those that were written (SHA-256)")


def seal(content: bytes) -> bytes:
    """Return `content` with its digest in place of the last PLACEHOLDER, behind which nothing may look like one."""
    start = content.rfind(_MARK) + len(_MARK)
    if content[start : start + len(_ZEROS)] != _ZEROS:
        raise ValueError("a file must end with room for its digest, or have nothing like a digest behind it")
    return content[:start] + _digits(content, start) + content[start + len(_ZEROS) :]


def verify(content: bytes) -> bool:
    """Return whether `content` has a digest: files of earlier versions have none.

    Raises:
        DigestError: The digest does not match the content.
    """
    mark = content.rfind(_MARK)
    if mark < 0:
        return False
    start = mark + len(_MARK)
    if content[start : start + len(_ZEROS)] != _digits(content, start):
        raise DigestError
    return True


def seal_json(tree: Mapping[str, Any]) -> bytes:
    """Return a readable JSON object with its digest as the last key."""
    return seal((json.dumps({**tree, KEY: PLACEHOLDER}, indent=2, ensure_ascii=False) + "\n").encode())


def open_json(content: bytes) -> Any:
    """Return the JSON value in `content`, without its digest.

    Raises:
        DigestError: The digest does not match the content, or cannot be read.
        ValueError: The content is no JSON.
    """
    is_sealed = verify(content)
    tree = json.loads(content)
    if isinstance(tree, dict) and KEY in tree:
        if not is_sealed:
            raise DigestError
        del tree[KEY]
    return tree


def _digits(content: bytes, start: int) -> bytes:
    """Return the 64 digits for `content`, whose own place for them begins at `start`."""
    view = memoryview(content)
    digest = hashlib.sha256(view[:start])
    digest.update(_ZEROS)
    digest.update(view[start + len(_ZEROS) :])
    return digest.hexdigest().encode()
