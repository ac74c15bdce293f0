"""New images of a model, whole or completed, by a named method."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from pixeltune.errors import ConfigError, DataError
from pixeltune.models import NO_LABEL, DensityModel, eval_mode
from pixeltune.models.inputs import require_level_type
from pixeltune.sampling.cached import cached
from pixeltune.sampling.fixed_point import fixed_point
from pixeltune.sampling.labels import checked_labels
from pixeltune.sampling.naive import naive
from pixeltune.sampling.request import Advance, Observed, SampleRequest, no_progress

METHODS: dict[str, Callable[[DensityModel, SampleRequest], Tensor]] = {
    "naive": naive,
    "cached": cached,
    "fixed_point": fixed_point,
}

Labels = Sequence[int] | Tensor | np.ndarray | None


class How(TypedDict, total=False):
    """Arguments that `sample` and `complete` have in common, for functions that pass them on."""

    seed: int
    temperature: float
    method: str
    batch_size: int
    advance: Advance


def sample(
    model: DensityModel,
    n: int,
    *,
    labels: Labels = None,
    seed: int = 0,
    temperature: float = 1.0,
    method: str = "cached",
    batch_size: int = 256,
    advance: Advance = no_progress,
) -> Tensor:
    """Draw n images (n, C, H, W), uint8 levels on the CPU.

    Image i is fixed by the weights, the seed, i, its label and the temperature: neither n, nor batch_size, nor the
    device changes its noise. A latent is drawn from its prior.

    Args:
        model: The model to draw from; its mode is restored.
        n: Number of images.
        labels: A class for each image; None draws without labels.
        seed: Fixes the noise.
        temperature: T > 0. Each sub-pixel, given those before it, is drawn from p^(1/T), normalised; 1 draws from the
            model, another number does not.
        method: `naive`, `cached` or `fixed_point`; they draw the same images, up to rounding.
        batch_size: Images that are drawn together.
        advance: Called with the number of network calls done since the last time, of `order().max() + 1` a batch.

    Returns:
        Levels (n, C, H, W), uint8, on the CPU.

    Raises:
        ConfigError: The method is unknown, n or the temperature is not above 0, or the labels are not one class an
            image of a conditional model.
    """
    return _draw(model, n, None, labels, seed, temperature, method, batch_size, advance)


def complete(
    model: DensityModel,
    images_NCHW: Tensor | np.ndarray,
    known: Tensor | np.ndarray,
    *,
    clamp: bool = False,
    labels: Labels = None,
    seed: int = 0,
    temperature: float = 1.0,
    method: str = "cached",
    batch_size: int = 256,
    advance: Advance = no_progress,
) -> Tensor:
    """Draw the rest of n images whose known part is given: (n, C, H, W), uint8 levels on the CPU.

    Image i has the same noise as in `sample`.

    Args:
        model: The model to draw from; its mode is restored.
        images_NCHW: Integer levels; give an image several times to complete it in several ways.
        known: Bool, (H, W) or (C, H, W): what of them is given. It must be all that the model draws in its first
            network calls: then, and only then, ancestral sampling draws from p(rest | given). See
            `require_conditional`.
        clamp: Take any `known`, and put what is given in place of what was drawn. Where `require_conditional` refuses,
            that is not a conditional sample: what was drawn before a given sub-pixel does not know of it.
        labels: As in `sample`.
        seed: As in `sample`.
        temperature: As in `sample`.
        method: As in `sample`.
        batch_size: As in `sample`.
        advance: As in `sample`.

    Returns:
        Levels (n, C, H, W), uint8, on the CPU; where `known`, those of `images_NCHW`.

    Raises:
        DataError: The images are not integer levels of the model's form.
        ConfigError: `known` has another shape or type or is refused, or as in `sample`.
    """
    given = _given(model, images_NCHW, known)
    if not clamp:
        require_conditional(model, given.known_CHW)
    return _draw(model, len(given.x_BCHW), given, labels, seed, temperature, method, batch_size, advance)


def require_conditional(model: DensityModel, known: Tensor) -> None:
    """Refuse what is known where ancestral sampling of the rest is not sampling given what is known.

    Args:
        model: The model to draw from.
        known: Bool, (H, W) or (C, H, W), as in `complete`.

    Raises:
        ConfigError: It is not all that the model draws in its first network calls.
    """
    problem = why_not_conditional(model, known)
    if problem is not None:
        raise ConfigError(
            f"{problem}; with clamp (--clamp) the given part is put over what is drawn, which is not a conditional "
            "sample"
        )


def why_not_conditional(model: DensityModel, known: Tensor) -> str | None:
    """Return why drawing p(unknown | known) call after call is not exact, in words; None where it is."""
    order_CHW, known_CHW = model.order(), known.cpu().expand(model.form.shape)
    if known_CHW.all() or not known_CHW.any():
        return None
    if model.latent_dim:
        return (
            "a completion must be of a model without a latent, because a part of an image does not determine z, but "
            f"{model.config.model.family} has one"
        )
    first = int(order_CHW[~known_CHW].min())
    late = known_CHW & (order_CHW >= first)
    if not late.any():
        return None
    colour, row, col = late.nonzero()[0].tolist()
    return (
        "what is given must be all that the model draws in its first network calls, but its call "
        f"{first + 1} draws what is not given, and the given row {row}, column {col}, colour {colour} comes in call "
        f"{int(order_CHW[colour, row, col]) + 1}{_tiles(model)}"
    )


def _tiles(model: DensityModel) -> str:
    tiles = model.split.s
    return f" (the image is split into {tiles}×{tiles} tiles, drawn side by side)" if tiles > 1 else ""


def _draw(
    model: DensityModel,
    n: int,
    given: Observed | None,
    labels: Labels,
    seed: int,
    temperature: float,
    method: str,
    batch_size: int,
    advance: Advance,
) -> Tensor:
    if method not in METHODS:
        raise ConfigError(f"`method` must be one of {', '.join(METHODS)}, but got {method!r}")
    if n < 1:
        raise ConfigError(f"the number of samples must be at least 1, but got {n}")
    if not 0 < temperature < math.inf:
        raise ConfigError(f"`temperature` must be a number above 0, but got {temperature}")
    label_N = checked_labels(model, n, labels)
    _warn_of_no_label(model, label_N)
    generator = torch.Generator().manual_seed(seed)
    latents, noise = zip(*[(model.draw_latent(generator), model.noise(generator)) for _ in range(n)], strict=True)
    z_ND, noise_NNhw = torch.cat(latents), torch.cat(noise)
    images = []
    weight = next(model.parameters())
    with eval_mode(model), torch.inference_mode():
        for some in torch.arange(n).split(batch_size):
            like_BCHW = weight.new_zeros(len(some), *model.form.shape)
            s = model.features(like_BCHW, label_N[some].to(weight.device), z_ND[some].to(weight))
            part = None if given is None else _on(weight.device, given, some)
            drawing = SampleRequest(noise_NNhw[some].to(weight.device), s, temperature, part, advance)
            images.append(METHODS[method](model, drawing).to("cpu", torch.uint8))
    return torch.cat(images)


def _warn_of_no_label(model: DensityModel, label_N: Tensor) -> None:
    if model.conditioning is not None and not model.config.model.label_dropout and (label_N == NO_LABEL).any():
        warnings.warn(
            "images are drawn without a label from a model that was never trained without one; give `labels`, or train "
            "with `model.label_dropout`",
            stacklevel=4,
        )


def _on(device: torch.device, given: Observed, some: Tensor) -> Observed:
    return Observed(given.x_BCHW[some].to(device), given.known_CHW.to(device))


def _given(model: DensityModel, images_NCHW: Tensor | np.ndarray, known: Tensor | np.ndarray) -> Observed:
    """Check them, and move them to the CPU."""
    x_NCHW, known_CHW = _tensor(images_NCHW), _tensor(known)
    shape, levels = model.form.shape, model.form.levels
    require_level_type(x_NCHW, model.form)
    if known_CHW.dtype != torch.bool or tuple(known_CHW.shape) not in (shape, shape[1:]):
        raise ConfigError(
            f"what is given must be marked by bools of shape {shape} or {shape[1:]}, but got {known_CHW.dtype} of "
            f"shape {tuple(known_CHW.shape)}"
        )
    known_CHW, x_NCHW = known_CHW.expand(shape), x_NCHW.long()  # a uint8 does not compare with 256
    if not ((x_NCHW >= 0) & (x_NCHW < levels))[:, known_CHW].all():
        raise DataError(f"the given levels must be in 0..{levels - 1}, but some do not; give the model's own")
    return Observed(x_NCHW, known_CHW)


def _tensor(values: Tensor | np.ndarray) -> Tensor:
    """Return the values on the CPU; a copy of an array, which may be read-only."""
    return values.cpu() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
