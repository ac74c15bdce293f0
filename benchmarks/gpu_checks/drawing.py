"""Part C: how fast images are drawn, a short training, and what feeding a network costs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from sample import NAMES, drawing_of, measure, model_of

from gpu_checks.report import Found, Report, forget_earlier, peak_gigabytes, seconds_of
from pixeltune.config import TrialConfig
from pixeltune.data import order0_bits_per_dim
from pixeltune.models import DensityModel, eval_mode
from pixeltune.packages import has_package
from pixeltune.sampling import RowSampler
from pixeltune.search.trial_metadata import facts_of
from pixeltune.training.evaluation import evaluate
from pixeltune.training.loop import Training, fit
from pixeltune.training.optim import build_optimizer

TOY: dict[str, Any] = {"size": 8, "channels": 8, "layers": 1}
BATCHES = (64, 16, 1)
CALLS = 3
PUBLISHED_RATIOS = {1: 2, 16: 18, 64: 61, 256: 183}
"""Cached to naive speed of PixelCNN++ by batch, on a Tesla K40: fast-pixel-cnn's README, arXiv 1704.06001."""
REPORTS = 8

LEARNER: dict[str, Any] = {
    "data": {"name": "gpu_checks.images:structured"},
    "model": {"family": "gated", "layers": 6, "channels": 64, "kernel_size": 3, "colour_order": "likelihood"},
    "likelihood": {"name": "logistic_mixture"},
    "optim": {"lr": 1e-3, "ema": 0.99, "schedule": "cosine"},
    "train": {"images": REPORTS * 12_800, "batch_size": 64, "report_every": 12_800},
}
SMALL: dict[str, Any] = {
    "data": {"name": "gpu_checks.images:noise"},
    "model": {"family": "gated", "layers": 1, "channels": 16, "kernel_size": 3},
    "likelihood": {"name": "logistic_mixture", "mixtures": 2},
    "train": {"images": 400 * 256, "batch_size": 256, "report_every": 200 * 256, "precision": "float32"},
}
"""So small that data and the launching of functions are most of a step."""


def run(report: Report, options: argparse.Namespace) -> None:
    """Sampling, then training."""
    for name in ("gated", "reference"):
        model = model_of(name, **(TOY if report.is_quick else {})).to(report.device)
        for batch in (2,) if report.is_quick else BATCHES:
            setting = f"{NAMES[name]}, batch {batch}"
            report.check("cached sampling", setting, partial(_sampling, model, batch, report), seconds=45)
        report.check("rows of cached sampling", f"{NAMES[name]}, batch 16", partial(_rows, model, report), seconds=20)
    report.check("a short training", "gated 6 × 64, batch 64", partial(_learning, report, options), seconds=90)
    report.check("feeding", "gated 1 × 16, batch 256", partial(_feeding, report), seconds=30)
    _check_codes(report)


# --- Sampling ---------------------------------------------------------------------------------------------------------


def _sampling(model: DensityModel, batch: int, report: Report) -> Iterator[Found]:
    """A whole run, its programs and graphs made anew, beside as many full passes as the image has calls."""
    forget_earlier(report.device)
    with eval_mode(model), torch.inference_mode():
        found = measure(model, drawing_of(model, batch), calls=1 if report.is_quick else CALLS)
    faster = found.naive / found.cached
    record = f"{PUBLISHED_RATIOS[batch]} times was published (Tesla K40)" if batch in PUBLISHED_RATIOS else "–"
    yield Found(
        f"{batch / found.cached:.3g} images/s, {found.cached:.2f} s; a full pass {found.full * 1e3:.3g} ms, "
        f"naive {found.naive:.1f} s (scaled); {faster:.1f} times; caches {found.cache_bytes / 1e6:.0f} MB, "
        f"peak {peak_gigabytes(report.device)}",
        record,
    )


def _rows(model: DensityModel, report: Report) -> Iterator[Found]:
    """The first rows of each resolution run as they are, the next are captured, where a graph can be; then replayed."""
    with eval_mode(model), torch.inference_mode():
        rows = RowSampler(model, drawing_of(model, 2 if report.is_quick else 16))
        period = rows.stepper.network.period
        seconds = [seconds_of(partial(rows.draw, row), report.device) for row in range(rows.height)]
    kinds = {
        "programs made": seconds[:period],
        "again, on a GPU captured": seconds[period : 2 * period],
        "after that": seconds[2 * period :],
    }
    for what, some in kinds.items():
        if some:
            yield Found(f"{sum(some) / len(some) * 1e3:.3g} ms a row, {sum(some):.2f} s in all", setting=what)


# --- Training ---------------------------------------------------------------------------------------------------------


def _learning(report: Report, options: argparse.Namespace) -> Iterator[Found]:
    """Bits/dim of validation at each report; the last must be below the first and below histograms."""
    config = TrialConfig.build(LEARNER)
    if options.data is not None:
        config = config.override({"data.name": "array", "data.path": str(options.data)})
    if report.is_quick:
        quick = {"model.layers": 1, "model.channels": 8, "train.images": 512, "train.report_every": 128}
        quick |= {} if options.data else {"data.name": "gpu_checks.images:few"}
        config = config.override(quick)
    training = fit(config, device=report.device)
    baseline, precision = order0_bits_per_dim(training.data), facts_of(training)["precision"]
    forget_earlier(report.device)
    reports = []
    for found in training:
        reports.append(found)
        yield Found(
            f"{found.valid_bits_per_dim:.4f} bits/dim, training {found.train_bits_per_dim:.4f}; "
            f"{found.images_per_second:,.0f} images/s in {precision}",
            setting=f"{found.images_seen:,} images, {found.train_seconds + found.compile_seconds:.0f} s",
        )
    first, last = reports[0].valid_bits_per_dim, reports[-1].valid_bits_per_dim
    expected = f"< {first:.4f}, the first" + ("" if report.is_quick else f", and < {baseline:.4f}, histograms")
    is_better = last < first and (report.is_quick or last < baseline)
    yield Found(f"{last:.4f} bits/dim; {peak_gigabytes(report.device)}", expected, is_better, "at the end")


def _feeding(report: Report) -> Iterator[Found]:
    """`fit` beside the same network on one batch that lies on the device."""
    config = TrialConfig.build(SMALL)
    if report.is_quick:
        config = config.override({"train.batch_size": 8, "train.report_every": 16, "train.images": 32})
    training = fit(config, device=report.device)
    fed = list(training)[-1].images_per_second
    batch = config.train.batch_size
    resident = batch / _resident_step_seconds(training, batch, 2 if report.is_quick else 100)
    yield Found(f"{fed:,.0f} images/s by fit; {resident:,.0f} forward, backward and Adam on one resident batch")


def _resident_step_seconds(training: Training, batch: int, steps: int) -> float:
    x_BCHW = torch.tensor(training.data.train.pixels_NCHW[:batch], device=training.device)
    model = training.model.train()
    optimizer = build_optimizer(training.config.optim, model)

    def step() -> None:
        optimizer.zero_grad()
        model.loss(x_BCHW).mean().backward()
        optimizer.step()

    step()
    return seconds_of(lambda: [step() for _ in range(steps)], training.device) / steps


# --- Coding -----------------------------------------------------------------------------------------------------------


def _check_codes(report: Report) -> None:
    name, setting = "verify-bits", "gated 1 × 8, 100 images of 8×8"
    if has_package("constriction"):
        report.check(name, setting, partial(_codes, report), seconds=20)
    else:
        report.skip(name, setting, "constriction is not installed")


def _codes(report: Report) -> Iterator[Found]:
    """Coded and decoded on the device."""
    from gpu_checks.images import few
    from pixeltune.config import DataConfig
    from pixeltune.data import ImageSet
    from pixeltune.sampling.code_check import verify_bits
    from pixeltune.sampling.determinism import fixed_numbers

    model = model_of("gated", **TOY).to(report.device)
    images = ImageSet(few(DataConfig(name="array")).train.pixels_NCHW[:100])
    with fixed_numbers(model):
        nats = float(evaluate(model, images).nats_N.sum())
    found = verify_bits(model, images.pixels_NCHW, claimed_nats=nats)
    yield Found.is_so(found.is_identical and found.is_within, "identical, and as long as log p says")
