"""Part B: how fast PixelCNN++ trains as published, what it takes, and what of the card that is."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from statistics import median

import torch
import train
from recipe_flops import PEAK_TFLOPS, RECIPES, count

from gpu_checks.report import Found, Report, forget_earlier, peak_gigabytes, seconds_of, tensor_float, wait_for
from pixeltune.config import ImageSpec, TrialConfig
from pixeltune.training.loop import fit

FILTERS = {160: "pixelcnnpp_cifar10", 192: "pixelcnnpp_cifar10_192"}
BATCHES = (64, 128)
CIFAR10 = ImageSpec(3, 32, 32, levels=256)
STEPS = 20
"""A report; one warms up, one is measured."""


@dataclass(frozen=True)
class Products:
    """How products are computed. precision: as `train.precision`. nominal: of PEAK_TFLOPS, or None."""

    name: str
    precision: str
    tensor_float: bool
    nominal: str | None


PRODUCTS = (
    Products("bfloat16", "bfloat16", True, "bfloat16"),
    Products("TF32", "float32", True, "float32"),
    Products("float32", "float32", False, None),
)


@dataclass(frozen=True)
class Case:
    """One way to train one network."""

    filters: int
    batch: int
    products: Products
    compiled: bool = False

    @property
    def name(self) -> str:
        """As the table shows it."""
        how = ", compiled" if self.compiled else ""
        return f"PixelCNN++ {self.filters} filters, batch {self.batch}, {self.products.name}{how}"

    def config(self, *, is_quick: bool) -> TrialConfig:
        """The recipe, on images that stand in for CIFAR-10, for two short reports."""
        steps, batch = (2, 4) if is_quick else (STEPS, self.batch)
        changes = {
            "data.name": "gpu_checks.images:noise",
            "data.num_valid": None,
            "train.batch_size": batch,
            "train.report_every": steps * batch,
            "train.images": 2 * steps * batch,
            "train.eval_batch_size": 8,
            "train.precision": self.products.precision,
            "train.compile": self.compiled,
        }
        if is_quick:
            changes |= {"model.stages": 1, "model.variant": "plain", "model.channels": 2, "model.layers": 1}
        return TrialConfig.from_toml(RECIPES / f"{FILTERS[self.filters]}.toml").override(changes)


def run(report: Report, options: argparse.Namespace) -> None:
    """Rates of the card, then every case; of the compiled ones, which take long, the fastest numbers first."""
    rates: dict[str, float] = {}
    for products in PRODUCTS:
        report.check("square matrix products", products.name, partial(_rate, products, rates, report))
    for batch in BATCHES if options.peer else ():
        for products in PRODUCTS[1:]:
            name = f"PixelCNN++ 2 × 64, batch {batch}, {products.name} in the port"
            report.check(
                "training step, the port's / ours", name, partial(_beside_port, options, report, batch, products)
            )
    for case in _cases(report):
        if case.compiled and report.device.type == "cpu":
            report.skip("training step", case.name, "a CPU takes minutes to compile a toy")
            continue
        seconds = 150 if case.compiled else 25
        report.check("training step", case.name, partial(_training_step, case, rates, report), seconds=seconds)


def _cases(report: Report) -> list[Case]:
    if report.is_quick:
        return [Case(160, 64, PRODUCTS[0]), Case(160, 64, PRODUCTS[2], compiled=True)]
    cases = []
    for filters in FILTERS:
        cases += [Case(filters, batch, products) for batch in BATCHES for products in PRODUCTS]
        cases += [Case(filters, 64, PRODUCTS[0], compiled=True)]
    return cases + [Case(160, 64, products, compiled=True) for products in PRODUCTS[1:]]


def _rate(products: Products, rates: dict[str, float], report: Report) -> Iterator[Found]:
    """The best of several sizes; `rates` keeps it, in FLOP/s."""
    dtype = torch.bfloat16 if products.precision == "bfloat16" else torch.float32
    best = 0.0
    with tensor_float(products.tensor_float):
        for size in (256,) if report.is_quick else (4096, 8192, 16384):
            a, b = torch.randn(2, size, size, device=report.device).to(dtype)
            repeats = 2 if report.is_quick else 10

            def multiply(a: torch.Tensor = a, b: torch.Tensor = b, repeats: int = repeats) -> None:
                for _ in range(repeats):
                    a @ b

            multiply()
            best = max(best, 2 * size**3 * repeats / min(seconds_of(multiply, report.device) for _ in range(3)))
    rates[products.name] = best
    nominal = "–" if products.nominal is None else f"H200: {PEAK_TFLOPS[products.nominal]:.0f} nominal"
    yield Found(f"{best / 1e12:.3g} TFLOP/s", nominal)


@cache
def _flops(filters: int, *, is_quick: bool) -> int:
    """Of forward and backward of one image."""
    return count(Case(filters, BATCHES[0], PRODUCTS[0]).config(is_quick=is_quick), CIFAR10)[1]


def _beside_port(options: argparse.Namespace, report: Report, batch: int, products: Products) -> Iterator[Found]:
    """Whole steps in turn, A B A B, as in benchmarks/train.py; ours takes the products that its probe finds fastest."""
    layers, channels, batch = (1, 4, 2) if report.is_quick else (2, 64, batch)
    words = argparse.Namespace(
        peer=options.peer, base=None, variants="as set", batch=batch, layers=layers, channels=channels
    )
    with tensor_float(products.tensor_float):
        port, ours = train.candidates_of(words, report.device)
        for step in (port.step, ours.step):
            for _ in range(1 if report.is_quick else 5):
                step()
        wait_for(report.device)
        rounds = range(2 if report.is_quick else 15)
        pairs = [[seconds_of(step, report.device) for step in (port.step, ours.step)] for _ in rounds]
    ratio = median(theirs / own for theirs, own in pairs)
    theirs, own = (median(seconds) for seconds in zip(*pairs, strict=True))
    yield Found(
        f"{ratio:.2f}: {theirs * 1e3:.1f} ms, {own * 1e3:.1f} ms in {ours.precision}, {ours.layout}",
        "≥ 5 on an H200",
        ratio >= 5 if report.device.type == "cuda" else None,
    )


def _training_step(case: Case, rates: dict[str, float], report: Report) -> Iterator[Found]:
    """Whole steps of `fit`: data, forward, loss, backward, Adam, EMA; evaluation apart."""
    config = case.config(is_quick=report.is_quick)
    flops = _flops(case.filters, is_quick=report.is_quick)
    forget_earlier(report.device)
    with tensor_float(case.products.tensor_float):
        training = fit(config, device=report.device)
        warm = next(training)
        wait_for(report.device)
        start = time.perf_counter()
        measured = next(training)
        wait_for(report.device)
        seconds = time.perf_counter() - start - (measured.eval_seconds - warm.eval_seconds)
    speed = (measured.images_seen - warm.images_seen) / seconds
    share = f", {flops * speed / rates[case.products.name]:.1%} of its products" if case.products.name in rates else ""
    yield Found(
        f"{speed:,.0f} images/s, {config.train.batch_size / speed * 1e3:.1f} ms a step, "
        f"{flops * speed / 1e12:.3g} TFLOP/s{share}; "
        f"first step {measured.compile_seconds:.1f} s; {peak_gigabytes(report.device)}",
        f"{flops / 1e9:.4g} GFLOP an image",
    )
