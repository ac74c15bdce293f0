from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixeltune.digest import KEY, PLACEHOLDER, DigestError, open_json, seal, seal_json, verify

ROOM = PLACEHOLDER.encode()


around = st.binary(max_size=50).filter(lambda content: ROOM[:17] not in content)


@given(around, around, st.data())
def test_any_flipped_bit_and_any_cut_behind_the_mark_is_found(before: bytes, after: bytes, data: st.DataObject) -> None:
    sealed = seal(before + ROOM + after)
    assert len(sealed) == len(before + ROOM + after)
    assert verify(sealed)
    place = data.draw(st.integers(0, 8 * len(sealed) - 1))
    damaged = bytearray(sealed)
    damaged[place // 8] ^= 1 << place % 8
    if len(before) <= place // 8 < len(before) + 17:
        assert not verify(bytes(damaged)), "without its mark it looks like a file of earlier versions"
    else:
        with pytest.raises(DigestError):
            verify(bytes(damaged))
    for length in range(len(before) + 17, len(sealed)):
        with pytest.raises(DigestError):
            verify(sealed[:length])


def test_damage_to_the_mark_is_found_where_the_content_has_another() -> None:
    sealed = bytearray(seal(ROOM[:17] + ROOM))
    sealed[17] ^= 1
    with pytest.raises(DigestError):
        verify(bytes(sealed))


def test_the_digits_are_those_of_the_file_with_zeros_in_their_place() -> None:
    """Anyone can check them."""
    sealed = seal(b"some " + ROOM + b" bytes")
    assert sealed[22:86].decode() == hashlib.sha256(b"some " + ROOM + b" bytes").hexdigest()


def test_what_has_no_digest_says_so() -> None:
    assert not verify(b"")
    assert not verify(b"pixeltune:sha256")
    for content in (b"no room", ROOM + b" " + ROOM[:17]):
        with pytest.raises(ValueError, match="room for its digest"):
            seal(content)


def test_json_keeps_its_order_and_loses_its_digest_when_opened() -> None:
    tree = {"b": 1, "a": ["é", None, PLACEHOLDER]}
    content = seal_json(tree)
    assert list(json.loads(content)) == ["b", "a", KEY]
    assert open_json(content) == tree
    assert open_json(b'{"a": 1}') == {"a": 1}
    assert open_json(b"[3]") == [3]
    with pytest.raises(DigestError):
        open_json(content.replace(b"null", b"true"))
