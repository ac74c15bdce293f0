"""Images and labels that are not the model's are refused wherever they enter, and what is taken costs no waiting."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pixeltune.config import ImageSpec
from pixeltune.errors import ConfigError, DataError
from pixeltune.models import NO_LABEL, DensityModel, PixelVAE
from pixeltune.models.inputs import require_levels
from tests.support.tiny_models import random_levels, tiny_model

K = 17
WAYS = ["log_prob", "loss", "importance_bound"]


@pytest.fixture(scope="module", params=["gated", "pixelvae"])
def model(request: pytest.FixtureRequest) -> DensityModel:
    return tiny_model(request.param, shape=(1, 4, 4), levels=K, conditioning="bias", split=1)


def given(model: DensityModel, way: str, *inputs: Any) -> torch.Tensor:
    if way == "importance_bound":
        if not isinstance(model, PixelVAE):
            pytest.skip("an exact model has no importance-weighted bound")
        return model.importance_bound(*inputs, samples=2)
    result: torch.Tensor = getattr(model, way)(*inputs)
    return result


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x / (K - 1), r"but got float32 .*; values in \[0, 1\], .* are levels after \(16 \* x\)"),
        (lambda x: x.double(), "but got float64"),
        (lambda x: x.to(torch.bfloat16), "but got bfloat16"),
        (lambda x: x.to(torch.complex64), "but got complex64"),
        (lambda x: x > 3, "but got bool"),
        (lambda x: x - 1, "levels 0 to 16, but got -1 to"),
        (lambda x: x + 300, "levels 0 to 16, but got 30"),
        (lambda x: x.clamp(max=16) + K - 16, "to 17"),
        (lambda x: x[0], r"of shape \(B, 1, 4, 4\), but got shape \(1, 4, 4\)"),
        (lambda x: x.movedim(1, 3), r"but got shape \(3, 4, 4, 1\)"),
        (lambda x: x.expand(-1, 3, -1, -1), r"but got shape \(3, 3, 4, 4\)"),
        (lambda x: x.numpy(), "but got ndarray; .*torch.from_numpy"),
    ],
)
def test_images_that_are_not_levels_are_refused(model: DensityModel, way: str, change: Any, says: str) -> None:
    x = random_levels(model, 3)
    x[0, 0, 0, 0], x[0, 0, 0, 1] = 0, K - 1
    with pytest.raises(DataError, match=says) as caught:
        given(model, way, change(x))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0, 1, 3], "must be in 0..2, or be -1 for none, but got 0 to 3"),
        ([0, -2, 1], "but got -2 to 1"),
        ([0, 1], r"must be 3, one an image, but got shape \(2,\)"),
        ([[0], [1], [2]], r"but got shape \(3, 1\)"),
        ([0.0, 1.0, 2.0], "must be whole numbers, but got torch.float32"),
        ([True, False, True], "must be whole numbers, but got torch.bool"),
    ],
)
def test_labels_that_are_not_classes_are_refused(model: DensityModel, way: str, labels: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        given(model, way, random_levels(model, 3), torch.tensor(labels))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_any_whole_numbers_in_range_are_taken_alike(model: DensityModel, dtype: torch.dtype) -> None:
    x, labels = random_levels(model, 3), torch.tensor([0, 2, NO_LABEL])
    assert torch.equal(model.log_prob(x.to(dtype), labels.int()), model.log_prob(x, labels))


def test_no_image_at_all_has_no_nats() -> None:
    model = tiny_model(shape=(1, 4, 4), levels=K)
    assert model.log_prob(random_levels(model, 0)).shape == (0,)


def test_training_looks_at_no_level(model: DensityModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look would wait for the GPU in each step; the loop's batches come from data that was checked."""
    x = random_levels(model, 3).to(torch.uint8)
    loss = model(x)
    monkeypatch.setattr(torch.Tensor, "tolist", lambda _values: pytest.fail("it reads a value"))
    monkeypatch.setattr(torch.Tensor, "item", lambda _values: pytest.fail("it reads a value"))
    if not isinstance(model, PixelVAE):  # whose noise follows from the places of images, on the CPU
        assert torch.equal(model(x), loss)
    with pytest.raises(DataError, match="but got float32"):
        model(x / 16)


def test_of_tensors_without_values_only_the_type_is_checked() -> None:
    form = ImageSpec(1, 4, 4, levels=K)
    require_levels(torch.zeros(2, 1, 4, 4, dtype=torch.uint8, device="meta"), form)
    with pytest.raises(DataError, match="but got float32"):
        require_levels(torch.zeros(2, 1, 4, 4, device="meta"), form)


def test_vmap_passes() -> None:
    model = tiny_model(shape=(1, 4, 4), levels=K)
    x = random_levels(model, 3)
    each = torch.vmap(lambda image_CHW: model.log_prob(image_CHW[None])[0])(x)
    torch.testing.assert_close(each, model.log_prob(x))
