"""What decides whether a model leaks, weights apart: models that agree in it are audited once.

A key is made of all that a forward pass may read: modules, attributes of any type, hooks, buffers, and the code of the
methods and functions involved, with their defaults, closures and the plain globals that they name. Where something is
in the way that cannot be read, there is no key, and the model is audited again.
"""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from pixeltune.audit.jacobian import narrow_config
from pixeltune.models import DensityModel

_PLAIN = (type(None), bool, int, float, complex, str, bytes, Enum, range, torch.dtype, torch.device, torch.Size)
_UNCHANGING = (
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
"""Types whose values are compared by identity; the code of a class is read where an instance of it is."""


_READABLE_GLOBALS = (*_PLAIN, list, tuple, dict, set, frozenset, Tensor, np.ndarray, types.FunctionType)


class _UnreadableError(Exception):
    """A value whose content cannot be read."""


def narrow_key(model: DensityModel) -> Hashable | None:
    """Return what the narrow twin is made of; None where that cannot be read."""
    reader = _StructureReader()
    try:
        classes = [
            reader.class_of(kind) for kind in {type_before_parametrizations(part): 0 for part in model.modules()}
        ]
        return (
            *classes,
            reader.value(model.likelihood),
            reader.value(model.form.channels),
            model.form.num_classes,
            model.causality,
            type(model.config.model),
            narrow_config(model),
        )
    except _UnreadableError:
        return None


def structure(model: DensityModel) -> Hashable | None:
    """Return what decides whether an instance leaks, weights apart; None where that cannot be read.

    Weights count only by where they are zero: what is zero may hide a path.
    """
    reader = _StructureReader()
    try:
        return model.config.model, reader.value(model)
    except _UnreadableError:
        return None


class _StructureReader:
    """Turns values into hashable ones that are equal where the values do the same."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no id is used twice
        self._classes: dict[type, int] = {}

    def value(self, value: Any) -> Hashable:
        """Return any value's content; one that came before becomes a reference to it."""
        if isinstance(value, _PLAIN):
            return type(value), value
        if isinstance(value, _UNCHANGING):
            return _by_identity(value)
        if id(value) in self._numbers:
            return "seen", self._numbers[id(value)]
        self._numbers[id(value)] = len(self._numbers)
        self._kept.append(value)
        return self._content(value)

    def class_of(self, kind: type) -> Hashable:
        """Return a class with the code of its methods, inherited ones too: any of them may have been replaced."""
        if kind in self._classes:
            return kind
        self._classes[kind] = len(self._classes)
        return kind, *(self._members(base) for base in kind.__mro__ if base is not object)

    def _content(self, value: Any) -> Hashable:
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, Tensor):
            return _tensor(value)
        if isinstance(value, np.ndarray):
            content = self.value(value.tolist()) if value.dtype.hasobject else value.tobytes()
            return "array", value.dtype.str, value.shape, content
        if isinstance(value, slice):
            return "slice", self._items((value.start, value.stop, value.step))
        if isinstance(value, list | tuple | deque):
            return type(value), self._items(value)
        if isinstance(value, set | frozenset):
            return type(value), frozenset(self.value(item) for item in value)
        if isinstance(value, Mapping):
            return type(value), self._mapping(value)
        if isinstance(value, BaseModel):
            return type(value), self._mapping(vars(value))
        return self._callable(value)

    def _callable(self, value: Any) -> Hashable:
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return "method", self.value(value.__func__), self.value(value.__self__)
        if isinstance(value, staticmethod | classmethod):
            return type(value), self.value(value.__func__)
        if isinstance(value, property):
            return "property", self._items((value.fget, value.fset, value.fdel))
        if isinstance(value, functools.partial):
            return "partial", self.value(value.func), self._items(value.args), self._mapping(value.keywords)
        return self._object(value)

    def _object(self, value: Any) -> Hashable:
        """Return an instance's attributes, those in slots too, and its class."""
        slots = [name for base in type(value).__mro__ for name in _slots(base) if hasattr(value, name)]
        if not hasattr(value, "__dict__") and not slots:
            raise _UnreadableError(f"{type(value)} hides its content")
        attributes = self._mapping(vars(value)) if hasattr(value, "__dict__") else ()
        return self.class_of(type(value)), attributes, self._items(getattr(value, name) for name in slots)

    def _module(self, module: nn.Module) -> Hashable:
        """Return a module's class, attributes, hooks, buffers and children, and where its parameters are zero."""
        attributes = list[tuple[str, Hashable]]()
        for name, value in vars(module).items():
            if name == "training" or (name == "config" and isinstance(module, DensityModel)):
                continue
            if name == "_parameters":
                attributes.append((name, tuple((key, _zeros(weight)) for key, weight in value.items())))
            elif "_hooks" in name and isinstance(value, Mapping):  # by numbers that no two modules share
                attributes.append((name, self._items(value.values())))
            else:
                attributes.append((name, self.value(value)))
        return self.class_of(type_before_parametrizations(module)), tuple(attributes)

    def _members(self, kind: type) -> Hashable:
        """Return what a class itself defines, apart from what every class has."""
        members = list[tuple[str, Hashable]]()
        for name, value in vars(kind).items():
            is_code = isinstance(value, types.FunctionType | staticmethod | classmethod | property)
            if is_code or (not name.startswith("__") and not _is_of_torch(kind)):
                members.append((name, self._or_identity(value)))
        return tuple(members)

    def _function(self, function: types.FunctionType) -> Hashable:
        code, cells = function.__code__, tuple(self._cell(cell) for cell in function.__closure__ or ())
        if _is_of_torch(function):
            return code, cells
        named = {name: function.__globals__[name] for name in _names(code) if name in function.__globals__}
        return (
            code,
            self.value(function.__defaults__),
            self.value(function.__kwdefaults__),
            cells,
            self._mapping(vars(function)),
            tuple((name, self._global(function, value)) for name, value in named.items()),
        )

    def _cell(self, cell: types.CellType) -> Hashable:
        try:
            content = cell.cell_contents
        except ValueError:  # not filled yet
            return "empty"
        return self.value(content)

    def _global(self, function: types.FunctionType, value: Any) -> Hashable:
        """Return what a function names outside of itself; foreign classes and objects by identity."""
        kind = value if isinstance(value, type) else type(value)
        if kind.__module__ == function.__module__ and isinstance(value, type):
            return self.class_of(value)
        if kind.__module__ in (function.__module__, "types") or isinstance(value, _READABLE_GLOBALS):
            return self._or_identity(value)
        return _by_identity(value)

    def _or_identity(self, value: Any) -> Hashable:
        try:
            return self.value(value)
        except _UnreadableError:
            return _by_identity(value)

    def _items(self, values: Iterable[Any]) -> tuple[Hashable, ...]:
        return tuple(self.value(value) for value in values)

    def _mapping(self, mapping: Mapping[Any, Any]) -> tuple[Hashable, ...]:
        return tuple((self.value(key), self.value(value)) for key, value in mapping.items())


def _by_identity(value: Any) -> Hashable:
    """Return the object itself where it has a hash; being part of a key keeps it alive."""
    if type(value).__hash__ is None:
        raise _UnreadableError(f"{type(value)} has no hash")
    return value  # type: ignore[no-any-return]


def _tensor(tensor: Tensor) -> Hashable:
    plain = tensor.detach().cpu()
    content = plain.contiguous().view(torch.uint8) if plain.dim() else plain.reshape(1).view(torch.uint8)
    return "tensor", tensor.dtype, tuple(tensor.shape), content.numpy().tobytes()


def _zeros(weight: Tensor | None) -> Hashable:
    """Return a parameter's shape, and how many of its numbers are zero."""
    return None if weight is None else (weight.dtype, tuple(weight.shape), weight.numel() - int(weight.count_nonzero()))


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _names(code: types.CodeType) -> list[str]:
    """Return the names that a function and the functions in it use."""
    inner = [name for const in code.co_consts if isinstance(const, types.CodeType) for name in _names(const)]
    return [*code.co_names, *inner]


def _is_of_torch(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "").partition(".")[0] == "torch"
