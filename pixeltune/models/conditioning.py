"""Labels as features that every layer of a network adds to its pre-activations (1606.05328, §2.3).

The network is handed s, and each layer adds V∗s with a 1×1 convolution V of its own. Where s is one pixel wide it is
the one-hot label h, and V∗s the paper's location-independent Vᵀh; otherwise it is the paper's s = m(h), a map as wide
as the image, or as a tile where it is split. A label that is not given is a one-hot of zeros.

Legend of shapes: B batch, K classes, D features of the label, H×W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixeltune.config import FamilyConfig, ImageSpec

NO_LABEL = -1
"""In place of a class where the label of an image is withheld or unknown."""


class Conditioning(nn.Module, ABC):
    """Labels (B,) to s. num_classes: K. num_features: D."""

    def __init__(self, num_classes: int, num_features: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = num_features

    def one_hot(self, label_B: Tensor | None, like_BCHW: Tensor) -> Tensor:
        """Return (B, K) in the dtype and on the device of the images; zeros where there is no label."""
        if label_B is None:
            return like_BCHW.new_zeros(len(like_BCHW), self.num_classes)
        classes_K = torch.arange(self.num_classes, device=like_BCHW.device)
        return (label_B.to(like_BCHW.device)[:, None] == classes_K).to(like_BCHW.dtype)

    @abstractmethod
    def forward(self, label_B: Tensor | None, like_BCHW: Tensor) -> Tensor:
        """Return s (B, D, 1, 1), or (B, D, H, W)."""


class LabelBias(Conditioning):
    """Labels to s, the one-hot label itself; all weights are the layers' own."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, num_features=num_classes)

    def forward(self, label_B: Tensor | None, like_BCHW: Tensor) -> Tensor:
        """Return s (B, K, 1, 1)."""
        return self.one_hot(label_B, like_BCHW)[:, :, None, None]


class LabelMap(Conditioning):
    """Labels to s = m(h): the label's embedding meets features of each place, through 1×1 convolutions.

    The paper's m is a deconvolutional network. A learned feature of every place serves any height and width.
    """

    def __init__(self, num_classes: int, num_features: int, height: int, width: int) -> None:
        super().__init__(num_classes, num_features)
        self.embedding = nn.Linear(num_classes, num_features, bias=False)
        self.place_DHW = nn.Parameter(torch.randn(num_features, height, width))
        self.nin = nn.Conv2d(num_features, num_features, kernel_size=1)
        # As large as the features of places, independent of the number of classes.
        nn.init.normal_(self.embedding.weight)

    def forward(self, label_B: Tensor | None, like_BCHW: Tensor) -> Tensor:
        """Return s (B, D, H, W)."""
        e_BD = self.embedding(self.one_hot(label_B, like_BCHW))
        return F.elu(self.nin(F.elu(e_BD[:, :, None, None] + self.place_DHW)))


def build_conditioning(config: FamilyConfig, form: ImageSpec) -> Conditioning | None:
    """Build what `model.conditioning` asks for; None where the model takes no labels."""
    if config.conditioning == "none":
        return None
    assert form.num_classes is not None, "require_form() refuses data without labels"
    if config.conditioning == "bias":
        return LabelBias(form.num_classes)
    height, width = form.height // config.split, form.width // config.split
    return LabelMap(form.num_classes, num_label_features(config, form), height, width)


def num_label_features(config: FamilyConfig, form: ImageSpec) -> int:
    """Return D: the classes themselves, or for a map as many features as a layer has; 0 without labels."""
    return {"none": 0, "bias": form.num_classes or 0, "map": config.channels}[config.conditioning]
