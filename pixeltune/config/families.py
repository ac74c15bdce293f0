"""What each model family can be configured with, and what it promises: causality, divisor, likelihoods.

A new family is one class here with a line in FAMILIES, and one model file with a line in `models.NETWORKS`; one of the
user's own is a class anywhere, whose import path is the value of `model.family`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from pixeltune.config.image_spec import ImageSpec
from pixeltune.config.section import Section
from pixeltune.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


class Causality(StrEnum):
    """The sub-pixels that one network call conditions on, and so the shape of its parameters."""

    SUBPIXEL = "subpixel"
    """θ is (B, C, P, H, W): colour c of a pixel sees the earlier colours; each colour has its own likelihood."""
    PIXEL = "pixel"
    """θ is (B, P, H, W): one θ a pixel; the likelihood is joint over the pixel's colours."""


class FamilyConfig(Section):
    """Common to every family."""

    family: str
    """the name in FAMILIES, or `package.module:ConfigClass` for a subclass of your own."""
    channels: int = Field(ge=1, le=4096)
    """width of the network (F; h in the 2016 paper, whose residual stream has 2h)."""
    layers: int = Field(ge=1, le=256)
    """depth, in the family's own unit."""
    split: int = Field(default=1, ge=1, le=64)
    """tiles per axis; the image is cut into split² contiguous tiles, whose pixels at one offset are drawn in the same
    network call.
    """
    split_coupling: Literal["independent", "mixture"] = "independent"
    """how those pixels hang together, given what was drawn before: `independent` as published; `mixture` shares the
    indicator of a logistic mixture among them, pixel-causal families only. No matter with one tile.
    """
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """probability with which a feature is zeroed in training."""
    conditioning: Literal["none", "bias", "map"] = "none"
    """`bias` adds a linear function of the label to the pre-activations of every layer, the same at all pixels; `map`
    one of a learned map of the label, which differs between pixels; `none` takes no labels.
    """
    label_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """probability with which the label of a training image is withheld, so that the same weights serve without labels;
    needs conditioning.
    """

    likelihoods: ClassVar[tuple[str, ...]] = ("bernoulli", "categorical", "logistic_mixture")
    has_blind_spot: ClassVar[bool] = False
    """True where some past pixels inside the receptive field are never seen, by the published design."""

    @model_validator(mode="after")
    def _label_dropout_needs_labels(self) -> Self:
        if self.label_dropout and self.conditioning == "none":
            raise ConfigError(
                "`model.label_dropout` needs a model.conditioning of bias or map, "
                f"but got {self.label_dropout} with none"
            )
        return self

    @property
    @abstractmethod
    def causality(self) -> Causality:
        """Return whether θ is one a pixel or one a sub-pixel."""

    @property
    def divisor(self) -> int:
        """Return the number by which height and width must divide; those of a tile, where the image is split."""
        return 1

    @property
    def coupled_tiles(self) -> int:
        """Return how many tiles the likelihood takes together: all, or one."""
        return self.split**2 if self.split_coupling == "mixture" else 1

    @property
    def latent_features(self) -> int:
        """Return how many features of a latent every layer is given; 0 where the family has no latent."""
        return 0

    def colours_ordered(self, in_channels: int) -> int:
        """Return how many colours the network orders among its input channels; 1 where the likelihood does it.

        Args:
            in_channels: The input channels of the network: the colours of the image times `split` squared.
        """
        return in_channels // self.split**2 if self.causality is Causality.SUBPIXEL else 1

    @abstractmethod
    def narrow(self, colours: int, size: int) -> Self:
        """Return the same structure with few channels, for the audit.

        Args:
            colours: The colours of the image; the network has at least one channel for each.
            size: Pixels that the receptive field must reach across.
        """

    def network_class(self) -> type[nn.Module]:
        """Return the network of a family of your own, as `models.NETWORKS` has those of the built-in ones.

        Returns:
            A module class, called as `cls(config, in_channels=…, num_params=…, condition_features=…)`. It maps images
            (B, in_channels, H, W) in [−1, 1], and the features of label and latent or None, to θ (B, ·, H, W): to
            num_params numbers for each of `colours_ordered(in_channels)` colours.
        """
        raise NotImplementedError(f"{type(self).__name__} must define network_class")

    def require_form(self, form: ImageSpec) -> None:
        """Refuse images that this network cannot take.

        Args:
            form: The form of the images.

        Raises:
            ConfigError: Size, labels or colours do not fit.
        """
        multiple = self.split * self.divisor
        if form.height % multiple or form.width % multiple:
            tiles = f" split {self.split} times" if self.split > 1 else ""
            raise ConfigError(
                f"height and width must divide by {multiple} for family {self.family}{tiles}, "
                f"but got {form.height}×{form.width}"
            )
        if self.conditioning != "none" and not form.num_classes:
            raise ConfigError(
                f"`model.conditioning` needs labelled data, but got {self.conditioning} for data without labels"
            )
        if self.causality is Causality.SUBPIXEL and self.channels < form.channels:
            raise ConfigError(
                f"`model.channels` must be at least the {form.channels} colours of the data, but got {self.channels}"
            )


class MaskedFamilyConfig(FamilyConfig):
    """The options that `pixelcnn` and `gated` share."""

    kernel_size: int = Field(ge=3, le=63)
    """k of the k×k (stack) convolutions, odd."""
    head_channels: int = Field(default=0, ge=0, le=8192)
    """width of the head's hidden 1×1 layer (ReLU, 1×1, ReLU, 1×1 to θ); 0 for a single 1×1."""
    colour_order: Literal["mask", "likelihood"] = "mask"
    """`mask` orders the colours by masks in every layer (one θ a sub-pixel); `likelihood` leaves them to a joint
    likelihood (one θ a pixel).
    """

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ConfigError(f"`model.kernel_size` must be odd, but got {value}")
        return value

    @property
    def causality(self) -> Causality:
        """Return SUBPIXEL, one θ a sub-pixel, with masks, and PIXEL, one a pixel, without."""
        return Causality.SUBPIXEL if self.colour_order == "mask" else Causality.PIXEL

    def narrow(self, colours: int, size: int) -> Self:
        """Return it with two features a colour and enough layers that each past pixel is in reach."""
        reach = self.kernel_size // 2
        return self.model_copy(
            update={
                "channels": 2 * colours,
                "layers": math.ceil(size / reach),
                "head_channels": 2 * colours if self.head_channels else 0,
                "dropout": 0.0,
            }
        )

    def require_form(self, form: ImageSpec) -> None:
        """Refuse images with more colours than a layer has features."""
        super().require_form(form)
        if self.causality is Causality.SUBPIXEL and 0 < self.head_channels < form.channels:
            raise ConfigError(
                f"`model.head_channels` must be 0 or at least the {form.channels} colours of the data, "
                f"but got {self.head_channels}"
            )


class PixelCNNConfig(MaskedFamilyConfig):
    """PixelCNN (van den Oord et al. 2016, arXiv 1601.06759), with the blind spot of its masks."""

    family: Literal["pixelcnn"] = "pixelcnn"
    variant: Literal["residual", "simple"] = "residual"
    """`residual` is the paper's network, `layers` its residual blocks, `channels` its h; `simple` is the widespread
    plain stack of `layers` masked convolutions, the first one included.
    """
    channels: int = Field(default=128, ge=1, le=4096)
    layers: int = Field(default=15, ge=1, le=256)
    kernel_size: int = Field(default=3, ge=3, le=63)
    first_kernel_size: int = Field(default=7, ge=3, le=63)
    """k of the first, mask-A convolution."""
    head_channels: int = Field(default=1024, ge=0, le=8192)
    batch_norm: bool = False
    """`simple` only, after every masked convolution."""

    has_blind_spot: ClassVar[bool] = True

    @field_validator("first_kernel_size")
    @classmethod
    def _first_odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ConfigError(f"`model.first_kernel_size` must be odd, but got {value}")
        return value

    @model_validator(mode="after")
    def _batch_norm_only_simple(self) -> Self:
        if self.batch_norm and self.variant != "simple":
            raise ConfigError('`model.batch_norm` needs model.variant = "simple", but got "residual"')
        return self


class GatedConfig(MaskedFamilyConfig):
    """Gated PixelCNN (van den Oord et al. 2016, arXiv 1606.05328): vertical and horizontal stacks, no blind spot."""

    family: Literal["gated"] = "gated"
    channels: int = Field(default=384, ge=1, le=4096)
    layers: int = Field(default=20, ge=1, le=256)
    """gated layers; the paper's ImageNet model has 20 of 384 channels with 5×5 kernels."""
    kernel_size: int = Field(default=5, ge=3, le=63)


class PixelCNNPPConfig(FamilyConfig):
    """PixelCNN++ (Salimans et al. 2017, arXiv 1701.05517). The reference code has 160 channels, the paper 192."""

    family: Literal["pixelcnnpp"] = "pixelcnnpp"
    variant: Literal["full", "plain", "nin", "autoregressive_channel"] = "full"
    """`full` is the U-net; the others are §3.3's small networks, a straight stack of `layers` blocks, for which
    `stages` must be 1: `plain` alone, `nin` with three gated residual blocks of 1×1 convolutions after every second
    block, `autoregressive_channel` with 1×1 gated residual blocks that join ordered sets of features after each. Two
    blocks see 12×7 pixels above and 5 to the left, three 16×9 and 7; the paper has 11×5 and 5, and 15×8.
    """
    channels: int = Field(default=160, ge=1, le=4096)
    layers: int = Field(default=5, ge=1, le=256)
    """gated residual blocks a stage on the way down in resolution; on the way back the same, and one more in each stage
    but the coarsest. All blocks of a small variant, those of 1×1 convolutions apart.
    """
    stages: int = Field(default=3, ge=1, le=8)
    """resolutions, each half the one before; 1 does not down-sample."""
    nonlinearity: Literal["concat_elu", "elu", "relu"] = "concat_elu"
    """f of the residual blocks; `concat_elu` is f(x) = [elu(x), elu(−x)]."""
    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _small_variants_do_not_down_sample(self) -> Self:
        if self.variant != "full" and self.stages != 1:
            raise ConfigError(f'`model.variant` = "{self.variant}" needs model.stages = 1, but got {self.stages}')
        return self

    @model_validator(mode="after")
    def _nin_has_a_second_block(self) -> Self:
        if self.variant == "nin" and self.layers < 2:
            raise ConfigError(
                '`model.variant` = "nin" needs model.layers of at least 2, because the 1×1 blocks follow every '
                f"second one, but got {self.layers}"
            )
        return self

    @property
    def causality(self) -> Causality:
        """Return PIXEL, one θ a pixel: the colours are left to the likelihood (§2.2)."""
        return Causality.PIXEL

    @property
    def divisor(self) -> int:
        """Return 2^(stages − 1): each stage after the first halves height and width."""
        return 1 << (self.stages - 1)

    def narrow(self, colours: int, size: int) -> Self:
        """Return it with two features a colour and enough blocks that each past pixel is in reach."""
        # A block has two convolutions, which add one pixel each to the first layer's one. In the U-net each has a
        # counterpart on the way back.
        reach = 4 if self.variant == "full" else 2
        fewest = 2 if self.variant == "nin" else 1
        layers = max(fewest, math.ceil((size - 2) / reach))
        return self.model_copy(update={"channels": 2 * colours, "layers": layers, "dropout": 0.0})


class PixelVAEConfig(MaskedFamilyConfig):
    """PixelVAE (Gulrajani et al. 2016, arXiv 1611.05013), one level: a gated decoder conditioned on a latent z."""

    family: Literal["pixelvae"] = "pixelvae"
    channels: int = Field(default=16, ge=1, le=4096)
    layers: int = Field(default=12, ge=1, le=256)
    """of the decoder; the paper's best on MNIST has 12 of 16 channels with 5×5 kernels, and 16 latents."""
    kernel_size: int = Field(default=5, ge=3, le=63)
    latent_dim: int = Field(default=16, ge=1, le=4096)
    """D, numbers in z."""
    latent_conditioning: Literal["bias", "map"] = "bias"
    """`bias` adds a linear function of z to the pre-activations of every layer, the same at all pixels; `map` one of
    features up-sampled from z, which differ between pixels.
    """
    encoder_channels: int = Field(default=32, ge=1, le=1024)
    """width of the encoder at its finest resolutions; twice as wide at the others."""
    kl_warmup: int = Field(default=10_000, ge=0)
    """optimiser steps over which the weight of the KL rises linearly to one in the loss; 0 for one at once."""
    free_nats: float = Field(default=0.0, ge=0.0)
    """KL of each latent below which the loss does not lower it (free bits, here in nats)."""

    @property
    def latent_features(self) -> int:
        """Return D for z itself, or as many maps as a layer has features."""
        return self.latent_dim if self.latent_conditioning == "bias" else self.channels

    def narrow(self, colours: int, size: int) -> Self:
        """Return the decoder, narrow; z is fixed there, so that two latents are enough."""
        return super().narrow(colours, size).model_copy(update={"latent_dim": 2, "encoder_channels": 2})


FAMILIES: dict[str, type[FamilyConfig]] = {
    "pixelcnn": PixelCNNConfig,
    "gated": GatedConfig,
    "pixelcnnpp": PixelCNNPPConfig,
    "pixelvae": PixelVAEConfig,
}
