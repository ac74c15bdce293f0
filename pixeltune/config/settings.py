"""Settings as text, `key=value`, read by the type of the key."""

from __future__ import annotations

import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pixeltune.config.own_classes import KINDS
from pixeltune.config.section import Section
from pixeltune.config.sections import DataConfig, OptimConfig, TrainConfig
from pixeltune.errors import ConfigError

_SECTIONS: Mapping[str, tuple[type[Section], ...]] = {
    "data": (DataConfig,),
    "optim": (OptimConfig,),
    "train": (TrainConfig,),
}
_NONE_WORDS = ("none", "null")
_WORDS = {"true": True, "false": False} | dict.fromkeys(_NONE_WORDS)
_POWER = re.compile(r"[+-]?(\d[\d_]*(\.\d*)?|\.\d+)[eE][+-]?\d+")
_DECIMAL = re.compile(r"[+-]?(\d[\d_]*\.|\.\d)[\d_]*")


def parse_setting(text: str) -> tuple[str, Any]:
    """Return key and value of a `key=value`, as given to --set.

    A key of text takes the value as it is written, quoted or not; a key of numbers takes what Python and TOML take,
    whole numbers also as 1e6. For other keys, and for values that are not of the key's type, the value is read as TOML
    where it is TOML, else as a bare word. `none` and `null`, `true` and `false` count in any case.

    Raises:
        ConfigError: It is no `key=value`.
    """
    key, sign, value = (part.strip() for part in text.partition("="))
    if not sign or not key:
        raise ConfigError(f"a setting must have the form key=value, but got {text!r}")
    kinds = _kinds_of(key)
    if value.lower() in _NONE_WORDS and ("none" in kinds or type(None) in kinds):
        return key, "none" if "none" in kinds else None
    if str in kinds:
        return key, _text(value)
    number = _number(value, float if float in kinds else int)
    return key, _bare(value) if number is None or not kinds & {int, float} else number


def has_none_as_word(key: str) -> bool:
    """Return whether `none` is a choice of the key's own, as of data.binarise, rather than no value."""
    return "none" in _kinds_of(key)


def _kinds_of(key: str) -> frozenset[object]:
    """Return the types that some class allows for a key, and its choices; none where no class has it."""
    if key == "seed":
        return frozenset({int})
    section, _, name = key.partition(".")
    classes = KINDS[section].classes() if section in KINDS else _SECTIONS.get(section, ())
    fields = [kind.model_fields[name] for kind in classes if name in kind.model_fields]
    return frozenset(kind for field in fields for kind in _flattened(field.annotation))


def _flattened(annotation: object) -> Iterator[object]:
    """Yield the plain types of an annotation, and the choices of a Literal with their types."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        for choice in typing.get_args(annotation):
            yield from (choice, type(choice))
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _flattened(part)
    else:
        yield annotation


def _text(value: str) -> str:
    """Return a text without its quotes, where it has some."""
    if value[:1] in ("'", '"'):
        read = _toml(value)
        return read if isinstance(read, str) else value
    return value


def _number(value: str, kind: type[int] | type[float]) -> int | float | None:
    """Return a number of this kind; None where the value is no such number."""
    try:
        if kind is int and _POWER.fullmatch(value):
            number = float(value)
            return int(number) if number.is_integer() else None
        return kind(value)
    except (ValueError, OverflowError):
        return None


def _bare(value: str) -> Any:
    """Return a value of a key without a known type."""
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    if _POWER.fullmatch(value) and (whole := _number(value, int)) is not None:
        return whole  # 1e6 images; a key of fractions takes a whole number too
    read = _toml(value)
    if read is not None:
        return read
    return float(value) if _DECIMAL.fullmatch(value) and _number(value, float) is not None else value


def _toml(value: str) -> Any:
    """Return a value of TOML; None where it is none, since TOML has no null."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except ValueError:
        return None
