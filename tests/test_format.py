"""Text of numbers with units: where one unit ends and the next begins."""

from __future__ import annotations

import pytest

from pixeltune.errors import did_you_mean, first_line
from pixeltune.format import counted, enumerated, hours, listed, minutes, rough_duration, size, size_text, span


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (size(999), "999 B"),
        (size(1000), "1 kB"),
        (size(86_240_000), "86.2 MB"),
        (size(2e9), "2 GB"),
        (size_text(0), "0.0 MB"),
        (size_text(999_900_000), "999.9 MB"),
        (size_text(1e9), "1.0 GB"),
        (size_text(150_000_000, gigabytes_from=1e8), "0.1 GB"),
        (size_text(1_229_800_000_000), "1,229.8 GB"),
        (span(59.9), "59.9 s"),
        (span(60), "1:00 min"),
        (span(359_999), "99:59:59 h"),
        (span(360_000), "100 h"),
        (rough_duration(0.033), "119 seconds"),
        (rough_duration(1.99), "119 minutes"),
        (rough_duration(2), "2 hours"),
        (minutes(330), "6 min"),
        (hours(4500), "1.25"),
        (counted(0, "trial"), "0 trials"),
        (counted(1, "trial"), "1 trial"),
        (counted(1000, "trial"), "1,000 trials"),
        (listed("abc", most=3), "a, b, c"),
        (listed("abc", most=2), "a, b and 1 more"),
        (enumerated(["a"]), "a"),
        (enumerated(["a", "b"]), "a and b"),
        (enumerated(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_texts(text: str, expected: str) -> None:
    assert text == expected


def test_the_first_line_of_a_message() -> None:
    assert first_line(ValueError("\nbad\nworse")) == "bad"
    assert first_line(ValueError("bad"), "unused", with_type=True) == "ValueError: bad"
    assert first_line(ValueError(" ")) == first_line(ValueError(" "), with_type=True) == "ValueError"
    assert first_line(MemoryError(), "out of memory") == "out of memory"


def test_the_nearest_name_is_suggested() -> None:
    assert did_you_mean("cifr10", ["cifar10", "mnist"]) == "did you mean cifar10?"
    assert did_you_mean("lr", {"optim.lr": 1, "lrs": 2}, as_code=True) == "did you mean `lrs`?"
    assert did_you_mean("zzz", ["cifar10", "mnist"]) == ""
