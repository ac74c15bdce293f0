from __future__ import annotations

from typing import Any

import pytest
from config_strategies import configs, refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from pixeltune.config import TrialConfig, parse_setting


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("24_000", 24_000),
        ("1e-3", 1e-3),
        ("1e3", 1000),
        ("3.0", 3.0),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("none", None),
        ("None", None),
        ("'none'", "none"),
        ('"3"', "3"),
        ('"true"', "true"),
        ("mnist", "mnist"),
        ("my.module:images", "my.module:images"),
        ("/data/a b.npz", "/data/a b.npz"),
        ("a=b", "a=b"),
        ("", ""),
        ("[1000, 2000]", [1000, 2000]),
        (" 3 ", 3),
    ],
)
def test_values_are_toml_or_bare_words(text: str, value: Any) -> None:
    key, got = parse_setting(f"model.layers={text}")
    assert key == "model.layers"
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("text", ["model.layers", "=3", " =3", ""])
def test_a_setting_without_key_or_sign_is_refused(text: str) -> None:
    assert refusal(lambda: parse_setting(text)) == f"a setting must have the form key=value, but got {text!r}"


def test_spaces_around_the_key_do_not_count() -> None:
    assert parse_setting(" model.layers = 3") == ("model.layers", 3)


@given(config=configs(), data=st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_setting_can_be_typed(config: TrialConfig, data: st.DataObject) -> None:
    """What a configuration holds can be given as --set and comes back."""
    key = data.draw(st.sampled_from(list(config.flat())))
    value = config.flat()[key]
    text = "none" if value is None else str(value)
    if isinstance(value, str):
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        text = f'"{quoted}"'
    assert config.override(dict([parse_setting(f"{key}={text}")])) == config
