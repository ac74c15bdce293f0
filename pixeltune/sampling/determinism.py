"""What a network's numbers depend on, bit for bit, and how it is held fixed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import torch

from pixeltune.config.section import Section
from pixeltune.models import DensityModel, eval_mode
from pixeltune.models.exact import exact_float32


class NumericEnvironment(Section):
    """Versions, device, dtype and number of CPU threads, which must agree to compute the same numbers.

    The shape of a batch counts too, and is in the header of a file. Names do not show every difference, such as a
    library's choice of kernels by the make of a CPU: the checksum of the decoded images detects the rest.
    """

    pixeltune: str
    torch: str
    constriction: str
    device: str
    dtype: str
    threads: int

    @classmethod
    def of(cls, model: DensityModel) -> Self:
        """Describe the model where it is, in this process as it is set."""
        weight = next(model.parameters())
        return cls(
            pixeltune=importlib.metadata.version("pixeltune"),
            torch=str(torch.__version__),  # with its build, such as +cpu
            constriction=importlib.metadata.version("constriction"),
            device=_device_name(weight.device),
            dtype=str(weight.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
        )

    def differences(self, other: NumericEnvironment) -> list[str]:
        """Return `name was …, here …` of all that differs; other is how it is here."""
        here = other.model_dump()
        return [f"{name} was {value}, here {here[name]}" for name, value in self if value != here[name]]


@contextmanager
def fixed_numbers(model: DensityModel, threads: int | None = None) -> Iterator[None]:
    """Set eval mode, exact float32, deterministic kernels and so many CPU threads, or as many as are set."""
    cudnn = torch.backends.cudnn
    before = (torch.get_num_threads(), cudnn.benchmark, cudnn.deterministic)
    strictness = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # read once, before the first product; cuBLAS asks for it
    try:
        torch.set_num_threads(threads or before[0])
        cudnn.benchmark, cudnn.deterministic = False, True
        torch.use_deterministic_algorithms(True, warn_only=True)
        with eval_mode(model), torch.inference_mode(), exact_float32():
            yield
    finally:
        torch.set_num_threads(before[0])
        cudnn.benchmark, cudnn.deterministic = before[1:]
        torch.use_deterministic_algorithms(strictness[0], warn_only=strictness[1])


def model_hash(model: DensityModel) -> str:
    """Return 16 hex digits of configuration, form, weights and buffers; the same in float32 and float64."""
    digest = hashlib.sha256(f"{model.config.key()} {model.form}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().double() if tensor.is_floating_point() else tensor.detach().cpu()
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + values.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({torch.backends.cpu.get_cpu_capability()})" if device.type == "cpu" else device.type
