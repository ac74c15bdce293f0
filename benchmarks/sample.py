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
from datetime import UTC, datetime
from typing import Any

import torch

from pixeltune.config import ImageForm, TrialConfig
from pixeltune.models import DensityModel, build_model, eval_mode
from pixeltune.sampling import Drawing, ModelStepper, cached
from pixeltune.sampling.fixed_point import iterates
from pixeltune.search.facts import cpu_name

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
    model = _model(options.model).to(device)
    print(
        "| date | machine, threads | model | batch | full pass s | naive s (scaled) | cached s | naive / cached "
        "| cached s an image | caches MB | fixed point s | passes |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    with eval_mode(model), torch.inference_mode():
        for batch in map(int, options.batches.split(",")):
            print(_row(options, model, batch, device), flush=True)


def _row(options: argparse.Namespace, model: DensityModel, batch: int, device: torch.device) -> str:
    generator = torch.Generator().manual_seed(0)
    noise = torch.cat([model.noise(generator) for _ in range(batch)]).to(device)
    x_BCHW = model.scale(torch.randint(256, (batch, *model.form.shape), generator=generator).to(device))
    s = model.features(x_BCHW)
    drawing = Drawing(noise, s)
    model.parameters_given(x_BCHW, s)  # warms up
    full = min(_seconds(lambda: model.parameters_given(x_BCHW, s)) for _ in range(options.calls))
    naive, drawn = full * (int(model.order().max()) + 1), _seconds(lambda: cached(model, drawing))
    megabytes = ModelStepper(model, batch, s).nbytes / 1e6
    passes: list[int] = []
    iterated = "–"
    if options.fixed_point:
        iterated = f"{_seconds(lambda: passes.append(sum(1 for _ in iterates(model, drawing)))):.1f}"
    return (
        f"| {datetime.now(UTC):%Y-%m-%d} | {_machine(device)}, {options.threads} | {NAMES[options.model]} | {batch} | "
        f"{full:.2f} | {naive:.0f} | {drawn:.2f} | {naive / drawn:.0f} | {drawn / batch:.3f} | {megabytes:.0f} | "
        f"{iterated} | {passes[0] if passes else '–'} |"
    )


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _model(name: str) -> DensityModel:
    sections = {"data": {"name": "cifar10"}, "likelihood": {"name": "logistic_mixture"}}
    model = build_model(TrialConfig.build(sections | MODELS[name]), ImageForm(3, 32, 32, levels=256, num_classes=10))
    if model.is_initialised_by_data:
        with eval_mode(model):
            model.initialise(torch.randint(256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(1)))
    return model


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} × {cpu_name()}"


if __name__ == "__main__":
    main()
