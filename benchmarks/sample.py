"""How fast images are drawn: `uv run benchmarks/sample.py [--model reference] [--batches 1,16,64]`.

Draws the same images with the methods of `pixeltune.sampling`, same model, machine, dtype and process, and prints rows
for RESULTS.md. Naive sampling is timed on `--calls` full passes of the whole image and scaled to all of its calls;
cached and fixed-point sampling are timed whole, cached with the building of its programs. Weights are those that a
model starts with, initialised by data where it is; time does not depend on them, but for the number of iterations.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from pixeltune.config import ImageSpec, TrialConfig
from pixeltune.machine import cpu_name
from pixeltune.models import DensityModel, build_model, eval_mode
from pixeltune.sampling import ModelStepper, SampleRequest, cached
from pixeltune.sampling.fixed_point import iterates

MODELS: dict[str, dict[str, Any]] = {
    "reference": {"model": {"family": "pixelcnnpp"}},
    "gated": {"model": {"family": "gated", "layers": 12, "channels": 96, "colour_order": "likelihood"}},
    "gated-masks": {"model": {"family": "gated", "layers": 12, "channels": 96}},
    "pixelcnn": {"model": {"family": "pixelcnn", "channels": 64, "layers": 8, "head_channels": 256}},
}
"""Each for 32×32×3 images of 256 levels, with a mixture of 10 logistics: joint, but where masks order the colours."""
NAMES = {
    "reference": "PixelCNN++, 160 filters",
    "gated": "gated, 12 layers × 96, joint",
    "gated-masks": "gated, 12 layers × 96, colour masks",
    "pixelcnn": "residual PixelCNN, 8 blocks, h = 64",
}


@dataclass(frozen=True)
class Measured:
    """Seconds of one full pass of a batch, of all passes that naive sampling takes, and of cached sampling, whole."""

    full: float
    naive: float
    cached: float
    cache_bytes: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="reference")
    parser.add_argument("--batches", default="16", help="batch sizes [16]")
    parser.add_argument("--calls", type=int, default=3, help="naive calls that are timed [3]")
    parser.add_argument("--fixed-point", action="store_true", help="time it as well; it takes long")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model_of(options.model).to(device)
    print(
        "| date | machine, threads | model | batch | full pass s | naive s (scaled) | cached s | naive / cached "
        "| cached s an image | caches MB | fixed point s | passes |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    with eval_mode(model), torch.inference_mode():
        for batch in map(int, options.batches.split(",")):
            print(_row(options, model, batch, device), flush=True)


def drawing_of(model: DensityModel, batch: int) -> SampleRequest:
    """A batch to draw, on the model's device."""
    generator, weight = torch.Generator().manual_seed(0), next(model.parameters())
    noise = torch.cat([model.noise(generator) for _ in range(batch)]).to(weight.device)
    return SampleRequest(noise, model.features(weight.new_zeros(batch, *model.form.shape)))


def measure(model: DensityModel, drawing: SampleRequest, calls: int) -> Measured:
    """Of a model in eval mode, in inference mode. calls: full passes that are timed, after one that warms up."""
    levels = torch.randint(model.form.levels, (len(drawing), *model.form.shape))
    x_BCHW = model.scale(levels.to(drawing.noise_BNhw.device))
    model.parameters_given(x_BCHW, drawing.s)
    full = min(_seconds(lambda: model.parameters_given(x_BCHW, drawing.s)) for _ in range(calls))
    drawn = _seconds(lambda: cached(model, drawing))
    cache_bytes = ModelStepper(model, len(drawing), drawing.s).nbytes
    return Measured(full, full * (int(model.order().max()) + 1), drawn, cache_bytes)


def _row(options: argparse.Namespace, model: DensityModel, batch: int, device: torch.device) -> str:
    drawing = drawing_of(model, batch)
    found = measure(model, drawing, options.calls)
    passes: list[int] = []
    iterated = "–"
    if options.fixed_point:
        iterated = f"{_seconds(lambda: passes.append(sum(1 for _ in iterates(model, drawing)))):.1f}"
    return (
        f"| {datetime.now(UTC):%Y-%m-%d} | {machine(device)}, {options.threads} | {NAMES[options.model]} | {batch} | "
        f"{found.full:.2f} | {found.naive:.0f} | {found.cached:.2f} | {found.naive / found.cached:.0f} | "
        f"{found.cached / batch:.3f} | {found.cache_bytes / 1e6:.0f} | "
        f"{iterated} | {passes[0] if passes else '–'} |"
    )


def _seconds(run: Callable[[], object]) -> float:
    """On a CPU those of its processors, all threads added, which waiting for others does not lengthen."""
    now = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = now()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return now() - start


def model_of(name: str, size: int = 32, **settings: Any) -> DensityModel:
    """One of MODELS on the CPU, for images of size×size; `settings` of its network on top."""
    sections = {"data": {"name": "cifar10"}, "likelihood": {"name": "logistic_mixture"}}
    config = TrialConfig.build(sections | {"model": MODELS[name]["model"] | settings})
    model = build_model(config, ImageSpec(3, size, size, levels=256, num_classes=10))
    if model.is_initialised_by_data:
        with eval_mode(model):
            model.initialise(torch.randint(256, (4, 3, size, size), generator=torch.Generator().manual_seed(1)))
    return model


def machine(device: torch.device) -> str:
    """What measured: the GPU, or the processors."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} × {cpu_name()}"


if __name__ == "__main__":
    main()
