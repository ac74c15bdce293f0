"""Families and likelihoods of the user's own: `model.family = "package.module:ConfigClass"`.

A class is imported when a configuration that names it is built, once in a process. Results are read without that:
within `stored()` a class that this process has not imported yet is replaced by `StoredFamily` or `StoredLikelihood`,
which hold the keys and can build nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Self, Union, get_args, get_origin

from pydantic import ConfigDict, ValidationError

from pixeltune.config.families import FAMILIES, Causality, FamilyConfig
from pixeltune.config.likelihoods import LIKELIHOODS, LikelihoodConfig
from pixeltune.config.section import Section, one_line, unknown_key
from pixeltune.errors import ConfigError
from pixeltune.own_code import code_fingerprint, error_text, import_object, is_own, place_of

if TYPE_CHECKING:
    from torch import nn

    from pixeltune.likelihoods import Likelihood


class StoredFamily(FamilyConfig):
    """The keys of a family whose class was not imported: as they are in the results, not validated."""

    model_config = ConfigDict(extra="allow")

    @property
    def causality(self) -> Causality:
        """Refuse: only the class knows."""
        raise _not_imported("model.family", self.family)

    def narrow(self, colours: int, size: int) -> Self:  # noqa: ARG002
        """Refuse: only the class knows."""
        raise _not_imported("model.family", self.family)

    def network_class(self) -> type[nn.Module]:
        """Refuse: only the class knows."""
        raise _not_imported("model.family", self.family)


class StoredLikelihood(LikelihoodConfig):
    """The keys of a likelihood whose class was not imported: as they are in the results, not validated."""

    model_config = ConfigDict(extra="allow")

    def likelihood_class(self) -> type[Likelihood]:
        """Refuse: only the class knows."""
        raise _not_imported("likelihood.name", self.name)


def _not_imported(key: str, name: str) -> ConfigError:
    return ConfigError(f"`{key}` must be imported to build a model, but {name} was only read from results")


@dataclass(frozen=True)
class OwnKind:
    """A section whose class a key chooses.

    Attributes:
        section, discriminator: The section and the name of that key in it.
        base: What every class of it is.
        built_in: The classes of pixeltune, by name.
        stored: What takes the place of a class that was not imported.
        builder: The method by which a class of the user's own names what it configures.
        required: The methods and properties that it must define.
        loaded: The classes of the user's own that this process has imported, with the fingerprints of their code.
    """

    section: str
    discriminator: str
    base: type[Section]
    built_in: Mapping[str, type[Section]]
    stored: type[Section]
    builder: str
    required: tuple[str, ...]
    loaded: dict[str, tuple[type[Section], str]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Return the dotted key that chooses the class."""
        return f"{self.section}.{self.discriminator}"

    def classes(self) -> tuple[type[Section], ...]:
        """Return the built-in classes and those of the user's own that were imported."""
        return (*self.built_in.values(), *(loaded for loaded, _code in self.loaded.values()))

    def class_of(self, name: object) -> type[Section]:
        """Return the class of this name; one of the user's own is imported, unless in `stored()`.

        Raises:
            ConfigError: There is none, or it breaks the contract.
        """
        if isinstance(name, str) and name in self.built_in:
            return self.built_in[name]
        if not isinstance(name, str) or not is_own(name):
            raise ConfigError(f"`{self.key}` must be one of {self.choices}, but got {name!r}")
        if name in self.loaded:
            return self.loaded[name][0]
        if _is_stored.get():
            return self.stored
        found = self._imported(name)
        self.loaded[name] = found, code_fingerprint(name, found)
        return found

    def build(self, value: Any) -> Section:
        """Return a section from a table of its keys; a section of a known class passes through.

        Raises:
            ConfigError: A key is unknown, missing or wrong, or as in `class_of`.
        """
        if isinstance(value, (*self.built_in.values(), self.stored)) or self._is_own_section(value):
            return value  # type: ignore[no-any-return]
        if not isinstance(value, Mapping):
            raise ConfigError(f"`{self.section}` must be a table with `{self.discriminator}`, but got {value!r}")
        if self.discriminator not in value:
            raise ConfigError(f"`{self.key}` must be one of {self.choices}, but the configuration lacks it")
        kind = self.class_of(value[self.discriminator])
        for key in value:
            if key not in kind.model_fields and kind is not self.stored:
                raise unknown_key(f"{self.section}.{key}", (f"{self.section}.{name}" for name in kind.model_fields))
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            raise one_line(error, self.section) from None
        except TypeError as error:  # an abstract class, or a validator of the user's own
            if kind in self.built_in.values():
                raise
            raise self._refused(str(value[self.discriminator]), f"it cannot be made: {error_text(error)}") from error

    def _is_own_section(self, value: Any) -> bool:
        """Return whether a value is a section of a class of the user's own, whose import path it holds."""
        name = getattr(value, self.discriminator, None)
        return isinstance(value, self.base) and is_own(name) and type(value) is self.class_of(name)

    def code_of(self, name: str) -> str | None:
        """Return the fingerprint of the code of a class of the user's own that was imported; None for others."""
        return self.loaded[name][1] if name in self.loaded else None

    @property
    def choices(self) -> str:
        """Return the names that exist, as text."""
        return f"{', '.join(self.built_in)} or package.module:ConfigClass"

    def _imported(self, name: str) -> type[Section]:
        module, _, attribute = name.partition(":")
        if module == "__main__":
            raise self._refused(name, "trials cannot import what a notebook or a script defines; put it into a module")
        try:
            found = import_object(name)
        except ModuleNotFoundError as error:
            missing = error.name or module
            why = f"there is no module {missing}" + (
                "" if _is_part(missing, module) else f", which {module} imports ({place_of(error)})"
            )
            raise self._refused(
                name, f"{why}; install it, put its folder on PYTHONPATH, or run the command in its folder"
            ) from error
        except AttributeError as error:
            why = error_text(error) if place_of(error) else f"{module} has no {attribute}"
            raise self._refused(name, f"{why}; check the name") from error
        except ConfigError:
            raise
        except Exception as error:  # the user's module may raise anything
            raise self._refused(name, f"importing it raises {error_text(error)}; fix the module") from error
        self._require_contract(name, found)
        return found  # type: ignore[no-any-return]

    def _require_contract(self, name: str, found: Any) -> None:
        if not isinstance(found, type) or not issubclass(found, self.base):
            raise self._refused(name, f"it is no subclass of {self.base.__module__}.{self.base.__name__}; make it one")
        declared = found.model_fields[self.discriminator].annotation
        if declared is not str:
            raise self._refused(
                name,
                f"it declares `{self.discriminator}` as {_type_text(declared)}, where its import path is kept; "
                f"declare `{self.discriminator}: str`",
            )
        base = (*self.required, self.builder)
        missing = [method for method in base if _is_same(getattr(found, method), getattr(self.base, method))]
        if missing:
            raise self._refused(name, f"it does not define {', '.join(missing)}; see docs/extending.md")
        for key, info in found.model_fields.items():
            self._require_column(name, key, info.annotation)

    def _require_column(self, name: str, key: str, annotation: object) -> None:
        """Refuse a key that no column of the results can hold, or that has another type in pixeltune's classes."""
        types = plain_types(annotation)
        if len(types) != 1 or not types < {bool, int, float, str}:
            raise self._refused(
                name, f"its key `{key}` is {_type_text(annotation)}; a key is a bool, int, float or str, or None"
            )
        for kind in self.built_in.values():
            known = kind.model_fields.get(key)
            if known is not None and plain_types(known.annotation) != types:
                raise self._refused(
                    name,
                    f"its key `{key}` is {_type_text(annotation)}, which in pixeltune is "
                    f"{_type_text(known.annotation)}; rename it",
                )

    def _refused(self, name: str, why: str) -> ConfigError:
        return ConfigError(
            f"`{self.key}` must be one of {', '.join(self.built_in)}, or the import path of a class of your own, but "
            f"got {name!r}: {why}"
        )


def _is_part(missing: str, module: str) -> bool:
    """Return whether the missing module is the named one, or a package that holds it."""
    return f"{module}.".startswith(f"{missing}.")


def _is_same(one: object, other: object) -> bool:
    return one is other


def _type_text(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def plain_types(annotation: object) -> frozenset[object]:
    """Return the types of a field's values; None apart, and the types of the choices of a Literal."""
    if annotation is None or annotation is type(None):
        return frozenset()
    origin = get_origin(annotation)
    if origin is Literal:
        return frozenset(type(choice) for choice in get_args(annotation) if choice is not None)
    if origin in (Union, UnionType):
        return frozenset(kind for part in get_args(annotation) for kind in plain_types(part))
    return frozenset({annotation})


KINDS: dict[str, OwnKind] = {
    "model": OwnKind("model", "family", FamilyConfig, FAMILIES, StoredFamily, "network_class", ("causality", "narrow")),
    "likelihood": OwnKind(
        "likelihood", "name", LikelihoodConfig, LIKELIHOODS, StoredLikelihood, "likelihood_class", ()
    ),
}
"""The sections whose class a key chooses."""

_is_stored: ContextVar[bool] = ContextVar("pixeltune_is_stored", default=False)


@contextlib.contextmanager
def stored() -> Iterator[None]:
    """Build configurations of results and of files of others without importing what they name."""
    token = _is_stored.set(True)
    try:
        yield
    finally:
        _is_stored.reset(token)
