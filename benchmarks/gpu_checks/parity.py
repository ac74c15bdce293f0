"""Part A: the device computes what the CPU does, draws the same images, and repeats itself."""

from __future__ import annotations

import argparse
import copy
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpu_checks.images import draw
from gpu_checks.kinds import Kind, structures
from gpu_checks.report import Found, Report, tensor_float
from pixeltune.config import ImageSpec, TrialConfig
from pixeltune.data import ImageSet, load_data
from pixeltune.models import DensityModel, build_model
from pixeltune.sampling import METHODS, complete, labels_in_turn, sample, upper_half, why_not_conditional
from pixeltune.training.batches import Batches
from pixeltune.training.checkpoint import TrainState
from pixeltune.training.evaluation import Evaluation, evaluate
from pixeltune.training.loop import fit
from pixeltune.training.optim import build_optimizer
from pixeltune.training.workers import Workers

LOG_PROB, GRADIENTS, WEIGHTS = 1e-12, 1e-10, 1e-9
"""Largest difference over the largest value, in float64."""
BITS_PER_DIM = 1e-5
"""Largest difference of an image's evaluation in float32."""
BATCH_SIZES = 1e-6
"""Of the number of record between batch sizes."""

EVALUATED = {
    "gated 12 × 96, joint": {
        "model": {"family": "gated", "layers": 12, "channels": 96, "colour_order": "likelihood"},
        "likelihood": {"name": "logistic_mixture"},
    },
    "gated 6 × 48, masks, softmax": {
        "model": {"family": "gated", "layers": 6, "channels": 48},
        "likelihood": {"name": "categorical"},
    },
    "PixelCNN++ 2 × 64": {
        "model": {"family": "pixelcnnpp", "layers": 2, "channels": 64},
        "likelihood": {"name": "logistic_mixture"},
    },
}
FIRST_REPORT = 1e-3
"""Of a few steps in float32, which let rounding grow."""
TRAINED: dict[str, Any] = {
    "data": {"name": "gpu_checks.images:few"},
    "model": {"family": "pixelcnnpp", "layers": 1, "channels": 16, "stages": 2, "dropout": 0.5},
    "likelihood": {"name": "logistic_mixture", "mixtures": 5},
    "optim": {"lr": 1e-3, "ema": 0.99},
    "train": {"images": 1024, "batch_size": 32, "report_every": 256, "eval_batch_size": 32, "precision": "float32"},
}


DYNAMIC = {"data.levels": 16, "data.binarise": "dynamic"}


def run(report: Report, _options: argparse.Namespace) -> None:
    """All checks, the shortest first."""
    kinds = list(structures(report.is_quick))
    for name, some in kinds:
        report.check("float64, as on the CPU", name, partial(_parity, some, report.device))
    for name, sections in EVALUATED.items():
        report.check("evaluation in float32", name, partial(_evaluation, sections, report), seconds=40)
    report.check("images in training", "flipped", partial(_batches, {}, report.device))
    report.check("images in training", "drawn anew, flipped", partial(_batches, DYNAMIC, report.device))
    report.check("training", "PixelCNN++ 1 × 16, dropout, EMA", partial(_training, report), seconds=60)
    for name, some in kinds:
        check = "images, as drawn on the CPU"
        report.check(check, name, partial(_sampling, some, report.device), seconds=5 * len(some))
    for name, some in kinds:
        three = [some[0], *some[-2:]]
        report.check("completions and temperature", name, partial(_completion, three, report.device), seconds=20)


# --- The same numbers -------------------------------------------------------------------------------------------------


def _parity(kinds: list[Kind], device: torch.device) -> Iterator[Found]:
    worst = {"log p": (0.0, ""), "gradients": (0.0, ""), "weights after a step": (0.0, "")}
    for kind in kinds:
        model = kind.model()
        there = copy.deepcopy(model).to(device)
        pairs = zip(worst, _numbers(model, kind), _numbers(there, kind), strict=True)
        for what, ours, theirs in pairs:
            worst[what] = max(worst[what], (_difference(ours, theirs), kind.name))
    for (what, (value, name)), limit in zip(worst.items(), (LOG_PROB, GRADIENTS, WEIGHTS), strict=True):
        yield Found.at_most(value, limit, f" ({name}; {len(kinds)} kinds)", what)


def _numbers(model: DensityModel, kind: Kind) -> tuple[Tensor, Tensor, Tensor]:
    """log p of a few images in eval mode; the loss's gradient in training; the weights after a step."""
    device = next(model.parameters()).device
    x_BCHW, label_B = kind.levels(3).to(device), torch.arange(3, device=device)
    index_B = torch.arange(3)
    with torch.no_grad():
        nats_B = model.eval().log_prob(x_BCHW, label_B, index_B)
    optimizer = build_optimizer(kind.config.optim, model)
    model.train().loss(x_BCHW, label_B, 0, index_B).mean().backward()
    weights = [parameter for parameter in model.parameters() if parameter.grad is not None]
    gradients = _flat(parameter.grad for parameter in weights)
    optimizer.step()
    return nats_B.cpu(), gradients, _flat(weights)


def _flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().flatten().cpu() for tensor in tensors])


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """NaN, which is no difference to a maximum, counts as the largest."""
    value = float((ours - theirs).abs().max() / ours.abs().max())
    return math.inf if math.isnan(value) else value


# --- Evaluation -------------------------------------------------------------------------------------------------------


def _evaluation(sections: dict[str, Any], report: Report) -> Iterator[Found]:
    """With TF32 allowed outside, for a number of record must not care."""
    size, count = (8, 4) if report.is_quick else (32, 24)
    narrow = {"channels": 8, "layers": 1} if report.is_quick else {}
    config = TrialConfig.build({"data": {"name": "array"}} | sections | {"model": sections["model"] | narrow})
    model = build_model(config, ImageSpec(3, size, size, levels=256))
    images = ImageSet(draw(np.random.default_rng(1), count, size))
    if model.is_initialised_by_data:
        model.initialise(torch.tensor(images.pixels_NCHW[:4]))
    here = evaluate(model, images, batch_size=8)
    with tensor_float(allowed=True):
        model.to(report.device)
        there, again, other = (evaluate(model, images, batch_size=size) for size in (8, 8, 6))
    yield Found.at_most(_apart(here, there), BITS_PER_DIM, " bits/dim of any image", "from the CPU's")
    yield Found.is_so(bool((there.nats_N == again.nats_N).all()), "equal", setting="again")
    apart = abs(there.bits_per_dim - other.bits_per_dim)
    yield Found.at_most(apart, BATCH_SIZES, " bits/dim", "in another batch size")


def _apart(one: Evaluation, other: Evaluation) -> float:
    return float(np.abs(one.nats_N - other.nats_N).max()) / (one.form.dims * math.log(2))


# --- Training again, and resumed --------------------------------------------------------------------------------------


def _batches(changes: dict[str, Any], device: torch.device) -> Iterator[Found]:
    """Those that a training takes, of two epochs; a wait of the host for the GPU would be an error."""
    config = TrialConfig.build(TRAINED).override({"data.flip": True, **changes})
    data = load_data(config.data)
    here, streamed, resident = (
        Batches(data, config, Workers(), place) for place in (torch.device("cpu"), device, device)
    )
    resident.keep_on_device()
    starts = range(0, 2 * len(data.train), config.train.batch_size)
    for way, batches in (("streamed", streamed), ("resident", resident)):
        with _no_waiting(device):
            found = [batches.part(start).x_BCHW for start in starts]
        is_same = all(torch.equal(x.cpu(), here.part(start).x_BCHW) for x, start in zip(found, starts, strict=True))
        yield Found.is_so(is_same, "equal", setting=way)


@contextmanager
def _no_waiting(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _training(report: Report) -> Iterator[Found]:
    """Curves of validation bits/dim."""
    config = TrialConfig.build(TRAINED)
    loose = _curve(config, report.device), _curve(config, report.device)
    yield Found(f"{_furthest(*loose):.1e} bits/dim apart", setting="again, as it is")
    with _deterministic():
        whole, again, resumed = _curve(config, report.device), _curve(config, report.device), _resumed(config, report)
    yield Found.is_so(whole == again, "equal", f"{_furthest(whole, again):.1e} apart", "again, deterministic")
    yield Found.is_so(
        whole == resumed, "equal", f"{_furthest(whole, resumed):.1e} apart", "resumed from a file, deterministic"
    )
    alike = config.override({"model.dropout": 0.0})  # each device draws its own dropout
    with tensor_float(allowed=False):
        here, there = (next(fit(alike, device=device)) for device in ("cpu", report.device))
    apart = abs(here.valid_bits_per_dim - there.valid_bits_per_dim)
    yield Found.at_most(apart, FIRST_REPORT, " bits/dim", f"from the CPU's after {here.step} steps, without dropout")


def _curve(config: TrialConfig, device: torch.device) -> list[float]:
    return [found.valid_bits_per_dim for found in fit(config, device=device)]


def _resumed(config: TrialConfig, report: Report) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        location = str(Path(folder) / "state.pt")
        training = fit(config, device=report.device)
        for _ in range(2):
            next(training)
        training.state.save(location)
        rest = fit(config, state=TrainState.load(location), device=report.device)
        return [found.valid_bits_per_dim for found in chain(rest.reports, rest)]


def _furthest(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@contextmanager
def _deterministic() -> Iterator[None]:
    """Where the device has such functions; it warns of others."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(False)


# --- The same images --------------------------------------------------------------------------------------------------


def _sampling(kinds: list[Kind], device: torch.device) -> Iterator[Found]:
    """Five images in batches of three: the second batch is smaller, and its graphs are its own."""

    def images(model: DensityModel, method: str) -> Tensor:
        return sample(model, 5, labels=labels_in_turn(model, 5), seed=3, method=method, batch_size=3)

    yield from _same_images(kinds, device, images)


def _completion(kinds: list[Kind], device: torch.device) -> Iterator[Found]:
    """The upper half given, put over what is drawn where it is no condition, and at a temperature."""

    def images(model: DensityModel, method: str) -> Tensor:
        x_NCHW = torch.randint(model.form.levels, (3, *model.form.shape), generator=torch.Generator().manual_seed(5))
        known, labels = upper_half(model), labels_in_turn(model, 3)
        clamp = why_not_conditional(model, known) is not None
        return complete(model, x_NCHW, known, clamp=clamp, labels=labels, seed=4, temperature=0.7, method=method)

    yield from _same_images(kinds, device, images)


def _same_images(
    kinds: list[Kind], device: torch.device, images: Callable[[DensityModel, str], Tensor]
) -> Iterator[Found]:
    """Each method on the device beside the naive one on the CPU."""
    other: dict[str, list[str]] = {method: [] for method in METHODS}
    for kind in kinds:
        model = kind.model()
        here = images(model, "naive")
        model.to(device)
        for method in METHODS:
            there = images(model, method)
            if not torch.equal(here, there):
                other[method].append(f"{kind.name}: {int((here != there).sum())} of {here.numel()} levels differ")
    for method, names in other.items():
        yield Found.is_so(not names, f"equal, {len(kinds)} kinds", "; ".join(names), method)
