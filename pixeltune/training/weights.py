"""Weights as one safetensors file that says what it is: nothing pickled, and enough inside to build the model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass

from safetensors.torch import load, save
from torch import Tensor

from pixeltune import digest, files
from pixeltune.config import KINDS, ImageSpec, TrialConfig, is_own, stored
from pixeltune.errors import CheckpointError, ConfigError, PixeltuneError
from pixeltune.models import DensityModel, build_model
from pixeltune.own_code import place_of

_FORMAT = "pixeltune/1"


class CodeWarning(UserWarning):
    """Warning about weights of a class of the user's own whose source files have changed since."""


@dataclass(frozen=True)
class Trained:
    """Content of a weights file. data_checksum: of the images it was trained on; None where the file does not say."""

    model: DensityModel
    config: TrialConfig
    data_checksum: str | None


def save_weights(
    model: DensityModel, config: TrialConfig, location: files.Location, *, data_checksum: str | None = None
) -> None:
    """Write weights, buffers, configuration and image form as one safetensors file.

    Args:
        model: Its weights and buffers are written, on any device.
        config: What the model was built from and trained with.
        location: Path or URI; an older file there is replaced in one step.
        data_checksum: `DataSet.identity.checksum` of the images; with it `pixeltune evaluate` refuses other images.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    about = {
        "format": _FORMAT,
        "config": config.model_dump_json(),
        "form": json.dumps(asdict(model.form)),
        digest.KEY: digest.PLACEHOLDER,
    }
    if data_checksum is not None:
        about["data_checksum"] = data_checksum
    if (code := config.own_code()) is not None:
        about["own_code"] = code
    files.write_whole(location, digest.seal(save(tensors, metadata=about)))


def with_config(content: bytes, change: Callable[[TrialConfig], TrialConfig]) -> bytes:
    """Return a weights file with another configuration inside and the same tensors; the same bytes where it is equal.

    Args:
        content: A file of `save_weights`.
        change: Must keep all that the model is built from.

    Raises:
        CheckpointError: The file is cut short, or is not one of `save_weights`.
    """
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
        about = header["__metadata__"]
        with stored():
            before = TrialConfig.build(json.loads(about["config"]))
        end = max(tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"weights must be a whole safetensors file of a model, but got none ({error})") from None
    if 8 + length + end != len(content):
        raise CheckpointError(f"weights must have {8 + length + end:,} bytes, but the file has {len(content):,}")
    after = change(before)
    if after == before:
        return content
    about["config"] = after.model_dump_json()
    about[digest.KEY] = digest.PLACEHOLDER
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    return digest.seal(len(text).to_bytes(8, "little") + text + content[8 + length :])


def load_model(location: files.Location) -> DensityModel:
    """Return the model that `save_weights` wrote, in eval mode.

    Nothing in the file is run. A family or a likelihood of your own is imported by the path that the file names, from
    where Python finds it here; a CodeWarning says where its code has changed since the training.

    Args:
        location: Path or URI of the file.

    Returns:
        The model, on the CPU.

    Raises:
        CheckpointError: The file is missing, damaged, cut short or foreign.
        ConfigError: It names a class that cannot be imported here.
    """
    return load_with_config(location).model


def load_with_config(location: files.Location) -> Trained:
    """Return the model, in eval mode, and what it was trained with; CheckpointError as `load_model`."""
    tensors, about = _opened(read_weights(location), location)
    if about.get("format") != _FORMAT:
        raise CheckpointError(f"weights must have format {_FORMAT}, but {location} has {about.get('format')!r}")
    try:
        config = _config_in(about["config"], location)
        model = build_model(config, ImageSpec(**json.loads(about["form"])))
        model.load_state_dict(tensors)
    except PixeltuneError:
        raise
    except Exception as error:  # in a file without a digest any of this may be damaged
        if place_of(error) or (digest.KEY in about and isinstance(error, MemoryError)):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"weights must fit their configuration, but those at {location} do not: {reason}"
        ) from None
    _report_other_code(config, about.get("own_code"), location)
    return Trained(model.eval(), config, about.get("data_checksum"))


def _config_in(text: str, location: files.Location) -> TrialConfig:
    """Return a file's configuration; the error names the file where code of the user's own is missing here."""
    try:
        return TrialConfig.build(json.loads(text))
    except ConfigError as error:
        raise ConfigError(f"{error} (it is named in the weights at {location})") from error


def _report_other_code(config: TrialConfig, trained_with: str | None, location: files.Location) -> None:
    here = config.own_code()
    if trained_with != here:
        names = " and ".join(str(value) for key, value in config.own_keys().items() if is_own(value) and _chooses(key))
        warnings.warn(
            f"the weights at {location} were trained with other code of {names} (fingerprint {trained_with}, here "
            f"{here}); its numbers may differ",
            CodeWarning,
            stacklevel=4,
        )


def _chooses(key: str) -> bool:
    """Return whether a key chooses the class of its section."""
    return any(key == kind.key for kind in KINDS.values())


def read_weights(location: files.Location) -> bytes:
    """Read the bytes of a weights file, whose digest matches where it has one; CheckpointError otherwise."""
    try:
        content = files.read_whole(location)
        digest.verify(content)
    except FileNotFoundError:
        raise CheckpointError(f"weights must exist, but there are none at {location}") from None
    except digest.DigestError as error:
        raise _damaged(location, error) from None
    except (OSError, ValueError) as error:  # ValueError: a URI that Arrow does not know.
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise CheckpointError(f"weights must be readable, but {location} is not ({reason})") from error
    return content


def _opened(content: bytes, location: files.Location) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and what the header says of them."""
    is_sealed = digest.verify(content)
    try:
        tensors, about = load(content), _metadata(content)
    except Exception as error:  # on damaged bytes safetensors, torch and json raise almost anything
        if is_sealed and isinstance(error, MemoryError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"weights must be a whole safetensors file, but {location} is not: {reason}") from None
    if digest.KEY in about and not is_sealed:
        raise _damaged(location, digest.DigestError())
    return tensors, about


def _damaged(location: files.Location, error: digest.DigestError) -> CheckpointError:
    return CheckpointError(
        f"weights must be as pixeltune wrote them, but {location} is damaged: {error}; put a copy of it back, or train "
        "again"
    )


def _metadata(content: bytes) -> dict[str, str]:
    """Return the header of a safetensors file: 8 bytes of length, then JSON with `__metadata__`."""
    length = int.from_bytes(content[:8], "little")
    about: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return about
