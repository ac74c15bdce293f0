"""How near the predicted peak of memory is: `uv run benchmarks/memory.py [--models gated,pixelcnnpp]`.

Takes the same step as `fit` (forward and backward passes, clipping, Adam, averaged weights) on images of random levels,
the second one measured: on a GPU by the allocator's maximum, on a CPU by the allocations and frees that the profiler
writes down. `kept` are the bytes that the graph of a pass keeps for its gradient, by saved_tensors_hooks. Prints rows
for RESULTS.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pixeltune.config import ImageSpec, TrialConfig
from pixeltune.machine import cpu_name
from pixeltune.models import DensityModel, build_model
from pixeltune.models.blocks import recompute_blocks
from pixeltune.training.memory import Phase, predict_peaks
from pixeltune.training.micro_batches import micro_batches
from pixeltune.training.optim import build_average, build_optimizer
from pixeltune.training.precision import autocast

COLOUR, DIGITS = ImageSpec(3, 32, 32, levels=256), ImageSpec(1, 28, 28, levels=2)
MODELS: dict[str, tuple[ImageSpec, int, dict[str, Any], str]] = {
    "gated": (COLOUR, 4, {"family": "gated", "layers": 12, "channels": 96}, "logistic_mixture"),
    "pixelcnn": (COLOUR, 4, {"family": "pixelcnn", "layers": 15, "channels": 64, "head_channels": 256}, "categorical"),
    "pixelcnnpp": (COLOUR, 4, {"family": "pixelcnnpp", "layers": 5, "channels": 48}, "logistic_mixture"),
    "reference": (COLOUR, 2, {"family": "pixelcnnpp"}, "logistic_mixture"),
    "pixelvae": (DIGITS, 16, {"family": "pixelvae", "latent_conditioning": "map"}, "bernoulli"),
}
"""Form, batch, model and likelihood of each; what is not said is as configurations have it."""
MEANS: dict[str, dict[str, Any]] = {
    "one pass": {},
    "two passes": {"passes": 2},
    "computed again": {"train.checkpoint_activations": True},
    "bfloat16": {"train.precision": "bfloat16"},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="gated,pixelcnn,pixelcnnpp,pixelvae")
    parser.add_argument("--means", default=",".join(MEANS))
    parser.add_argument("--factor", type=int, default=1, help="times the batch, for a GPU [1]")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(
        "| date | machine | model | batch | step | kept MB | predicted MB | measured MB | predicted / measured "
        "| prediction CPU s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in options.models.split(","):
        for means in options.means.split(","):
            print(_row(name, means, options.factor, device), flush=True)


def _row(name: str, means: str, factor: int, device: torch.device) -> str:
    form, batch, model_settings, likelihood = MODELS[name]
    changes = dict(MEANS[means])
    batch *= factor
    changes["train.micro_batch"] = batch // changes.pop("passes", 1)
    tree = {"data": {"name": "array"}, "model": model_settings, "likelihood": {"name": likelihood}}
    train = {"train.batch_size": batch, "train.images": 100 * batch, "train.eval_batch_size": batch, "optim.ema": 0.999}
    config = TrialConfig.build(tree).override(train | changes)
    model = build_model(config, form).to(device).train()
    if config.train.checkpoint_activations:
        recompute_blocks(model)
    precision = config.train.precision.replace("auto", "float32")
    build_optimizer(config.optim, model)  # imports what any training does
    start = time.process_time()
    peaks = predict_peaks(model, config, micro_batch=changes["train.micro_batch"], precision=precision)
    seconds = time.process_time() - start
    predicted = max(peaks[Phase.TRAIN], peaks[Phase.UPDATE])
    measured, kept = _measure(model, config, precision)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    cells = [
        f"{datetime.now(UTC):%Y-%m-%d}",
        machine,
        f"{name}, {model.num_parameters() / 1e6:.2f} M weights",
        str(batch),
        means,
        f"{kept / 1e6:.1f}",
        f"{predicted / 1e6:.1f}",
        f"{measured / 1e6:.1f}",
        f"{predicted / measured:.3f}",
        f"{seconds:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _measure(model: DensityModel, config: TrialConfig, precision: str) -> tuple[int, int]:
    """The peak of a step, and what the graph of one of its passes keeps, in bytes."""
    device = next(model.parameters()).device
    optimizer, average = build_optimizer(config.optim, model), build_average(model, config.optim.ema)
    x_BCHW = torch.randint(model.form.levels, (config.train.batch_size, *model.form.shape), dtype=torch.uint8)
    x_BCHW = x_BCHW.to(device)
    rows = list(micro_batches(len(x_BCHW), config.train.micro_batch))

    def loss(part: slice) -> Tensor:
        with autocast(precision, device):
            return model.loss(x_BCHW[part], None, 0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        for part in rows:
            (loss(part).sum() / len(x_BCHW)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(model)

    step()
    optimizer.zero_grad(set_to_none=True)
    held = [*model.parameters(), *model.buffers(), *average.parameters(), *average.buffers()]
    held += [value for state in optimizer.state.values() for value in state.values()]
    peak = _gpu_peak(step) if device.type == "cuda" else sum(tensor.nbytes for tensor in held) + _cpu_peak(step)
    return peak, _kept(model, lambda: loss(rows[0]))


def _gpu_peak(work: Callable[[], None]) -> int:
    torch.cuda.reset_peak_memory_stats()
    work()
    return int(torch.cuda.max_memory_allocated())


def _cpu_peak(work: Callable[[], None]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    results: Any = profiled.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def _kept(model: DensityModel, forward: Callable[[], Tensor]) -> int:
    """Weights apart; each storage once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


if __name__ == "__main__":
    main()
