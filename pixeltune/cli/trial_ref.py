"""The models of trials named on the command line, and the images of their data; other images are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import say
from pixeltune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pixeltune.data import DataSet, ImageSet
    from pixeltune.training.weights import Trained


def images_of(trained: Trained, split: str, settings: Mapping[str, Any]) -> tuple[DataSet, ImageSet]:
    """Return a model's data, read from where the settings say, and one split of it; refuse other data."""
    from pixeltune.config import LOCATION_KEYS
    from pixeltune.data import resolve

    # A trained model's validation images are those that it did not train on.
    changeable = (*LOCATION_KEYS, "train.eval_batch_size")
    for key in settings:
        if key not in changeable:
            raise ConfigError(
                f"--set may only be {', '.join(changeable)}, but got {key}; the rest is as the model was trained"
            )
    data = resolve(trained.config.override(settings)).data
    if data.form != trained.model.form:
        raise DataError(
            f"the model's images are {trained.model.form}, but the data's are {data.form}; check --set data.path"
        )
    if trained.data_checksum not in (None, data.identity.checksum):
        raise DataError(
            f"the data must be the images that the model was trained on (checksum {trained.data_checksum}), "
            f"but got {data.identity.checksum}; put them back, or say with --set data.path where they are"
        )
    if trained.data_checksum is None:
        say("Not checked: whether these images are those of the model, because its weights file does not say.")
    images = getattr(data, split)
    if images is None:
        why = "the model was trained on it; take --split test" if split == "valid" else f"{data.identity.name} has none"
        raise DataError(f"the data must have a {split} split, but {why}")
    return data, images


def first_images(images: ImageSet, count: int, name: str) -> ImageSet:
    """Return the first `count` images, the number of --images; refuse if `name` has fewer."""
    from pixeltune.data import ImageSet

    if count > len(images):
        raise DataError(f"--images must be at most the {len(images):,} of {name}, but got {count:,}")
    return ImageSet(images.pixels_NCHW[:count], None if images.labels_N is None else images.labels_N[:count])


def load_on_best_device(weights: str) -> Trained:
    """Return a trained model in eval mode, on the GPU if there is one, with its training configuration."""
    from pixeltune.training.weights import load_with_config
    from pixeltune.training.workers import best_device

    trained = load_with_config(weights)
    trained.model.to(best_device())  # in place
    return trained
