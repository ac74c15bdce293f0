"""Every key that a configuration, a search file and `--set` take: type, values, default and meaning.

The meaning of a key is the text of its field: in `config.sections`, `config.families`, `config.likelihoods` and
`space.parts`.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from pixeltune.config import DISCRIMINATORS, FAMILIES, LIKELIHOODS, Scalar, TrialConfig
from pixeltune.config.section import Section
from pixeltune.space.keys import value_text
from pixeltune.space.metrics import METRICS
from pixeltune.space.parts import SCHEDULERS, Budget, Patience, Resources

REQUIRED = "required"
"""The default of a key that must be given."""

_TYPES: dict[object, str] = {int: "whole number", float: "number", str: "text"}


@dataclass(frozen=True, kw_only=True)
class KeyReference:
    """A key as a user sets it.

    Attributes:
        key: The dotted key.
        default: Its default as text, `REQUIRED` where it has none.
        kind: Its type: `whole number`, `number`, `text`, `choice`, `true | false`.
        values: The choices, or the range; "" for any value of the type.
        meaning: What it does, in one line.
    """

    key: str
    default: str
    kind: str
    values: str
    meaning: str

    @property
    def form(self) -> str:
        """Return type and values in one text, such as `whole number, 1…4096` or `a | b`."""
        if self.kind in ("choice", self.values):
            return self.values
        return f"{self.kind}, {self.values}" if self.values else self.kind


def config_reference(config: TrialConfig) -> list[KeyReference]:
    """Return the keys that this configuration has, in its order, with the defaults of its family and likelihood."""
    return [_config_key(config, key) for key in config.flat()]


def search_reference() -> list[KeyReference]:
    """Return the keys of a search that no configuration has: budget, scheduler, resources, patience, constraints."""
    return [
        *_part_keys("budget", (Budget,)),
        KeyReference(
            key="scheduler",
            default="none",
            kind="choice",
            values=" | ".join([*SCHEDULERS, "none"]),
            meaning="early stopping by ASHA, by the median, or for several objectives by a Pareto front",
        ),
        *_part_keys("scheduler", tuple(SCHEDULERS.values())),
        *_part_keys("resources", (Resources,)),
        *_part_keys("patience", (Patience,)),
        *(
            KeyReference(
                key=f"constraints.{name}",
                default="none",
                kind="number or none",
                values="",
                meaning=f"the {'most' if direction == 'minimize' else 'least'} that a trial may have of it",
            )
            for name, direction in METRICS.items()
        ),
    ]


def _config_key(config: TrialConfig, key: str) -> KeyReference:
    section, _, name = key.rpartition(".")
    owner: type[Section] = type(getattr(config, section)) if section else type(config)
    field = owner.model_fields[name]
    kind, values = _form(field)
    if name == DISCRIMINATORS.get(section):
        known = (
            [*FAMILIES] if section == "model" else [each for each in LIKELIHOODS if each in config.model.likelihoods]
        )
        kind, values = "choice", " | ".join([*known, "package.module:ConfigClass"])
    return KeyReference(
        key=key,
        default=REQUIRED if field.is_required() or name == DISCRIMINATORS.get(section) else value_text(field.default),
        kind=kind,
        values=values,
        meaning=_meaning(owner, name),
    )


def _form(field: FieldInfo) -> tuple[str, str]:
    """Return the type of a field and its values."""
    parts = _parts(field.annotation)
    optional = " or none" if type(None) in parts else ""
    choices = [
        choice for part in parts if typing.get_origin(part) is typing.Literal for choice in typing.get_args(part)
    ]
    if choices:
        return "choice", " | ".join(map(value_text, choices)) + optional
    if bool in parts:
        return "true | false", "true | false"
    plain = next(_TYPES[part] for part in parts if part in _TYPES)
    return plain + optional, _bounds(field)


def _parts(annotation: object) -> Sequence[object]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _bounds(field: FieldInfo) -> str:
    """Return the range of a number: `1…4096`, `above 0…1`, `0…below 1`, `≥ 1` or `> 0`; "" without bounds."""
    found: dict[str, Any] = {
        name: getattr(each, name) for each in field.metadata for name in ("ge", "gt", "le", "lt") if hasattr(each, name)
    }
    low = next((word + _end(found[name]) for name, word in (("ge", ""), ("gt", "above ")) if name in found), "")
    high = next((word + _end(found[name]) for name, word in (("le", ""), ("lt", "below ")) if name in found), "")
    if low and high:
        return f"{low}…{high}"
    return low.replace("above", ">") if "gt" in found else f"≥ {low}" if low else high


def _end(value: float) -> str:
    """Return an end of a range; a large power of two as such."""
    power = int(value).bit_length() - 1
    return f"2^{power}" if power > 31 and value == 1 << power else value_text(value)


def _meaning(owner: type[Section], name: str) -> str:
    """Return the description of a field, of the nearest class that describes it; the reader is a user, not Python."""
    for kind in owner.__mro__:
        field = kind.model_fields.get(name) if issubclass(kind, Section) else None
        if field is not None and field.description:
            return " ".join(field.description.split()).rstrip(".")
    return ""


def _part_keys(section: str, kinds: Sequence[Any]) -> Iterator[KeyReference]:
    """Yield the fields of parts that share a section; a key of several is one, and says whose it is."""
    fields: dict[str, dataclasses.Field[Any]] = {}
    owners: dict[str, list[str]] = {}
    for kind in kinds:
        for field in dataclasses.fields(kind):
            fields.setdefault(field.name, field)
            owners.setdefault(field.name, []).append(kind.__name__.lower())
    for name, field in fields.items():
        whose = f"{' and '.join(owners[name])}: " if len(kinds) > 1 else ""
        yield KeyReference(
            key=f"{section}.{name}",
            default=_default_text(field.default),
            kind=_part_kind(str(field.type)),
            values=field.metadata["values"],
            meaning=f"{whose}{field.metadata['meaning']}",
        )


def _default_text(default: Scalar | object) -> str:
    return REQUIRED if default is dataclasses.MISSING else value_text(default)


def _part_kind(annotation: str) -> str:
    if annotation.startswith("tuple"):
        return "list of whole numbers"
    return ("number" if "float" in annotation else "whole number") + " or none" * ("None" in annotation)
