from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixeltune.config import TrialConfig, parse_setting
from tests.support.config_strategies import configs, refusal

TINY = TrialConfig.build(
    {"data": {"name": "digits"}, "model": {"family": "gated"}, "likelihood": {"name": "categorical"}}
)


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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("optim.lr=.005", 0.005),
        ("optim.eps=5.", 5.0),
        ("optim.lr=+1", 1.0),
        ("optim.lr=1e-3", 1e-3),
        ("optim.lr=nan", "must be a finite number"),
        ("optim.lr=abc", "must be a number, but got 'abc'"),
        ("optim.lr=[1e-3]", "must be a number, but got [0.001]"),
        ("optim.lr='1'", "must be a number, but got '1'"),
        ("optim.lr=none", "must be a number, but got None"),
        ("optim.clip=.5", 0.5),
        ("optim.clip=None", None),
        ("optim.clip=null", None),
        ("data.path=2024", "2024"),
        ("data.path=007", "007"),
        ("data.path=1e5", "1e5"),
        ("data.path=true", "true"),
        ("data.path=[1]", "[1]"),
        ("data.path=1979-05-27", "1979-05-27"),
        ("data.path=none", None),
        ("data.path=NULL", None),
        ("data.path='none'", "none"),
        ('data.path="2024"', "2024"),
        ("data.path='it", "'it"),
        ("data.path=", "must be a folder or a file, but got ''"),
        ("data.name=2024", "2024"),
        ("data.name=none", "none"),
        ("data.binarise=None", "none"),
        ("data.binarise=true", "but got 'true'"),
        ("data.grey=TRUE", True),
        ("data.grey=1", "must be true or false, but got 1"),
        ("data.grey=yes", "must be true or false, but got 'yes'"),
        ("data.levels=1_6", 16),
        ("data.levels=null", None),
        ("train.images=+1_600", 1600),
        ("train.images=1.6e3", 1600),
        ("train.images=0x640", 1600),
        ("train.images=1600.0", "must be a whole number, but got 1600.0"),
        ("train.images=1__6", "must be a whole number, but got '1__6'"),
        ("train.images='1600'", "must be a whole number, but got '1600'"),
        ("train.images=none", "must be a whole number, but got None"),
        ("train.images=", "must be a whole number, but got ''"),
        ("train.micro_batch=None", None),
        ("model.conditioning=None", "none"),
        ("seed=1e3", 1000),
    ],
)
def test_a_value_is_read_by_the_type_of_its_key(text: str, value: Any) -> None:
    key, got = parse_setting(text)
    if isinstance(value, str) and value.startswith(("must be ", "but got ")):
        words = refusal(lambda: TINY.override({key: got}))
        assert words.startswith(f"`{key}` ")
        assert value in words
    else:
        stored = TINY.override({key: got}).flat()[key]
        assert stored == value
        assert type(stored) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("budget.hours=.5", 0.5), ("budget.trials=1e2", 100), ("resources.gpus=1.", 1.0), ("budget.trials=-.5", -0.5)],
)
def test_keys_of_a_search_take_the_same_numbers(text: str, value: float) -> None:
    _, got = parse_setting(text)
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
