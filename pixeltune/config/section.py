"""The frozen pydantic base of every section, and pydantic's complaints turned into one line."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, ValidationError

from pixeltune.errors import ConfigError, did_you_mean


class Section(BaseModel):
    """A part of the configuration: validated once, never edited; an unknown key is an error.

    The text below a field describes its key in `pixeltune config`, in the results' schema and in the documentation.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def unknown_key(key: str, known: Iterable[str]) -> ConfigError:
    """Return the error for a key that does not exist: it names the nearest one and lists all."""
    names = sorted(known)
    hint = did_you_mean(key, names, as_code=True)
    return ConfigError(f"unknown key `{key}`; {hint}{' ' if hint else ''}known keys are {', '.join(names)}")


_PLAIN_WORDS = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "dictionary": "a table",
}
"""Pydantic's "a valid …" as a user of TOML would say it."""


def one_line(error: ValidationError, section: str = "") -> ConfigError:
    """Return the first complaint of a ValidationError as `key must …, but got …`."""
    first = error.errors(include_url=False)[0]
    key = ".".join([*([section] if section else []), *(str(part) for part in first["loc"])])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return cause
    if first["type"] == "extra_forbidden":
        return ConfigError(f"unknown key `{key}`; remove it or see `pixeltune config` for the known keys")
    if first["type"] == "missing":
        return ConfigError(f"`{key}` must be given, but the configuration lacks it")
    if first["type"] == "value_error":
        where = f"`{key}`: " if key else ""
        return ConfigError(f"{where}{cause}")
    rule = first["msg"].removeprefix("Input should be ")
    plain = next((word for kind, word in _PLAIN_WORDS.items() if rule.startswith(f"a valid {kind}")), rule)
    return ConfigError(f"`{key}` must be {plain}, but got {first['input']!r}")
