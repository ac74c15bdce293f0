"""The check of a trial's claimed bits by a real code: a few images are coded after training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pixeltune.errors import PixeltuneError

if TYPE_CHECKING:
    from pixeltune.data import ImageSet
    from pixeltune.models import DensityModel
    from pixeltune.training.evaluation import Evaluation
    from pixeltune.training.loop import Training

_SHARE, _FEWEST_SECONDS, _MOST_SECONDS = 0.05, 5.0, 300.0
"""The share of the training time that coding may take, within these bounds."""


def seconds_allowed(training: Training) -> float:
    """Return how long a check may take, next to what training has taken."""
    trained: float = training.reports[-1].train_seconds if training.reports else 0.0
    return min(_MOST_SECONDS, max(_FEWEST_SECONDS, _SHARE * trained))


def verify_claim(training: Training, weights: str, *, tested: Evaluation | None = None) -> dict[str, Any]:
    """Return row columns of whether a code confirms the number of record.

    Args:
        training: at its end, in its first worker.
        weights: where the weights of its best report are stored.
        tested: the evaluation of the test set, in a final run.
    """
    from pixeltune.sampling.code_check import BitsCheck, check_claim

    try:
        found = check_claim(*_claim(training, weights, tested), seconds=seconds_allowed(training))
    except PixeltuneError as error:
        found = BitsCheck(None, why_not=str(error))
    return {
        "bits_verified": found.is_confirmed,
        "bits_verified_images": found.images,
        "bits_unverified_reason": found.why_not,
    }


def _claim(training: Training, weights: str, tested: Evaluation | None) -> tuple[DensityModel, ImageSet, Any]:
    """Return the model of record, the images of its number, and the nats that it claims for them."""
    from pixeltune.errors import DataError
    from pixeltune.training.weights import load_model

    data = training.data
    if tested is not None:
        assert data.test is not None, "it was evaluated"
        return training.model_of_record, data.test, tested.nats_N
    if data.valid is None:
        raise DataError("a claim must be of validation or test images, but none were evaluated")
    evaluation, images_seen = training.claim or (None, None)
    is_last = images_seen == training.images_seen
    model = training.model_of_record if is_last else load_model(weights).to(training.device)
    evaluation = evaluation or training.evaluate_alone(model)
    return model, data.valid, evaluation.nats_N
