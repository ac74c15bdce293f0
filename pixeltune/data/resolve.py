"""The checks of a configuration that need the data's shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pixeltune.config import ImageSpec, TrialConfig
from pixeltune.data.dataset import DataSet
from pixeltune.data.load import load_data
from pixeltune.data.outline import DataOutline, outline_of
from pixeltune.errors import ConfigError


@dataclass(frozen=True)
class Resolved:
    """A configuration that fits its data; `config.train.report_every` is a number."""

    config: TrialConfig
    data: DataSet


@dataclass(frozen=True)
class ResolvedOutline:
    """A configuration that fits the outline of its data, whose images may be missing."""

    config: TrialConfig
    data: DataOutline


def resolve(config: TrialConfig) -> Resolved:
    """Load the data and refuse what cannot be trained on it.

    A `train.report_every` of None becomes one pass of the training set in whole batches, at most the whole training.

    Args:
        config: The configuration of one trial.

    Returns:
        The configuration, with `train.report_every` as a number of images, and the data.

    Raises:
        ConfigError: Model, likelihood, batch size or an option of the data does not fit the images.
        DataError: As `load_data`.
    """
    data = load_data(config.data)
    return Resolved(_fitted(config, data.form, len(data.train), data.notes), data)


def resolve_outline(config: TrialConfig) -> ResolvedOutline:
    """Do what `resolve` does without a download, and without the images where the form of the data set is published."""
    data = outline_of(config.data)
    return ResolvedOutline(_fitted(config, data.form, data.num_images["train"], data.notes), data)


def _fitted(config: TrialConfig, form: ImageSpec, num_train: int, notes: Sequence[str]) -> TrialConfig:
    try:
        config.model.require_form(form)
    except ConfigError as error:
        about_labels = [note for note in notes if "label" in note]
        if form.num_classes is None and config.model.conditioning != "none" and about_labels:
            raise ConfigError("; ".join([str(error), *about_labels])) from None
        raise
    config.likelihood.require_form(form)
    if config.data.flip and form.width == 1:
        raise ConfigError(f"`data.flip` needs images at least 2 wide, but those of {config.data.name} are 1; unset it")
    batch_size = config.train.batch_size
    if batch_size > num_train:
        raise ConfigError(
            f"`train.batch_size` must be at most the {num_train} training images of {config.data.name}, "
            f"but got {batch_size}; lower it or raise `data.fraction`"
        )
    if config.train.report_every is None:
        one_pass = num_train // batch_size * batch_size
        return config.override({"train.report_every": min(one_pass, config.train.end)})
    return config
