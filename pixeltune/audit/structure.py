"""What decides whether a model leaks, weights apart: models that agree in it are audited once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from pixeltune.audit.jacobian import narrow_config
from pixeltune.models import DensityModel


def narrow_key(model: DensityModel) -> Hashable:
    """What the narrow twin is made of."""
    return type(model.network), type(model.likelihood), model.causality, model.form.channels, narrow_config(model)


def structure(model: DensityModel) -> Hashable:
    """What decides whether an instance leaks, weights apart: modules, settings, hooks, masks, likelihood."""
    modules = tuple((name, *_settings(module)) for name, module in model.named_modules())
    buffers = tuple((name, buffer.cpu().numpy().tobytes()) for name, buffer in model.named_buffers())
    return model.config.model, model.likelihood, model.form, modules, buffers


def _settings(module: nn.Module) -> Iterator[Any]:
    """A module's class, its plain attributes and replaced methods, and its hooks."""
    yield type_before_parametrizations(module)  # torch makes a class for each parametrised instance
    for key, value in vars(module).items():
        if key != "training" and (isinstance(value, bool | int | float | str | tuple) or callable(value)):
            yield key, value
    yield from module._forward_pre_hooks.values()
    yield from module._forward_hooks.values()
