"""The real network, at its real shape and weights: what comes after a cut of its order must not matter before it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pixeltune.audit.sites import (
    LEAK_TOLERANCE,
    Conditions,
    audited_labels,
    conditions_of,
    device_of,
    fixed_generator,
    images_per_pass,
    largest_by_site,
    leak,
    site_order,
    theta_at,
    theta_of_levels,
)
from pixeltune.errors import AuditError
from pixeltune.models import DensityModel

NUM_CUTS = 32
_FEWEST_PROBES = 8
_IMAGES_COMPARED = 8


@dataclass(frozen=True)
class Probes:
    """Pairs of images of integer levels that differ in every sub-pixel, and what θ of both is given.

    Half of the sub-pixels of every second pair are at an end of the scale, and the last two pairs are wholly so: a
    leak may act on saturated pixels alone.
    """

    base_RCHW: Tensor
    other_RCHW: Tensor
    given: Conditions

    @classmethod
    def of(cls, model: DensityModel, count: int, *, seed: int = 0) -> Probes:
        """Draw `count` pairs, the audited labels in turn."""
        generator, top = fixed_generator(seed), model.form.levels - 1
        shape = (count, *model.form.shape)
        end, far_end = (top * torch.randint(2, shape, generator=generator) for _ in range(2))
        at_end, at_far_end = (torch.rand(shape, generator=generator) < 0.5 for _ in range(2))
        at_end[::2] = at_far_end[::2] = False
        base = end.where(at_end, torch.randint(top + 1, shape, generator=generator))
        other = (base + torch.randint(1, top + 1, shape, generator=generator)) % (top + 1)
        other = torch.where(base == far_end, top - far_end, far_end).where(at_far_end, other)
        if count > 2:
            for row, level in ((-2, 0), (-1, top)):
                base[row], other[row] = level, top - level
        device = device_of(model)
        return cls(base.to(device), other.to(device), conditions_of(model, count))

    def thetas(self, model: DensityModel, rows: Tensor, cuts_B: Tensor | None = None) -> Tensor:
        """Return θ of the base images of these rows; with cuts, of those changed from the cut of each on."""
        x_BCHW = self.base_RCHW[rows]
        if cuts_B is not None:
            is_changed_BCHW = model.order().to(x_BCHW.device) >= cuts_B[:, None, None, None]
            x_BCHW = torch.where(is_changed_BCHW, self.other_RCHW[rows], x_BCHW)
        return theta_of_levels(model, x_BCHW, self.given[rows])


@dataclass(frozen=True)
class CutResult:
    """Changes of θ by all cuts.

    max_change: largest forbidden change of θ, relative to max(1, |θ|). max_effect: largest change of any θ.
    """

    max_change: float
    max_effect: float


def require_effect(model: DensityModel, result: CutResult) -> None:
    """Raise AuditError where nothing that was changed had an effect, though some θ have a past."""
    if site_order(model).max() > 0 and result.max_effect <= LEAK_TOLERANCE:
        raise AuditError(
            "θ must depend on earlier sub-pixels, but changing them changes nothing; the model is rejected"
        )


def check_cuts(
    model: DensityModel,
    *,
    num_cuts: int = NUM_CUTS,
    batch_size: int | None = None,
    tolerance: float = LEAK_TOLERANCE,
    seed: int = 0,
) -> CutResult:
    """Change everything from a cut of `order()` on; θ up to the cut must stay.

    Cuts are drawn without repetition from the calls of the order, all of them if num_cuts allows.

    Args:
        model: as it is to be examined, in its dtype and mode.
        num_cuts: how many; more where each pair of images, or each image of a batch, is to have one.
        batch_size: images of each network call, in place of as many as bounded memory allows: an image a row, so that
            every place in the batch is examined.
        tolerance: largest change, relative to max(1, |θ|), that counts as none.
        seed: of cuts and images.

    Raises:
        AuditError: naming the first θ that changed, and a sub-pixel that changes it.
    """
    order_S = site_order(model).to(device_of(model))
    probes = Probes.of(model, batch_size or num_probes(model), seed=seed)
    num_rows, step = len(probes.base_RCHW), batch_size or images_per_pass(model)
    all_rows = torch.arange(num_rows, device=order_S.device)
    # Kept apart from the device, which an evaluation may fill.
    base_theta = torch.cat([probes.thetas(model, rows).cpu() for rows in torch.split(all_rows, step)])
    scale = max(1.0, float(base_theta.nan_to_num(0.0, 0.0, 0.0).abs_().max()))
    max_change = max_effect = 0.0
    cuts_N = _cuts(order_S, num_cuts, at_least=num_rows, seed=seed)
    for cuts_R in torch.split(cuts_N, num_rows):
        for rows_B in torch.split(all_rows[: len(cuts_R)], step):
            cuts_B = cuts_R[rows_B]
            change_BS = _changes(model, probes.thetas(model, rows_B, cuts_B), base_theta[int(rows_B[0]) :]) / scale
            forbidden_BS = change_BS.where(order_S <= cuts_B[:, None], 0.0)
            if not forbidden_BS.max() <= tolerance:
                image, site = divmod(int(forbidden_BS.nan_to_num(nan=math.inf).argmax()), len(order_S))
                explanation = _Explanation(model, probes, rows_B, image, site, tolerance * scale)
                raise explanation.of_cut(int(cuts_B[image]))
            max_change = max(max_change, float(forbidden_BS.max()))
            max_effect = max(max_effect, float(change_BS.max()))
    return CutResult(max_change, max_effect)


def _changes(model: DensityModel, theta: Tensor, base_theta: Tensor) -> Tensor:
    """Return the largest change of each site, (B, S), a few images at a time; zero where the base is not finite.

    Random levels may drive θ there, which is no leak; what comes after a cut must not.
    """
    changes = list[Tensor]()
    for few, base in zip(*(torch.split(t, _IMAGES_COMPARED) for t in (theta, base_theta[: len(theta)])), strict=True):
        base_here = base.to(few.device)
        change = (few - base_here).abs_().masked_fill_(~base_here.isfinite(), 0.0)
        changes.append(largest_by_site(model, change))
    return torch.cat(changes)


@dataclass(frozen=True)
class _Explanation:
    """Finds out what moved θ at a site of one image of a batch. limit: the largest change that counts as none."""

    model: DensityModel
    probes: Probes
    rows_B: Tensor
    image: int
    site: int
    limit: float

    def of_cut(self, cut: int) -> AuditError:
        """Name a sub-pixel at or after the cut whose change alone moves θ, or the rest of the batch where none does.

        The sub-pixels are changed one after another; θ is the base's before the first and not after the last, so that
        bisection meets one at which it moves.
        """
        order_n = self.model.order().flatten().to(self.rows_B.device)
        changing = order_n.argsort(stable=True)[int((order_n < cut).sum()) :]
        if not self._moves(changing):
            return AuditError(
                f"{theta_at(self.model, self.site)} must depend on earlier sub-pixels of its own image alone, but "
                "depends on its batch, or on how often the network was called; the model is rejected"
            )
        low, high = 0, len(changing)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._moves(changing[:middle]) else (middle, high)
        _, H, W = self.probes.base_RCHW.shape[1:]
        found = int(changing[high - 1])
        return leak(self.model, self.site, (found // (H * W), found // W % H, found % W))

    def _moves(self, changing: Tensor) -> bool:
        """Return whether θ moves where these sub-pixels of the image change, and no other of the batch."""
        base_BCHW, other_BCHW = self.probes.base_RCHW[self.rows_B], self.probes.other_RCHW[self.rows_B]
        x_BCHW = base_BCHW.clone()
        x_BCHW[self.image].view(-1)[changing] = other_BCHW[self.image].flatten()[changing]
        given = self.probes.given[self.rows_B]
        theta, base = (theta_of_levels(self.model, x, given)[self.image, None] for x in (x_BCHW, base_BCHW))
        change = largest_by_site(self.model, (theta - base).abs_())[0, self.site]
        return not float(change) <= self.limit


def num_probes(model: DensityModel) -> int:
    """Return how many images every audited label needs, next to the two at the ends of the scale."""
    return max(_FEWEST_PROBES, len(audited_labels(model)) + 2)


def _cuts(order_S: Tensor, num_cuts: int, *, at_least: int, seed: int) -> Tensor:
    """Draw calls of the order without repetition, then again from the first up to a multiple of `at_least`."""
    num_calls = int(order_S.max()) + 1
    cuts = torch.randperm(num_calls, generator=fixed_generator(seed))[:num_cuts]
    count = math.ceil(len(cuts) / at_least) * at_least
    return cuts[torch.arange(count) % len(cuts)].to(order_S.device)
