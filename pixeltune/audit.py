"""The gate before training: a model that leaks, or does not sum to one, would win the search.

Two networks are examined, in float64 and eval mode (batch norm in train mode leaks by itself).
- A narrow one of the same classes at 8×8 (in tiles of at least 4×4): its full Jacobian, every position and colour.
  Exact, but it speaks for the classes, not for this instance.
- The real one, at its real shape and weights: everything from a cut of `order()` on is changed, and θ up to the cut
  must stay. 32 cuts, an image each.

Legend of shapes: B batch, C colours, H×W pixels, K levels, P parameters, S sites. A site is a place of one θ: a
sub-pixel where the network orders the colours, else a pixel, or an offset where the likelihood couples the tiles.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from pixeltune.config import FamilyConfig
from pixeltune.errors import AuditError
from pixeltune.likelihoods import Likelihood
from pixeltune.models import DensityModel, assemble, seeded
from pixeltune.models.split import to_tiles

NARROW_SIZE = 8
NARROW_TILE = 4
NUM_CUTS = 32
MAX_PIXELS = 64
MAX_COLOURS = 192
"""Pixels whose probabilities are summed, of the model's own θ and as many of a random θ; fewer where coupled tiles make
pixels of many colours."""
PIXELS_PER_PASS = 2**13
"""Bounds the memory of a pass: eight 32×32 images."""

LEAK_TOLERANCE = 1e-11
"""Largest change of θ, relative to max(1, |θ|), that counts as none. Float64 rounds at 1e-16, sums of a few thousand
terms at 1e-14, and a device may add them in another order in another batch; a wrong mask bit moves θ by far more."""
MASS_TOLERANCE = 1e-9
"""Largest error of a sum of K probabilities, or of a log probability relative to max(1, |nats|)."""


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What a passed audit found.

    receptive_rows, receptive_cols: the box of pixels that the bottom row's θ depend on, own row and column included;
        the image limits it to H and 2W − 1. Where the image is split, in pixels of a tile, and any tile counts.
    blind_spot: past pixels inside that box that are never seen.
    max_change: largest change of θ, relative to max(1, |θ|), where it must not change (rounding, or exactly zero).
    max_mass_error: largest distance of a sum of probabilities from one.
    seconds: what this audit took; near zero where `cached`: the same structure has passed before in this process.
    """

    receptive_rows: int
    receptive_cols: int
    blind_spot: int
    max_change: float
    max_mass_error: float
    seconds: float
    cached: bool


def audit(model: DensityModel) -> AuditReport:
    """Examine causality, normalisation and receptive field; the model is left as it was.

    Raises AuditError, which names the offending pair of sub-pixels, or the colour whose levels do not sum to one.
    """
    start = time.perf_counter()
    with torch.inference_mode(False), torch.autocast(_device(model).type, enabled=False):
        narrow_key = _narrow_key(model)
        if narrow_key not in _passed_narrow:
            check_jacobian(narrow_twin(model))
            _passed_narrow.add(narrow_key)
        key = _structure(model)
        cached = key in _passed
        if not cached:
            _passed[key] = _examine(model)
    return replace(_passed[key], seconds=time.perf_counter() - start, cached=cached)


_passed_narrow: set[Hashable] = set()
_passed: dict[Hashable, AuditReport] = {}


def _examine(model: DensityModel) -> AuditReport:
    twin = copy.deepcopy(model).double().eval().requires_grad_(False)
    max_change = check_cuts(twin)
    max_mass_error = check_normalisation(twin)
    rows, cols, blind_spot = receptive_field(twin)
    return AuditReport(
        receptive_rows=rows,
        receptive_cols=cols,
        blind_spot=blind_spot,
        max_change=max_change,
        max_mass_error=max_mass_error,
        seconds=0.0,
        cached=False,
    )


# --- The narrow network: every entry of the Jacobian ------------------------------------------------------------------


def narrow_twin(model: DensityModel) -> DensityModel:
    """The same classes, narrow, for two-level images of about 8×8, with weights that hide no path."""
    family = _narrow_config(model)
    size = _narrow_size(model)
    form = replace(model.form, height=size, width=size, levels=2)
    likelihood = replace(model.likelihood, levels=2)
    config = model.config.model_copy(update={"model": family})
    with torch.device("cpu"), seeded(0):
        twin = assemble(config, form, likelihood, network_class=type(model.network))
    twin.double().eval().requires_grad_(False)
    _open_all_paths(twin)
    return twin


def check_jacobian(model: DensityModel) -> None:
    """Differentiate θ at every site by every sub-pixel.

    Raises AuditError on a leak, on a θ without a past, and on a blind spot where the family claims none.
    """
    order_CHW, order_S = model.order(), _site_order(model)
    x_CHW = 0.5 + 0.5 * torch.rand(model.form.shape, generator=_generator(), dtype=torch.float64)
    for sites in _passes(torch.arange(len(order_S)), model):
        matters_SCHW = _gradients(model, x_CHW.repeat(len(sites), 1, 1, 1), sites) != 0
        is_past_SCHW = order_CHW < order_S[sites][:, None, None, None]
        for site, matters, is_past in zip(sites.tolist(), matters_SCHW, is_past_SCHW, strict=True):
            _require_no_leak(model, site, matters & ~is_past)
            _require_past(model, site, matters, is_past)


def _require_no_leak(model: DensityModel, site: int, leaks_CHW: Tensor) -> None:
    if leaks_CHW.any():
        raise _leak(model, site, tuple(leaks_CHW.nonzero()[0].tolist()))


def _require_past(model: DensityModel, site: int, matters_CHW: Tensor, is_past_CHW: Tensor) -> None:
    unseen_CHW = is_past_CHW & ~matters_CHW
    if is_past_CHW.any() and not (is_past_CHW & matters_CHW).any():
        raise AuditError(f"{_theta_at(model, site)} must depend on some earlier sub-pixel, but depends on none")
    if unseen_CHW.any() and not model.config.model.has_blind_spot:
        raise AuditError(
            f"{_theta_at(model, site)} must depend on every earlier sub-pixel, as family "
            f"{model.config.model.family} has no blind spot, but does not depend on "
            f"{_subpixel(model, tuple(unseen_CHW.nonzero()[0].tolist()))}; the model is rejected"
        )


def _open_all_paths(model: nn.Module) -> None:
    """Make every weight positive and every output an average of its inputs.

    On positive inputs no ReLU is then dead, no two paths cancel and no gate saturates: a derivative is zero if and
    only if there is no path. The label's features are inputs too: a negative map would close ReLUs.
    """
    for parameter in model.parameters():
        parameter.abs_()
        if parameter.dim() > 1:
            parameter.div_(parameter.flatten(1).sum(1).view(-1, *[1] * (parameter.dim() - 1)))


def _narrow_config(model: DensityModel) -> FamilyConfig:
    return model.config.model.narrow(model.form.channels, _narrow_size(model) // model.config.model.split)


def _narrow_size(model: DensityModel) -> int:
    """The smallest size at least 8, in tiles of at least 4, that the family can take."""
    family = model.config.model
    multiple = family.split * family.divisor
    return math.ceil(max(NARROW_SIZE, NARROW_TILE * family.split) / multiple) * multiple


# --- The real network: cuts -------------------------------------------------------------------------------------------


def check_cuts(model: DensityModel) -> float:
    """Change everything from a cut of `order()` on; θ up to the cut must stay, and some later θ must not.

    Returns the largest forbidden change, relative to max(1, |θ|). Raises AuditError.
    """
    order_CHW, order_S = model.order().to(_device(model)), _site_order(model).to(_device(model))
    base_CHW, other_CHW = _two_images(model)
    theta_SP = _theta_by_site(model, base_CHW[None])[0]
    scale = max(1.0, float(theta_SP.abs().max()))
    max_change = max_effect = 0.0
    for cuts in _passes(_cuts(order_S), model):
        is_changed_BCHW = order_CHW >= cuts[:, None, None, None]
        change_BS = (_theta_by_site(model, torch.where(is_changed_BCHW, other_CHW, base_CHW)) - theta_SP).abs().amax(2)
        forbidden_BS = change_BS.where(order_S <= cuts[:, None], 0.0) / scale
        if not forbidden_BS.max() <= LEAK_TOLERANCE:
            image, site = divmod(int(forbidden_BS.nan_to_num(nan=math.inf).argmax()), len(order_S))
            raise _leak(model, site, _offender(model, site, int(cuts[image]), base_CHW, other_CHW))
        max_change = max(max_change, float(forbidden_BS.max()))
        max_effect = max(max_effect, float(change_BS.max()))
    if order_S.max() > 0 and max_effect <= LEAK_TOLERANCE * scale:
        raise AuditError(
            "θ must depend on earlier sub-pixels, but changing them changes nothing; the model is rejected"
        )
    return max_change


def _offender(model: DensityModel, site: int, cut: int, base_CHW: Tensor, other_CHW: Tensor) -> tuple[int, ...]:
    """A sub-pixel (c, row, col) at or after the cut whose change alone moves θ at the site.

    The sub-pixels are changed one after another; θ is the base's before the first and not after the last, so bisection
    meets one at which it moves.
    """
    order_n = model.order().flatten().to(base_CHW.device)
    changing = order_n.argsort(stable=True)[int((order_n < cut).sum()) :]
    theta_P = _theta_by_site(model, base_CHW[None])[0, site]
    low, high = 0, len(changing)
    while high - low > 1:
        middle = (low + high) // 2
        x_n = base_CHW.flatten().clone()
        x_n[changing[:middle]] = other_CHW.flatten()[changing[:middle]]
        moved_P = (_theta_by_site(model, x_n.view(1, *base_CHW.shape))[0, site] - theta_P).abs()
        stays = moved_P.max() <= LEAK_TOLERANCE * max(1.0, float(theta_P.abs().max()))
        low, high = (middle, high) if stays else (low, middle)
    return tuple(int(i) for i in torch.unravel_index(changing[high - 1], base_CHW.shape))


def _cuts(order_S: Tensor) -> Tensor:
    """Up to 32 calls of the order, drawn without repetition."""
    num_calls = int(order_S.max()) + 1
    return torch.randperm(num_calls, generator=_generator())[:NUM_CUTS].to(order_S.device)


def _two_images(model: DensityModel) -> tuple[Tensor, Tensor]:
    """Two images (C, H, W) of random levels that differ in every sub-pixel."""
    generator, K = _generator(), model.form.levels
    base_CHW = torch.randint(K, model.form.shape, generator=generator)
    other_CHW = (base_CHW + torch.randint(1, K, model.form.shape, generator=generator)) % K
    return base_CHW.to(_device(model)), other_CHW.to(_device(model))


# --- Normalisation ----------------------------------------------------------------------------------------------------


def check_normalisation(model: DensityModel) -> float:
    """At θ of the model and at random θ: each colour's levels sum to one, and `log_prob` is the sum of their logs.

    Returns the largest distance of a sum from one. Raises AuditError.
    """
    return max(_check_pixels(model.likelihood, theta) for theta in _pixel_thetas(model))


def _pixel_thetas(model: DensityModel) -> Iterator[Tensor]:
    """θ of one-pixel images, from the model and at random."""
    base_CHW, _ = _two_images(model)
    with torch.no_grad():
        theta = _theta(model, model.scale(base_CHW[None]))[0].flatten(-2)
    num_pixels = max(1, min(MAX_PIXELS, MAX_COLOURS // model.likelihood.channels))
    pixels = torch.randperm(theta.shape[-1], generator=_generator())[:num_pixels].to(theta.device)
    yield theta[..., pixels].movedim(-1, 0)[..., None, None]
    shape = model.likelihood.theta_shape(num_pixels, 1, 1)
    yield torch.randn(shape, generator=_generator(), dtype=torch.float64).to(theta.device)


def _check_pixels(likelihood: Likelihood, theta: Tensor) -> float:
    num_pixels, generator = len(theta), _generator()
    likely = likelihood.sample(theta, likelihood.noise(num_pixels, 1, 1, generator, torch.float64, theta.device))
    uniform = torch.randint(likelihood.levels, likely.shape, generator=generator).to(theta.device)
    return max(_check_levels(likelihood, theta, x_BC11) for x_BC11 in (likely, uniform))


def _check_levels(likelihood: Likelihood, theta: Tensor, x_BC11: Tensor) -> float:
    worst, nats_B = 0.0, theta.new_zeros(len(theta))
    for j in range(likelihood.channels):
        probs_BK11 = likelihood.table(theta, x_BC11[:, :j])
        sums = probs_BK11.sum(1).flatten()
        worst = max(worst, float((sums - 1).abs().max()))
        if not worst <= MASS_TOLERANCE:
            furthest = float(sums[(sums - 1).abs().argmax()])
            raise AuditError(
                f"the probabilities of the {likelihood.levels} levels of colour {j} must sum to one, "
                f"but sum to {furthest:.9g}; the model is rejected"
            )
        nats_B = nats_B + probs_BK11.gather(1, x_BC11[:, j : j + 1]).log().flatten()
    _require_agreement(likelihood.log_prob(theta, x_BC11), nats_B, x_BC11)
    return worst


def _require_agreement(log_prob_B: Tensor, nats_B: Tensor, x_BC11: Tensor) -> None:
    # Below e^−700 a probability is no longer a normal number of float64, while its log still is.
    error_B = ((log_prob_B - nats_B).abs() / nats_B.abs().clamp(min=1)).where((nats_B > -700) | log_prob_B.isnan(), 0.0)
    if not error_B.max() <= MASS_TOLERANCE:
        pixel = int(error_B.nan_to_num(nan=math.inf).argmax())
        raise AuditError(
            f"log_prob of a pixel of levels {x_BC11[pixel].flatten().tolist()} must be the sum of the logs of its "
            f"table's probabilities, {nats_B[pixel]:.9g}, but is {log_prob_B[pixel]:.9g}; the model is rejected"
        )


# --- Receptive field --------------------------------------------------------------------------------------------------


def receptive_field(model: DensityModel) -> tuple[int, int, int]:
    """Rows, columns and blind spot as AuditReport defines them.

    Gradients from the right and the left end of the bottom row, side by side, show every offset the image has room for.
    """
    H, W = _tile_shape(model)
    right_end_HW, left_end_HW = (_pixels_seen_from(model, col) for col in (W - 1, 0))
    # Column W − 1 of the offsets is the pixel's own; the right end shows what lies left of it.
    seen = torch.cat([right_end_HW, left_end_HW[:, 1:]], dim=1)
    seen[:, W - 1] |= left_end_HW[:, 0]
    rows = H - _first(seen.any(1))
    left, right = W - 1 - _first(seen.any(0)), W - 1 - _first(seen.any(0).flip(0))
    box = seen[H - rows :, W - 1 - left : W + right]
    return rows, left + 1 + right, int((~box).sum()) - right


def _pixels_seen_from(model: DensityModel, col: int, *, num_images: int = 4) -> Tensor:
    """(H, W) of a tile: the pixels that matter to θ at a column of the bottom row, in any of some random images; itself
    too. The row is the last tile's, and a pixel that matters may lie in any tile."""
    H, W = _tile_shape(model)
    site = len(_site_order(model)) - W + col
    x_BCHW = 2 * torch.rand((num_images, *model.form.shape), generator=_generator(), dtype=torch.float64) - 1
    sites = torch.full((num_images,), site)
    seen_BCHW = (_gradients(model, x_BCHW.to(_device(model)), sites) != 0).cpu()
    seen_HW = to_tiles(seen_BCHW, model.split.s).flatten(0, 2).any(0)
    seen_HW[H - 1, col] = True
    return seen_HW


def _tile_shape(model: DensityModel) -> tuple[int, int]:
    return model.form.height // model.split.s, model.form.width // model.split.s


def _first(is_seen: Tensor) -> int:
    return int(is_seen.int().argmax())


# --- Sites, and what was examined before ------------------------------------------------------------------------------


def _theta(model: DensityModel, x_BCHW: Tensor) -> Tensor:
    """θ of images in [−1, 1], all of class 0 where the model takes labels."""
    return model.parameters_of(x_BCHW, torch.zeros(len(x_BCHW), dtype=torch.int64, device=x_BCHW.device))


def _by_site(model: DensityModel, theta: Tensor) -> Tensor:
    """θ as (B, S, P); the sites of a subpixel-causal model are (colour, row, col) in that order, flat."""
    return theta.flatten(2).movedim(1, 2) if model.likelihood.is_joint else theta.movedim(2, -1).flatten(1, 3)


def _theta_by_site(model: DensityModel, x_BCHW: Tensor) -> Tensor:
    """θ (B, S, P) of integer levels."""
    with torch.no_grad():
        return _by_site(model, _theta(model, model.scale(x_BCHW)))


def _site_order(model: DensityModel) -> Tensor:
    """(S,): the call in which each site's θ is read."""
    order = model.split.to_sites(model.order()[None])[0]
    return (order[0] if model.likelihood.is_joint else order).flatten()


def _gradients(model: DensityModel, x_BCHW: Tensor, sites_B: Tensor) -> Tensor:
    """d(sum of θ at site b)/dx in image b, (B, C, H, W): one row of the Jacobian an image."""
    with torch.enable_grad():
        x_BCHW = x_BCHW.detach().requires_grad_()
        theta_BS = _by_site(model, _theta(model, x_BCHW)).sum(2)
        total = theta_BS.gather(1, sites_B.to(theta_BS.device)[:, None]).sum()
        # The second term lets a network that ignores its input be differentiated, and so be rejected by name.
        return torch.autograd.grad(total + 0.0 * x_BCHW.sum(), x_BCHW)[0]


def _leak(model: DensityModel, site: int, subpixel: tuple[int, ...]) -> AuditError:
    return AuditError(
        f"{_theta_at(model, site)} must not depend on {_subpixel(model, subpixel)}, but it does; the model is rejected"
    )


def _theta_at(model: DensityModel, site: int) -> str:
    H, W = model.split.to_sites(model.order()[None]).shape[-2:]
    colour, row, col = site // (H * W), site // W % H, site % W
    place = f"row {row}, col {col}" + ("" if model.likelihood.is_joint else f", colour {colour}")
    return f"θ at ({place}), drawn in call {int(_site_order(model)[site])},"


def _subpixel(model: DensityModel, subpixel: tuple[int, ...]) -> str:
    colour, row, col = subpixel
    return f"(row {row}, col {col}, colour {colour}), drawn in call {int(model.order()[colour, row, col])}"


def _passes(per_image: Tensor, model: DensityModel) -> tuple[Tensor, ...]:
    """Split what there is one of per image into passes of bounded memory."""
    images_per_pass = max(1, PIXELS_PER_PASS // (model.form.height * model.form.width))
    return torch.split(per_image, images_per_pass)


def _device(model: DensityModel) -> torch.device:
    return next(model.parameters()).device


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _narrow_key(model: DensityModel) -> Hashable:
    return type(model.network), type(model.likelihood), model.causality, model.form.channels, _narrow_config(model)


def _structure(model: DensityModel) -> Hashable:
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
