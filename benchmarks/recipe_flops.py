"""What the recipes of docs/recipes cost: `uv run benchmarks/recipe_flops.py [FILE.toml …]` prints Markdown.

FLOPs are counted, two a multiply-add, over the operators of one training step of one image: forward and backward, of
the convolutions and matrix products, as the models have them. No number is computed and no memory is taken: the tensors
are fakes with shapes alone. Not counted: elementwise work, the optimiser, the averaging, evaluation.

GPU-hours are the longer of two estimates, each of which rests on an assumption rather than a measurement: these FLOPs
at a share of the peak, and the operators of each step at the time that launching one takes, which is what small
networks wait for. The second table turns published training times into a share of the peak, to show what is usual.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from pixeltune.config import ImageSpec, TrialConfig
from pixeltune.data import outline_of
from pixeltune.models import DensityModel, build_model
from pixeltune.models.dropout import Dropout

RECIPES = Path(__file__).resolve().parents[1] / "docs" / "recipes"

PEAK_TFLOPS = {"float32": 494.7, "bfloat16": 989.4}
"""Of an H200, dense. Float32 convolutions train in TF32, which is torch's default for them."""
ASSUMED_SHARE = 0.2
ASSUMED_LAUNCH_SECONDS = 10e-6
"""To dispatch and launch one operator from Python."""


@dataclass(frozen=True)
class PublishedTime:
    """A training time as published. images: seen in that time; None for those of the recipe.

    peak: TFLOP/s of one GPU in float32, lowest and highest clock; None where the GPU is not named.
    """

    recipe: str
    hardware: str
    gpus: int
    hours: float
    peak: tuple[float, float] | None = None
    images: int | None = None


MAXWELL_TITAN_X = (6.1, 6.7)

PUBLISHED_TIMES = (
    PublishedTime("pixelcnnpp_cifar10", "8 Maxwell TITAN X, 5 days", 8, 120, MAXWELL_TITAN_X),
    PublishedTime("pixelcnnpp_cifar10_192", "8 Maxwell TITAN X, 5 days", 8, 120, MAXWELL_TITAN_X),
    PublishedTime("pixelcnnpp_cifar10_flax", "8 V100, 38 h", 8, 38, (15.7, 15.7)),
    PublishedTime("pixelcnnpp_cifar10_pytorch", "1 TITAN X, 50 min an epoch", 1, 5 / 6, MAXWELL_TITAN_X, images=49_984),
    PublishedTime("gated_imagenet32", "32 GPUs, 60 h", 32, 60),
    PublishedTime("gated_imagenet64", "32 GPUs, 60 h", 32, 60),
)


@dataclass(frozen=True)
class Cost:
    """Of one recipe. flops: of forward and backward, per image. operators: of forward and backward, per step."""

    name: str
    parameters: int
    flops: int
    operators: int
    images: int
    steps: int

    def gpu_hours(self, precision: str) -> float:
        """On one H200: at the assumed share of its peak, or as its operators can be launched."""
        computing = self.flops * self.images / (ASSUMED_SHARE * PEAK_TFLOPS[precision] * 1e12)
        return max(computing, self.operators * self.steps * ASSUMED_LAUNCH_SECONDS) / 3600

    @property
    def row(self) -> str:
        """Of the table of recipes."""
        return (
            f"| [{self.name}](recipes/{self.name}.toml) | {self.parameters:,} | {self.flops / 1e9:.3g} | "
            f"{self.images:,} | {self.steps:,} | {self.flops * self.images:.1e} | "
            f"{_hours(self.gpu_hours('float32'))} | {_hours(self.gpu_hours('bfloat16'))} |"
        )


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(RECIPES.glob("*.toml")), metavar="FILE.toml")
    costs = {path.stem: cost_of(path) for path in parser.parse_args().files}
    print("| recipe | parameters | GFLOP an image | images | steps | FLOP | H200-hours | in bfloat16 |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for cost in costs.values():
        print(cost.row)
    print()
    print("| recipe | published time | images in it | TFLOP/s a GPU | of its float32 peak |")
    print("|---|---|--:|--:|--:|")
    for time in PUBLISHED_TIMES:
        if time.recipe in costs:
            print(published_row(time, costs[time.recipe]))


def cost_of(path: Path) -> Cost:
    """Of the recipe in this file."""
    config = TrialConfig.from_toml(path)
    form = outline_of(config.data).form
    parameters, flops, operators = count(config, form)
    return Cost(
        path.stem,
        parameters=parameters,
        flops=flops,
        operators=operators,
        images=config.train.images,
        steps=config.train.images // config.train.batch_size,
    )


def count(config: TrialConfig, form: ImageSpec) -> tuple[int, int, int]:
    """Parameters, and FLOPs and operators of forward and backward of one image."""
    # Not the meta device: the likelihood leaves autocast, which has no meta device to leave.
    with FakeTensorMode():
        model = _as_on_a_gpu(build_model(config, form).train())
        x_BCHW = torch.zeros(1, *form.shape, dtype=torch.uint8)
        label_B = torch.zeros(1, dtype=torch.int64)
        with FlopCounterMode(display=False) as flops, _OperatorCounter() as operators:
            model.loss(x_BCHW, label_B, step=0).mean().backward()
    return model.num_parameters(), flops.get_total_flops(), operators.count


def _as_on_a_gpu(model: DensityModel) -> DensityModel:
    """There one kernel draws the masks of dropout and multiplies by them."""
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, nn.Dropout(child.rate))
    return model


def published_row(time: PublishedTime, cost: Cost) -> str:
    """What a published time makes of the recipe's FLOPs."""
    images = time.images or cost.images
    tflops = cost.flops * images / (time.gpus * time.hours * 3600) / 1e12
    share = "GPU not named" if time.peak is None else _percent(*(tflops / peak for peak in reversed(time.peak)))
    return f"| {time.recipe} | {time.hardware} | {images:,} | {tflops:.2f} | {share} |"


class _OperatorCounter(TorchDispatchMode):
    """Counts the operators that are dispatched below it; views, which launch nothing, apart."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and call."""
        self.count += not func.is_view
        return func(*args, **kwargs or {})


def _hours(hours: float) -> str:
    return f"{hours:.0f}" if hours >= 10 else f"{hours:.2g}"


def _percent(low: float, high: float) -> str:
    return f"{low:.0%}" if low == high else f"{low:.0%} to {high:.0%}"


if __name__ == "__main__":
    main()
