"""Completions are drawn given what is known, exactly, or are refused."""

from __future__ import annotations

import pytest
import torch

from pixeltune.config import LIKELIHOODS
from pixeltune.errors import ConfigError, DataError
from pixeltune.models import NO_LABEL, DensityModel
from pixeltune.sampling import METHODS, complete, sample, why_not_conditional
from tests.support.chi_square import chi_square_p
from tests.support.model_kinds import NETWORK_KINDS, every_network
from tests.support.pairwise import every_pair
from tests.support.tiny_models import sharp_model


def first_calls(model: DensityModel, share: float = 0.5) -> torch.Tensor:
    """(C, H, W): what the model draws in that share of its calls."""
    order_CHW = model.order()
    return order_CHW < (int(order_CHW.max()) + 1) * share


EXACT = [kind for kind in NETWORK_KINDS if kind[0] != "pixelvae"]
"""Networks without a latent, which has no exact completions."""


@every_pair({"family,colour_order": EXACT, "likelihood": LIKELIHOODS, "split": [1, 2]})
def test_an_image_completes_itself_under_its_own_noise(
    family: str, likelihood: str, colour_order: str, split: int
) -> None:
    levels, orders = 2 if likelihood == "bernoulli" else 17, {"colour_order": colour_order, "split": split}
    model = sharp_model(family, likelihood, shape=(3, 4, 4), levels=levels, **orders).double()
    drawn = sample(model, 3, seed=5)
    for share in (0.3, 0.5, 1.0):
        known = first_calls(model, share)
        assert why_not_conditional(model, known) is None
        for method in METHODS:
            assert torch.equal(complete(model, drawn, known, seed=5, method=method), drawn)
    known = first_calls(model)
    other = complete(model, drawn, known, seed=6)
    assert torch.equal(other[:, known], drawn[:, known])
    assert (other[:, ~known] != drawn[:, ~known]).any()


@every_pair({"family,colour_order": EXACT, "likelihood": LIKELIHOODS})
def test_frequencies_are_conditional_probabilities(family: str, likelihood: str, colour_order: str) -> None:
    """Of 16 images of a colour and 2×2 pixels, the upper row given."""
    model = sharp_model(family, likelihood, shape=(1, 2, 2), colour_order=colour_order)
    images, draws = torch.cartesian_prod(*[torch.arange(2)] * 4).reshape(16, 1, 2, 2), 1500
    known = torch.tensor([[True, True], [False, False]])
    with torch.no_grad():
        joint = model.log_prob(images).exp().double()
    given = images[::4].repeat_interleave(draws, 0)
    completed = complete(model, given, known, batch_size=len(given))
    assert torch.equal(completed[:, 0, 0].long(), given[:, 0, 0])
    for upper, drawn in enumerate(completed.chunk(4)):
        seen = (drawn[:, 0, 1] * torch.tensor([2, 1])).sum(1).bincount(minlength=4)
        expected = joint[upper * 4 : upper * 4 + 4]
        assert chi_square_p(seen, expected * (draws / expected.sum())) > 1e-4


@every_network
@pytest.mark.parametrize("split", [1, 2])
def test_methods_agree_on_what_is_clamped(family: str, colour_order: str, split: int) -> None:
    model = sharp_model(family, shape=(3, 4, 4), levels=17, colour_order=colour_order, split=split).double()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(17, (3, 3, 4, 4), generator=generator)
    known = torch.rand(3, 4, 4, generator=generator) < 0.5
    first, *others = [complete(model, images, known, clamp=True, method=method, temperature=0.8) for method in METHODS]
    assert torch.equal(first[:, known].long(), images[:, known])
    assert all(torch.equal(other, first) for other in others)


def test_left_halves_and_tiles_are_refused_with_the_reason() -> None:
    left = torch.zeros(4, 4, dtype=torch.bool)
    left[:, :2] = True
    words = (
        r"its call 3 draws what is not given, and the given row 1, column 0, colour 0 comes in call 5; with clamp "
        r"\(--clamp\)"
    )
    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ConfigError, match=words):
        complete(sharp_model(shape=(3, 4, 4), colour_order="likelihood"), images, left)
    with pytest.raises(ConfigError, match=r"split into 2×2 tiles, drawn side by side"):
        complete(sharp_model(shape=(3, 4, 4), colour_order="likelihood", split=2), images, left.T)
    with pytest.raises(ConfigError, match=r"without a latent, .* but pixelvae has one"):
        complete(sharp_model("pixelvae", shape=(3, 4, 4)), images, left.T)


def test_a_colour_alone_is_given_only_where_the_network_draws_it_alone() -> None:
    """A pixel's joint likelihood draws all its colours in one call."""
    red = torch.zeros(3, 2, 2, dtype=torch.bool)
    red[0, 0, 0] = True
    images = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    complete(sharp_model(shape=(3, 2, 2), colour_order="mask"), images, red)
    with pytest.raises(ConfigError, match="its call 1 draws what is not given"):
        complete(sharp_model(shape=(3, 2, 2), colour_order="likelihood"), images, red)


def test_a_completion_is_of_its_label() -> None:
    model = sharp_model("gated", shape=(3, 4, 4), levels=17, conditioning="bias", label_dropout=0.5).double()
    labels = torch.tensor([0, 1, 2, NO_LABEL])
    drawn = sample(model, 4, seed=5, labels=labels)
    known = first_calls(model)
    assert torch.equal(complete(model, drawn, known, seed=5, labels=labels, batch_size=3), drawn)
    assert not torch.equal(complete(model, drawn, known, seed=5, labels=labels.roll(1)), drawn)


IMAGE, ALL = torch.zeros(1, 3, 4, 4, dtype=torch.int64), torch.ones(4, 4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("images", "known", "words"),
    [
        (IMAGE.float(), ALL, r"integer levels 0 to 1 of shape \(B, 3, 4, 4\), but got float32"),
        (IMAGE.bool(), ALL, "but got bool"),
        (IMAGE[0], ALL, r"but got shape \(3, 4, 4\)"),
        (IMAGE[..., :3], ALL, r"but got shape \(1, 3, 4, 3\)"),
        (IMAGE, ALL.float(), r"bools of shape \(3, 4, 4\) or \(4, 4\), but got torch.float32"),
        (IMAGE, ALL[0], r"bools of shape .*, but got torch.bool of shape \(4,\)"),
        (IMAGE + 2, ALL, r"levels must be in 0..1"),
    ],
)
def test_what_is_no_image_or_no_mask_is_refused(images: torch.Tensor, known: torch.Tensor, words: str) -> None:
    with pytest.raises((ConfigError, DataError), match=words):
        complete(sharp_model(shape=(3, 4, 4)), images, known)


def test_levels_that_are_not_given_do_not_count() -> None:
    model, known = sharp_model(shape=(3, 4, 4)), torch.zeros(4, 4, dtype=torch.bool)
    known[:2] = True
    images = torch.zeros(2, 3, 4, 4, dtype=torch.int64)
    images[:, :, 2:] = 255
    assert torch.equal(complete(model, images, known), complete(model, torch.zeros_like(images), known))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_all_256_levels_are_taken(dtype: torch.dtype) -> None:
    model, known = sharp_model(shape=(1, 4, 4), levels=256), torch.zeros(4, 4, dtype=torch.bool)
    known[:2] = True
    images = torch.arange(240, 256).reshape(1, 1, 4, 4).to(dtype)
    completed = complete(model, images, known)
    assert torch.equal(completed[..., :2, :].long(), images[..., :2, :].long())
    assert torch.equal(complete(model, images.numpy(), known.numpy()), completed)
