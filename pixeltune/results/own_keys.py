"""Keys that only a family or a likelihood of the user's own has: one JSON column in files, further keys in rows.

Nothing here imports the class that a row names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pixeltune.config import DISCRIMINATORS, KINDS, Scalar, TrialConfig, is_own
from pixeltune.errors import StoreError
from pixeltune.own_code import combined
from pixeltune.results.schema import OWN_KEYS, TRIAL_COLUMNS


def own_columns(config: TrialConfig) -> dict[str, Any]:
    """Return the row columns that describe classes of the user's own."""
    keys = config.own_keys()
    return {OWN_KEYS: json.dumps(keys, sort_keys=True) if keys else None, "own_code": config.own_code()}


def own_keys_of(row: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return every key of the classes of the user's own that a row names; empty where they are built in.

    Raises:
        ValueError: The column holds anything but plain values of keys of a family or a likelihood.
    """
    return parse_own_keys(row.get(OWN_KEYS))


def has_key(row: Mapping[str, Any], key: str) -> bool:
    """Return whether the trial's family or likelihood has `key`; null may also be a value. No class is imported.

    Of a family or likelihood that this installation does not know, a trial has the keys with a value.
    """
    section, _, name = key.partition(".")
    if section not in KINDS:
        return True
    kind = KINDS[section]
    chosen = row[kind.key]
    if is_own(chosen):
        return key in own_keys_of(row)
    known = kind.built_in.get(chosen)
    return row.get(key) is not None if known is None else name in known.model_fields


def names_of_own(row: Mapping[str, Any]) -> str:
    """Return the import paths of the classes of the user's own that a row names, as text."""
    return " and ".join(str(row[kind.key]) for kind in KINDS.values() if is_own(row[kind.key]))


def code_here(row: Mapping[str, Any]) -> str | None:
    """Return the fingerprint that a row's classes of the user's own have here; None where one was not imported."""
    codes = [kind.code_of(row[kind.key]) for kind in KINDS.values() if is_own(row[kind.key])]
    return combined([code for code in codes if code]) if all(codes) else None


def require_code(name: str, row: Mapping[str, Any]) -> None:
    """Refuse classes of the user's own that were imported here and have other code than those that made a row.

    Args:
        name: What the row is of, such as SEARCH/TRIAL.
        row: A row of the results.

    Raises:
        StoreError: Their source files are others.
    """
    here = code_here(row)
    if None not in (row["own_code"], here) and row["own_code"] != here:
        raise StoreError(
            f"{names_of_own(row)} must be the code that {name} was trained with (fingerprint {row['own_code']}), but "
            f"it has changed since (here {here}); put it back, or take another name or --storage"
        )


def parse_own_keys(text: str | None) -> dict[str, Scalar]:
    """Return the content of the column `own_keys`; ValueError as in `own_keys_of`."""
    if not text:
        return {}
    keys = json.loads(text)
    if not isinstance(keys, dict) or not all(_is_key(key, value) for key, value in keys.items()):
        raise ValueError(
            f"`{OWN_KEYS}` must hold values of keys of {' and '.join(DISCRIMINATORS)}, but got {text[:80]}"
        )
    return keys


def _is_key(key: str, value: object) -> bool:
    section, _, name = key.partition(".")
    return section in DISCRIMINATORS and name.isidentifier() and isinstance(value, bool | int | float | str | None)


def new_keys(keys: Iterable[str]) -> list[str]:
    """Return the keys that have no column of their own, sorted."""
    return sorted({key for key in keys if key not in TRIAL_COLUMNS})


def spread(rows: Sequence[dict[str, Any]]) -> None:
    """Give each row the keys that only classes of the user's own have, None where its own class has them not."""
    own = [parse_own_keys(row.get(OWN_KEYS)) for row in rows]
    names = new_keys(key for keys in own for key in keys)
    for row, keys in zip(rows, own, strict=True):
        row.update({name: keys.get(name) for name in names})
