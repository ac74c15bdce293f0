"""TrialConfig: everything that decides a trial's number, as one frozen tree with dotted keys."""

from __future__ import annotations

import codecs
import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from pixeltune.config.families import Causality, FamilyConfig
from pixeltune.config.likelihoods import LikelihoodConfig
from pixeltune.config.own_classes import KINDS, StoredFamily, StoredLikelihood, stored
from pixeltune.config.section import Section, one_line, unknown_key
from pixeltune.config.sections import DataConfig, OptimConfig, TrainConfig
from pixeltune.config.settings import has_none_as_word
from pixeltune.errors import ConfigError
from pixeltune.files import expand_home
from pixeltune.own_code import combined, is_own

Scalar = bool | int | float | str | None

DISCRIMINATORS = {section: kind.discriminator for section, kind in KINDS.items()}
"""The key of a section that chooses its class, and with it which other keys exist."""

LOCATION_KEYS = ("data.path", "data.download", "data.follow_links")
"""Keys that say where the data is stored, not what it is."""

MEMORY_KEYS = ("train.micro_batch", "train.checkpoint_activations")
"""Keys that say how a step is fitted into memory, not what it computes: as the number of workers, they change rounding
and, where there is dropout, its draws."""

KEYS_NOT_HASHED = (*LOCATION_KEYS, *MEMORY_KEYS)
"""Keys that are no part of a configuration's identity."""


def _family(value: Any) -> Any:
    return KINDS["model"].build(value)


def _likelihood(value: Any) -> Any:
    return KINDS["likelihood"].build(value)


class TrialConfig(Section):
    """One trial: what is trained, on which images, and how."""

    data: DataConfig
    """the images (see `DataConfig`)."""
    model: Annotated[SerializeAsAny[FamilyConfig], BeforeValidator(_family)]
    """the network, by `family` (see `FamilyConfig`)."""
    likelihood: Annotated[SerializeAsAny[LikelihoodConfig], BeforeValidator(_likelihood)]
    """the distribution of a pixel given the network's output, by `name`."""
    optim: OptimConfig = OptimConfig()
    """the optimiser."""
    train: TrainConfig = TrainConfig()
    """how long training takes, in which batches and with which precision."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """of initialisation, data order, dropout and samples (see `seed_for`)."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        # What a likelihood of the user's own fits is for it to say, in `require_form`.
        if self.likelihood.name not in self.model.likelihoods and not is_own(self.likelihood.name):
            raise ConfigError(
                f"family {self.model.family} takes likelihood {', '.join(self.model.likelihoods)}, "
                f"but got {self.likelihood.name}"
            )
        _require_mixture_to_couple(self.model, self.likelihood)
        _require_whole_batch(self.model, self.train)
        _require_multiple("train.images", self.train.images, self.train.batch_size)
        if self.train.stop_after is not None:
            _require_multiple("train.stop_after", self.train.stop_after, self.train.batch_size)
            if self.train.stop_after > self.train.images:
                raise ConfigError(
                    f"`train.stop_after` must be at most train.images, but got {self.train.stop_after} and "
                    f"{self.train.images}; raise train.images"
                )
        if self.train.report_every is not None:
            _require_multiple("train.report_every", self.train.report_every, self.train.batch_size)
        return self

    @classmethod
    def build(cls, tree: Mapping[str, Any]) -> Self:
        """Validate a nested mapping.

        Args:
            tree: Sections by name, each a mapping of its keys, and `seed`.

        Raises:
            ConfigError: It says in one line what is wrong with which key.
        """
        for section, value in tree.items():
            if section not in cls.model_fields:
                raise unknown_key(section, cls.model_fields)
            kind = cls.model_fields[section].annotation
            if section not in DISCRIMINATORS and isinstance(kind, type) and issubclass(kind, Section):
                _require_known(section, value, kind)
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise one_line(error) from None

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a TOML file with the sections data, model, likelihood, optim, train and the key seed.

        Args:
            path: The file, in UTF-8; `~` is the home folder.

        Raises:
            ConfigError: The file is missing, unreadable or not TOML, or as in `build`.
        """
        try:
            content = expand_home(path).read_bytes()
        except FileNotFoundError:
            raise ConfigError(f"a configuration file must exist, but there is none at {path}") from None
        except OSError as error:
            raise ConfigError(f"a configuration file must be readable, but {path} is not: {error.strerror}") from None
        try:
            text = content.decode("utf-8").removeprefix("\ufeff")  # editors on Windows begin a file with a mark
        except UnicodeDecodeError as error:
            is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            found = "UTF-16" if is_wide else f"not: byte {error.start} is {content[error.start]:#04x}"
            raise ConfigError(f"a configuration must be UTF-8, but {path} is {found}; save it as UTF-8") from None
        try:
            tree = tomllib.loads(text)
        except ValueError as error:  # TOML, or a number of thousands of digits
            raise ConfigError(f"a configuration must be TOML, but {path} is not: {error}") from None
        return cls.build(tree)

    def to_toml(self) -> str:
        """Return TOML that `from_toml` reads back: every key with a value; those left out have none."""
        import tomli_w  # training and evaluation do without it

        tree: dict[str, Any] = {}
        for key, value in self.flat().items():
            if value is not None:
                section, _, name = key.rpartition(".")
                (tree.setdefault(section, {}) if section else tree)[name] = value
        return tomli_w.dumps(tree)

    @classmethod
    def from_flat(cls, flat: Mapping[str, Scalar]) -> Self:
        """Build the configuration of what `flat` gave; keys that are left out take their defaults.

        Args:
            flat: Values by dotted key.

        Raises:
            ConfigError: As in `build`.
        """
        tree: dict[str, Any] = {}
        for key, value in flat.items():
            section, dot, name = key.partition(".")
            if dot:
                tree.setdefault(section, {})[name] = value
            else:
                tree[section] = value
        return cls.build(tree)

    def flat(self) -> dict[str, Scalar]:
        """Return every dotted key with its value, in the order of the tree."""
        return dict(_flatten(self.model_dump()))

    def override(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with dotted keys changed.

        A change of `model.family` or `likelihood.name` keeps the keys that both classes declare alike and takes the
        new class's defaults for the rest, such as `model.variant`, whose choices are each family's own.

        Args:
            changes: New values by dotted key.

        Raises:
            ConfigError: A key does not exist, or as in `build`.
        """
        with stored() if self._is_stored() else nullcontext():
            return self._override(changes)

    def _override(self, changes: Mapping[str, Any]) -> Self:
        tree = self.model_dump()
        for section, discriminator in DISCRIMINATORS.items():
            name = changes.get(f"{section}.{discriminator}")
            if name is not None and name != tree[section][discriminator]:
                tree[section] = _keep_shared(section, tree[section], name)
        for key, value in changes.items():
            _set(tree, key, value)
        return self.build(tree)

    def imported(self) -> Self:
        """Return the same configuration with the classes of your own that it names, which are imported for it.

        Raises:
            ConfigError: A class cannot be imported, or takes other keys.
        """
        return self.build(self.model_dump())

    def changed(self) -> dict[str, Scalar]:
        """Return the dotted keys that differ from their defaults; required keys and discriminators always."""
        return {key: value for key, value in self.flat().items() if not self._is_default(key, value)}

    def key(self) -> str:
        """Return 12 hex digits that name this configuration; a new option with its default does not change it."""
        identity = {key: value for key, value in self.changed().items() if key not in KEYS_NOT_HASHED}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]

    def own_keys(self) -> dict[str, Scalar]:
        """Return every dotted key of a family and a likelihood of the user's own; none where both are built in."""
        return {key: value for key, value in self.flat().items() if self._is_own(key.partition(".")[0])}

    def own_code(self) -> str | None:
        """Return 16 hex digits for the code of a family and a likelihood of the user's own; None without them."""
        codes = [kind.code_of(getattr(getattr(self, section), kind.discriminator)) for section, kind in KINDS.items()]
        return combined([code for code in codes if code is not None])

    def seed_for(self, purpose: str, *indices: int) -> int:
        """Return an independent 63-bit seed for one purpose.

        Args:
            purpose: Such as `init`, `order` or `dropout`.
            indices: Such as the step; other indices give other seeds.
        """
        text = "/".join([str(self.seed), purpose, *map(str, indices)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1

    def _is_stored(self) -> bool:
        """Return whether a class of the user's own was not imported: it was read from results."""
        return isinstance(self.model, StoredFamily) or isinstance(self.likelihood, StoredLikelihood)

    def _is_own(self, section: str) -> bool:
        """Return whether a class of the user's own describes a section."""
        return section in DISCRIMINATORS and is_own(getattr(getattr(self, section), DISCRIMINATORS[section]))

    def _is_default(self, key: str, value: Scalar) -> bool:
        section, _, name = key.partition(".")
        if not name:
            return bool(value == type(self).model_fields[section].default)
        part = getattr(self, section)
        # The defaults of a class of the user's own are not known where only its keys are: it counts by all of them.
        kind = (
            KINDS[section].base if section in KINDS and is_own(getattr(part, DISCRIMINATORS[section])) else type(part)
        )
        field = kind.model_fields.get(name)
        if field is None or name == DISCRIMINATORS.get(section):
            return False
        return not field.is_required() and bool(value == field.default)


def _require_mixture_to_couple(model: FamilyConfig, likelihood: LikelihoodConfig) -> None:
    """Require a mixture, whose indicator all colours share, where tiles are coupled."""
    if model.split_coupling == "independent" or isinstance(model, StoredFamily):
        return
    if model.causality is Causality.SUBPIXEL:
        raise ConfigError(
            '`model.split_coupling` = "mixture" needs a likelihood that is joint over the colours, but family '
            f'{model.family} orders them by masks; set `model.colour_order = "likelihood"`'
        )
    if not likelihood.has_indicators:
        raise ConfigError(
            f'`model.split_coupling` = "mixture" needs likelihood logistic_mixture, but got {likelihood.name}, '
            "which has no indicator to share"
        )


def _require_whole_batch(model: FamilyConfig, train: TrainConfig) -> None:
    """Refuse micro-batches with batch norm, which normalises by all images of a pass."""
    if train.micro_batch is not None and getattr(model, "batch_norm", False):
        raise ConfigError(
            "`train.micro_batch` must be none with `model.batch_norm`, which normalises by the images of a pass, "
            f"but got {train.micro_batch}; turn one of them off"
        )


def require_workers(config: TrialConfig, workers: int) -> None:
    """Refuse what several processes cannot train as one would."""
    if config.train.batch_size % workers:
        raise ConfigError(f"`train.batch_size` must divide by the {workers} workers, but got {config.train.batch_size}")
    if workers > 1 and getattr(config.model, "batch_norm", False):
        raise ConfigError(
            "`model.batch_norm` needs one worker, because each normalises by its own part of a batch, "
            f"but got {workers}"
        )


def known_keys(tree: Mapping[str, Any]) -> list[str]:
    """Return the dotted keys that exist in a nested mapping."""
    return [key for key, _ in _flatten(tree)]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    section, dot, name = key.partition(".")
    place = tree.get(section) if dot else tree
    is_known = isinstance(place, dict) and ((name if dot else section) in place or _may_have(section, place, name))
    if not isinstance(place, dict) or not is_known or (not dot and section != "seed"):
        siblings = [known for known in known_keys(tree) if known.partition(".")[0] == section]
        raise unknown_key(key, siblings if dot and siblings else known_keys(tree))
    place[name if dot else section] = "none" if value is None and has_none_as_word(key) else value


def _may_have(section: str, values: Mapping[str, Any], name: str) -> bool:
    """Return whether the class of a section has a key that its values lack, because it must be given."""
    kind = KINDS.get(section)
    return kind is not None and name in kind.class_of(values[kind.discriminator]).model_fields


def _keep_shared(section: str, old: Mapping[str, Any], name: Any) -> dict[str, Any]:
    """Return the keys of a section whose class changes: what both classes declare alike, else the new defaults."""
    kind = KINDS[section]
    before, after = (kind.class_of(known).model_fields for known in (old[kind.discriminator], name))
    fresh = {key: info.get_default(call_default_factory=True) for key, info in after.items() if not info.is_required()}
    # A value of one class's choices means nothing to the other's.
    shared = {key for key in before.keys() & after.keys() if before[key].annotation == after[key].annotation}
    kept = {key: value for key, value in old.items() if key in shared}
    return fresh | kept | {kind.discriminator: name}


def _require_known(section: str, value: Any, kind: type[Section]) -> None:
    if isinstance(value, Mapping):
        for key in value:
            if key not in kind.model_fields:
                raise unknown_key(f"{section}.{key}", (f"{section}.{known}" for known in kind.model_fields))


def _require_multiple(key: str, value: int, batch_size: int) -> None:
    if value % batch_size:
        below = value // batch_size * batch_size
        near = f"nearest are {below} and {below + batch_size}" if below else f"smallest is {batch_size}"
        raise ConfigError(
            f"`{key}` must be a multiple of train.batch_size, but got {value} and {batch_size}; the {near}"
        )
