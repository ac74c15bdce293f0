"""How fast networks train: `uv run benchmarks/train.py [--peer PATH] [--base PATH] [--variants as_set,float32,…]`.

Times whole optimiser steps (forward, loss, backward, Adam, EMA) of several variants of one network in one process, in
turn: A B C A B C …. A ratio is taken within each round, so that what else the machine does meets both of its sides;
`faster` is its median and `at least` its smallest value over the rounds. Prints rows for RESULTS.md.

The network is PixelCNN++ with `--layers` blocks a stage, 32×32×3 images of 256 levels, dropout 0.5, weight norm, a
mixture of 10 logistics, Adam and an average of the weights in float32. The images are noise; time does not depend on
them. `--peer` is a folder with model.py, layers.py and utils.py of github.com/pclucas14/pixel-cnn-pp (7cb4436),
which is trained with its own loss and its own dropout, of whole feature maps. On a CPU, PyTorch of today needs:

    sed -i 's/print e/print(e)/; s/\\(torch.zeros(xs + \\[nr_mix\\])\\).cuda()/\\1.to(l.device)/' utils.py

`--base` is another checkout of pixeltune, run as it stands.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sample import machine
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from pixeltune.config import DataConfig
from pixeltune.data.dataset import ImageSet
from pixeltune.data.raw import RawData

EMA, LR, MIXTURES = 0.9995, 1e-4, 10
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}

VARIANTS: dict[str, dict[str, Any]] = {
    "as set": {},
    "float32": {"train.precision": "float32", "train.layout": "channels_first"},
    "float32 channels_last": {"train.precision": "float32", "train.layout": "channels_last"},
    "bfloat16": {"train.precision": "bfloat16", "train.layout": "channels_first"},
    "bfloat16 channels_last": {"train.precision": "bfloat16", "train.layout": "channels_last"},
    "compiled": {"train.compile": True},
}
"""By name: settings on top of the network's."""


def with_dropout_of_pytorch(training: Any) -> None:
    """In place of masks of bits."""
    for module in training.model.modules():
        if hasattr(module, "dropout"):
            module.dropout = nn.Dropout(0.5)


def with_foreach(training: Any) -> None:
    """Adam and the gradient's norm as before the one kernel, which also cannot skip a step."""
    training.optimizer.param_groups[0].update(fused=None, foreach=True)
    training.optimizer.register_step_pre_hook(lambda optimizer, _args, _kwargs: setattr(optimizer, "found_inf", None))


def with_plain_elu(training: Any) -> None:
    """concat_elu as it is written in evaluation."""
    for module in training.model.modules():
        if hasattr(module, "nonlinearity"):
            module.nonlinearity = lambda x: nn.functional.elu(torch.cat([x, -x], dim=1))


WITHOUT: dict[str, Callable[[Any], None]] = {
    "without dropout of bits": with_dropout_of_pytorch,
    "without fused Adam": with_foreach,
    "without the elu of one exponential": with_plain_elu,
}
"""By name: what is taken back of a variant that is otherwise as set."""


@dataclass
class Candidate:
    """One way to train. step: a whole optimiser step. precision: of its products. layout: of its features."""

    name: str
    step: Callable[[], object]
    precision: str
    layout: str
    first_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    """Measure and print."""
    options = _options()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    candidates = list(candidates_of(options, device))
    if options.profile:
        for candidate in candidates:
            _print_profile(candidate, device)
        return
    now = CLOCKS[options.clock]
    operations = _operations(candidates[0])
    for candidate in candidates:
        candidate.first_seconds = _seconds(candidate.step, device, now)
        for _ in range(options.warm):
            candidate.step()
    rates = {"float32": 0.0, "bfloat16": 0.0}
    for _ in range(options.rounds):
        for candidate in candidates:
            candidate.seconds.append(_seconds(candidate.step, device, now))
        for precision, rate in rates.items():
            rates[precision] = max(rate, _matmul_rate(getattr(torch, precision), device, now))
    _print_table(options, candidates, operations, rates, device)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder of the port")
    parser.add_argument("--base", type=Path, help="folder of another checkout of pixeltune")
    parser.add_argument("--variants", default="as set", help=f"of {', '.join(VARIANTS | WITHOUT)} [as set]")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--layers", type=int, default=2, help="blocks a stage [2]")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warm", type=int, default=3, help="steps before the first round [3]")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="`processor` counts what this process computes alone; with one thread on a shared machine [wall]",
    )
    parser.add_argument("--profile", action="store_true", help="a table of operators in place of times")
    return parser.parse_args()


# --- What is trained --------------------------------------------------------------------------------------------------


def candidates_of(options: argparse.Namespace, device: torch.device) -> Iterator[Candidate]:
    """The peer, the other checkout, and the variants, in this order."""
    if options.peer is not None:
        yield _peer(options, device)
    if options.base is not None:
        with _imported_from(options.base, "pixeltune", Path(__file__).stem):
            yield _ours(options, device, "base", {})
    for name in filter(None, options.variants.split(",")):
        yield _ours(options, device, name, VARIANTS.get(name, {}))


def _ours(options: argparse.Namespace, device: torch.device, name: str, changes: dict[str, Any]) -> Candidate:
    config = importlib.import_module("pixeltune.config").TrialConfig.build(
        {
            "data": {"name": f"{Path(__file__).stem}:noise"},
            "model": {"family": "pixelcnnpp", "layers": options.layers, "channels": options.channels, "dropout": 0.5},
            "likelihood": {"name": "logistic_mixture", "mixtures": MIXTURES},
            "optim": {"lr": LR, "ema": EMA},
            "train": {"images": 10_000 * options.batch, "batch_size": options.batch},
        }
    )
    loop = importlib.import_module("pixeltune.training.loop")
    training = loop.fit(config.override(changes), device=device)
    numerics = getattr(training, "numerics", training)  # older checkouts choose no layout and keep no tally
    WITHOUT.get(name, lambda _training: None)(training)
    step = training._train_step
    if hasattr(loop, "Tally"):
        step = partial(step, loop.Tally(device))
    return Candidate(name, step, numerics.precision, getattr(numerics, "layout", "channels_first"))


def noise(config: DataConfig) -> RawData:  # noqa: ARG001
    """Images that stand in for CIFAR-10, which need not be there."""
    generator = np.random.default_rng(0)

    def images(count: int) -> ImageSet:
        return ImageSet(generator.integers(256, size=(count, 3, 32, 32), dtype=np.uint8))

    return RawData.of({"train": images(1024), "valid": images(8), "test": images(8)})


def _peer(options: argparse.Namespace, device: torch.device) -> Candidate:
    with _imported_from(options.peer, "model", "layers", "utils"):
        model_of, loss_of = importlib.import_module("model").PixelCNN, importlib.import_module("utils")
    torch.manual_seed(0)
    network: nn.Module = model_of(nr_resnet=options.layers, nr_filters=options.channels, nr_logistic_mix=MIXTURES)
    network.to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    weights = list(network.parameters())
    averages = [weight.detach().clone() for weight in weights]  # AveragedModel cannot copy its kind of weight norm
    images = torch.randint(256, (1024, 3, 32, 32), generator=torch.Generator().manual_seed(0)) / 127.5 - 1

    def step() -> None:
        x_BCHW = images[torch.randint(len(images), (options.batch,))].to(device)
        loss = loss_of.discretized_mix_logistic_loss(x_BCHW, network(x_BCHW))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, 1 - EMA)

    return Candidate("the port", step, "float32", "channels_first")


@contextmanager
def _imported_from(folder: Path, *packages: str) -> Iterator[None]:
    """Within, imports of these packages find those in `folder`; afterwards the ones from before."""

    def take_out() -> dict[str, Any]:
        names = [name for name in sys.modules if name.partition(".")[0] in packages]
        return {name: sys.modules.pop(name) for name in names}

    before = take_out()
    sys.path.insert(0, str(folder.absolute()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.absolute()))
        take_out()
        sys.modules.update(before)


# --- What is measured -------------------------------------------------------------------------------------------------


def _seconds(run: Callable[[], object], device: torch.device, now: Callable[[], float]) -> float:
    gc.collect()
    start = now()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return now() - start


def _operations(candidate: Candidate) -> int:
    """Floating-point operations of the products of one step."""
    with FlopCounterMode(display=False) as counter:
        candidate.step()
    return counter.get_total_flops()


def _matmul_rate(dtype: torch.dtype, device: torch.device, now: Callable[[], float], size: int = 2048) -> float:
    """Operations a second of a square matrix product."""
    a, b = torch.randn(2, size, size, device=device).to(dtype).unbind()
    return max(2 * size**3 / _seconds(lambda: a @ b, device, now) for _ in range(3))


def _print_table(
    options: argparse.Namespace,
    candidates: list[Candidate],
    operations: int,
    rates: dict[str, float],
    device: torch.device,
) -> None:
    first, where = candidates[0], f"{machine(device)}, {options.threads}"
    print(
        f"{options.layers} × {options.channels} × {MIXTURES}, batch {options.batch}: {operations / 1e9:.0f} GFLOP a "
        f"step; products of 2048 × 2048 run at {rates['float32'] / 1e9:.0f} GFLOP/s in float32 and at "
        f"{rates['bfloat16'] / 1e9:.0f} in bfloat16; {options.clock} seconds\n"
    )
    print("| date | machine, threads | variant | in | first step s | step s | faster | at least | of its rate |")
    print("|---|---|---|---|---|---|---|---|---|")
    for candidate in candidates:
        ratios = [a / b for a, b in zip(first.seconds, candidate.seconds, strict=True)]
        seconds = statistics.median(candidate.seconds)
        print(
            f"| {datetime.now(UTC):%Y-%m-%d} | {where} | {candidate.name} | "
            f"{candidate.precision}, {candidate.layout} | {candidate.first_seconds:.1f} | {seconds:.3f} | "
            f"{statistics.median(ratios):.2f} | {min(ratios):.2f} | "
            f"{operations / seconds / rates[candidate.precision]:.0%} |"
        )


def _print_profile(candidate: Candidate, device: torch.device, steps: int = 3) -> None:
    for _ in range(2):
        candidate.step()
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=kinds, acc_events=True) as seen:
        for _ in range(steps):
            candidate.step()
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(f"{candidate.name}, {candidate.precision}, {steps} steps")
    print(seen.key_averages().table(sort_by=order, row_limit=30, max_name_column_width=60))


if __name__ == "__main__":
    main()
