"""A prediction of a training's memory, made before it starts: to train in several passes per step, or to refuse.

Two small passes are counted operation by operation (`memory_profile`), and the batch's follow from them. The weights,
their gradients, the optimiser's state, the averaged weights, and with several workers the buckets of the exchange are
added. Not counted: workspaces within an operation, such as cuDNN's; what an allocator rounds up or leaves unused; and
the savings of torch.compile, so a compiled training takes less.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor, nn

from pixeltune.config import OptimConfig, TrialConfig
from pixeltune.errors import MemoryShortError
from pixeltune.format import bytes_in, plural
from pixeltune.machine import total_memory
from pixeltune.models import DensityModel
from pixeltune.training.memory_profile import SMALL_BATCHES, LiveBytes, Profile
from pixeltune.training.optim import build_optimizer
from pixeltune.training.precision import autocast
from pixeltune.training.workers import Workers

HEADROOM = 0.9
"""The share of a GPU's memory to plan with: what the prediction does not count must fit in the rest."""

RESIDENT_SHARE = 0.25
"""A share of the GPU memory that a training may use: the training images stay there if they take no more than this
and do not make the passes smaller."""

_GROUPS = Path("/proc/self/cgroup")
_GROUP_LIMITS = {
    "": ("/sys/fs/cgroup", "memory.max"),
    "memory": ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
}
"""Control groups of version 2 and 1: by controller, their folder and the file that holds a group's limit."""


class Phase(StrEnum):
    """A phase in which a training may reach its peak."""

    INITIALISE = "the initialisation by data"
    TRAIN = "a training pass"
    UPDATE = "the optimiser's step"
    EVALUATE = "evaluation"


@dataclass(frozen=True)
class MemoryPlan:
    """The plan. micro_batch: images per pass on each worker. predicted_peak_bytes: of tensors on each worker's device.

    is_resident: whether these include the whole training set.
    """

    micro_batch: int
    predicted_peak_bytes: int
    is_resident: bool = False


def plan_memory(
    model: DensityModel,
    config: TrialConfig,
    *,
    precision: str,
    workers: Workers,
    limit: int | None,
    images: int = 0,
    at_most: int | None = None,
) -> MemoryPlan:
    """Return the largest passes that fit into `limit` bytes: the worker's part of the batch, or a half, a quarter, ….

    precision: `float32` or `bfloat16`. images: bytes of the training set if it may stay on the device, else 0.
    at_most: images per pass to begin with. `train.micro_batch` is kept if it is set. All workers get the same passes.
    MemoryShortError if the requested passes, or one image per pass, do not fit.
    """
    # Begin with the worker's whole part of the batch, or with a fixed number.
    part = config.train.batch_size // workers.world
    settled = config.train.micro_batch is not None or getattr(config.model, "batch_norm", False)
    size = min(part, config.train.micro_batch or part)
    if at_most is not None and not settled:
        size = min(size, at_most)

    def peak(count: int) -> int:
        peaks = predict_peaks(model, config, micro_batch=count, precision=precision, workers=workers.world)
        return max(peaks.values())

    # Halve it until it fits. On a GPU some memory is left for what the prediction does not count.
    planned = limit if limit is None or _device(model).type == "cpu" else int(HEADROOM * limit)
    while planned is not None and peak(size) > planned and size > 1 and not settled:
        size = (size + 1) // 2

    # Refuse on all workers if it does not fit on one of them; otherwise all take the smallest.
    fits = limit is None or peak(size) <= limit
    if workers.least(int(fits)) == 0:
        peaks = predict_peaks(model, config, micro_batch=size, precision=precision, workers=workers.world)
        raise _too_large(peaks, size, None if fits else limit, settled=settled)
    size = workers.least(size)

    # The training images stay on the device if the passes leave room for them.
    room = 0 if planned is None else min(int(RESIDENT_SHARE * planned), planned - peak(size))
    is_resident = 0 < images <= room
    return MemoryPlan(size, peak(size) + images * is_resident, is_resident)


def predict_peaks(
    model: DensityModel, config: TrialConfig, *, micro_batch: int, precision: str, workers: int = 1
) -> dict[Phase, int]:
    """Return the most bytes of tensors in each phase of training on one worker, weights included.

    The model is run on a few images and left unchanged. The result is cached for models of the same structure.
    """
    part = config.train.batch_size // workers
    gradients = _bytes(model.parameters())
    weights = gradients + _bytes(model.buffers())
    state, working = _optimiser_shares(config.optim, _device(model))
    held = weights + int(state * gradients) + (weights if config.optim.ema else 0)
    held += gradients if workers > 1 else 0

    training = _profile(model, config, "first", precision).peak(micro_batch)
    if micro_batch < part:
        training = max(training, gradients + _profile(model, config, "later", precision).peak(micro_batch))
    forward = _profile(model, config, "forward", "float32")
    phases = {
        Phase.TRAIN: held + training,
        Phase.UPDATE: held + gradients + int(working * gradients),
        Phase.EVALUATE: held + gradients + forward.peak(config.train.eval_batch_size),
    }
    if model.is_initialised_by_data:
        phases[Phase.INITIALISE] = weights + forward.peak(config.train.batch_size)
    return phases


def memory_limit(device: torch.device, *, gpu_share: float = 1.0) -> int | None:
    """Return the bytes of `device` that a training may take; None if unknown.

    GPU: its share of the whole, or the free memory if that is less. CPU: the machine's memory, or the limit that the
    control groups of this process set, as in containers and batch systems.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return min(int(gpu_share * total), free + torch.cuda.memory_reserved(device))
    machine = total_memory()
    return min([*([] if machine is None else [machine]), *_group_limits()], default=None)


# --- Profiles ---------------------------------------------------------------------------------------------------------

_profiles: dict[Hashable, Profile] = {}


def _profile(model: DensityModel, config: TrialConfig, kind: str, precision: str) -> Profile:
    """Return the profile of a pass: `first` of a step, `later` ones, which add to gradients, or `forward` alone."""
    weight = next(model.parameters())
    settings = config.model, config.likelihood, model.form, config.train.checkpoint_activations
    key = kind, precision, type(model.network), weight.dtype, weight.device.type, settings
    if key not in _profiles:
        with _left_as_it_was(model):
            run = _forward if kind == "forward" else _training_pass
            lines = []
            for images in SMALL_BATCHES:
                if kind == "later":
                    _training_pass(model, images, precision)
                lines.append(tuple(run(model, images, precision)))
                model.zero_grad(set_to_none=True)
        _profiles[key] = Profile(*lines)
    return _profiles[key]


def _training_pass(model: DensityModel, images: int, precision: str) -> list[int]:
    x_BCHW, label_B = _images(model, images)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    with LiveBytes([*model.parameters(), *model.buffers(), *gradients]) as alive:
        with autocast(precision, x_BCHW.device):
            nats_B = model.loss(x_BCHW, label_B, 0)
        (nats_B.sum() / images).backward()
    return alive.line


def _forward(model: DensityModel, images: int, precision: str) -> list[int]:  # noqa: ARG001
    """Return the live bytes of a forward pass in float32, as in evaluation."""
    x_BCHW, label_B = _images(model, images)
    with torch.no_grad(), LiveBytes([*model.parameters(), *model.buffers()]) as alive:
        model.log_prob(x_BCHW, label_B)
    return alive.line


def _images(model: DensityModel, images: int) -> tuple[Tensor, Tensor | None]:
    device = _device(model)
    x_BCHW = torch.zeros(images, *model.form.shape, dtype=torch.uint8, device=device)
    return x_BCHW, None if model.form.num_classes is None else torch.zeros(images, dtype=torch.int64, device=device)


@contextmanager
def _left_as_it_was(model: DensityModel) -> Iterator[None]:
    """Run in training mode on other random numbers; afterwards restore batch statistics and mode."""
    device, was_training = _device(model), model.training
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        model.train()
        yield
    model.train(was_training)
    for buffer, before in buffers:
        buffer.copy_(before)


def _optimiser_shares(config: OptimConfig, device: torch.device) -> tuple[float, float]:
    """Return the optimiser's state and its temporary memory in a step, in units of the weights that it trains."""
    layer = nn.utils.skip_init(nn.Linear, 64, 64, bias=False, device=device)
    optimiser = build_optimizer(config, layer)
    for _ in range(2):
        layer(torch.ones(1, 64, device=device)).sum().backward()
        state = [value for states in optimiser.state.values() for value in states.values()]
        with LiveBytes([*layer.parameters(), *state]) as alive:
            optimiser.step()
    size = layer.weight.nbytes
    held = _bytes(value for value in state if value.shape == layer.weight.shape)
    return held / size, max(alive.line, default=0) // size


# --- Limits -----------------------------------------------------------------------------------------------------------


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _group_limits() -> Iterator[int]:
    """Return the limits of this process's control group and its parents, as far as they are visible."""
    for line in _read(_GROUPS).splitlines():
        _, controllers, group = line.split(":", 2)
        for controller in controllers.split(","):
            root, name = _GROUP_LIMITS.get(controller, ("", ""))
            for folder in (Path(group), *Path(group).parents) if root else ():
                text = _read(Path(root) / folder.relative_to("/") / name)
                if text.isdigit():
                    yield int(text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _too_large(peaks: dict[Phase, int], size: int, limit: int | None, *, settled: bool) -> MemoryShortError:
    phase = max(peaks, key=peaks.__getitem__)
    cure = {
        Phase.TRAIN: "lower `train.micro_batch` or `train.batch_size`, or " if settled else "",
        Phase.INITIALISE: "lower `train.batch_size`, or ",
        Phase.EVALUATE: "lower `train.eval_batch_size`, or ",
    }.get(phase, "")
    if phase is Phase.TRAIN:
        cure += "set `train.checkpoint_activations`, or "
    there = "another worker has less" if limit is None else f"there are {bytes_in('GB', limit, '.3g')}"
    images = f" with {size} {plural(size, 'image')} a pass" if phase is Phase.TRAIN else ""
    needed = bytes_in("GB", peaks[phase], ".3g")
    return MemoryShortError(
        f"a training must fit into memory, but {phase} needs {needed}{images}, and {there}; {cure}take a smaller model",
        needed=peaks[phase],
    )
