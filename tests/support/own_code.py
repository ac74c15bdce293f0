"""Families and likelihoods of a user's own, in modules that tests write into a folder of their own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixeltune import own_code
from pixeltune.config import KINDS, TrialConfig

FAMILY = '''
from typing import Self

from pydantic import Field
from torch import Tensor, nn

from pixeltune.config.families import MaskedFamilyConfig
from pixeltune.models.layers import ConditionedSequential, Mask, MaskedConv2d, head

MASK = Mask.A


class Shallow(nn.Module):
    """One wide masked convolution before the head."""

    def __init__(self, config, *, in_channels, num_params, condition_features=0):
        super().__init__()
        colours = config.colours_ordered(in_channels)
        first = MaskedConv2d(
            in_channels,
            config.channels,
            kernel_size=config.kernel_size,
            mask=MASK,
            colours=colours,
            condition_features=condition_features,
        )
        self.body = ConditionedSequential(first)
        self.head = head(config.channels, config.head_channels, colours * num_params, colours=colours)

    def forward(self, x_BCHW: Tensor, s: Tensor | None = None) -> Tensor:
        return self.head(self.body(x_BCHW, s))


class ShallowConfig(MaskedFamilyConfig):
    """One wide masked convolution."""

    channels: int = Field(default=8, ge=1, le=4096)
    layers: int = Field(default=1, ge=1, le=6)
    kernel_size: int = Field(default=7, ge=3, le=63)
    wings: int = Field(default=2, ge=0, le=9)
    """how many wings it has."""
    slope: float = 0.5
    colour: str = "red"
    is_odd: bool = False

    def network_class(self) -> type[nn.Module]:
        return Shallow

    def narrow(self, colours: int, size: int) -> Self:
        small = super().narrow(colours, size)
        return small.model_copy(update={"layers": 1, "kernel_size": 2 * size + 1})
'''
LEAKING_FAMILY = FAMILY.replace("MASK = Mask.A", "MASK = Mask.B")

LIKELIHOOD = '''
from dataclasses import dataclass

from pydantic import Field
from torch import Tensor

from pixeltune.config.likelihoods import LikelihoodConfig
from pixeltune.likelihoods import Categorical


@dataclass(frozen=True)
class Warm(Categorical):
    """A softmax at a temperature."""

    temperature: float = 1.0

    def log_prob(self, theta: Tensor, x_BCHW: Tensor) -> Tensor:
        return super().log_prob(theta / self.temperature, x_BCHW)

    def table(self, theta: Tensor, earlier_BjHW: Tensor) -> Tensor:
        return super().table(theta / self.temperature, earlier_BjHW)


class WarmConfig(LikelihoodConfig):
    """A softmax at a temperature."""

    temperature: float = Field(default=2.0, gt=0.0)
    """of the softmax."""

    def likelihood_class(self) -> type[Warm]:
        return Warm
'''
WRONG_LIKELIHOOD = LIKELIHOOD.replace(
    "return super().log_prob(theta / self.temperature, x_BCHW)",
    "return super().log_prob(theta / self.temperature, x_BCHW) + 0.1",
)

SHALLOW, WARM = "own_shallow:ShallowConfig", "own_warm:WarmConfig"
MODULES = {"own_shallow": FAMILY, "own_warm": LIKELIHOOD}


def forget() -> None:
    """Forget the modules that were imported, as a new process would."""
    for kind in KINDS.values():
        kind.loaded.clear()
    own_code._given.clear()
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def write_modules(folder: Path, **changes: str) -> Path:
    """Write the modules; changes: other texts by the name of the module."""
    for name, text in (MODULES | changes).items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)  # it knows a text by its second and its length
    forget()
    return folder


@pytest.fixture
def code_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with a family and a likelihood of a user's own; forgotten before and after."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    yield write_modules(folder)
    forget()


def own_config(**changes: object) -> TrialConfig:
    """A small configuration of the family of one's own; changes by dotted key, `.` written as `__`."""
    config = TrialConfig.build(
        {
            "data": {"name": "digits", "num_valid": 100},
            "model": {"family": SHALLOW},
            "likelihood": {"name": "categorical"},
            "optim": {"lr": 1e-2},
            "train": {"images": 200, "batch_size": 50, "report_every": 100},
        }
    )
    return config.override({key.replace("__", "."): value for key, value in changes.items()})
