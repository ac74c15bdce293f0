"""The images that a trained model is measured on: those that it was trained beside, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pixeltune.cli.app import say
from pixeltune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pixeltune.data import DataSet, ImageSet
    from pixeltune.training.weights import Trained


def images_of(trained: Trained, split: str, settings: Mapping[str, Any]) -> tuple[DataSet, ImageSet]:
    """The data of a model, which lies where the settings say, and one split of it; refused where it is other data."""
    from pixeltune.config import WHEREABOUTS
    from pixeltune.data import resolve

    # The model is trained, and its validation images are those that it did not train on.
    changeable = (*WHEREABOUTS, "train.eval_batch_size")
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
            f"but got {data.identity.checksum}; put them back, or say with --set data.path where they lie"
        )
    if trained.data_checksum is None:
        say("Not checked: whether these images are those of the model, because its weights file does not say.")
    images = getattr(data, split)
    if images is None:
        why = "the model was trained on it; take --split test" if split == "valid" else f"{data.identity.name} has none"
        raise DataError(f"the data must have a {split} split, but {why}")
    return data, images


def first_images(images: ImageSet, count: int, name: str) -> ImageSet:
    """The first `count` images of what --images counts; refused where `name` has fewer."""
    from pixeltune.data import ImageSet

    if count > len(images):
        raise DataError(f"--images must be at most the {len(images):,} of {name}, but got {count:,}")
    return ImageSet(images.pixels_NCHW[:count], None if images.labels_N is None else images.labels_N[:count])
