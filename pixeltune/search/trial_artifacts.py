"""The single reading of the test set at the end of a final run, stored in a file before anything else can fail."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pixeltune import files
from pixeltune.data import order0_bits_per_dim
from pixeltune.errors import DivergedError
from pixeltune.results.final_statistics import read_nats, write_images
from pixeltune.training.evaluation import Evaluation

if TYPE_CHECKING:
    from pixeltune.search.messages import TrialTask
    from pixeltune.training.loop import Training


def read_test_set(task: TrialTask, training: Training, *, is_new: bool) -> Evaluation:
    """Evaluate the test set under the weights of record, the last ones; all workers evaluate, the first keeps.

    The weights are audited again afterwards in the state that was evaluated (AuditError): a module may count its calls.

    is_new: whether this attempt trained the weights. If not, an earlier attempt may have read the test set under the
    same weights and died afterwards; its stored reading is used, and the test set is not read again.
    """
    workers = training.workers
    if workers.as_first(not is_new and files.exists(task.images)):
        found = Evaluation(read_nats(task.images), training.data.form)
    else:
        found = training.evaluate(training.model_of_record, "test")
        if not math.isfinite(found.nats):
            raise DivergedError(f"test images must have finite nats, but their mean is {found.nats}")
        training.check(training.model_of_record, len(found.nats_N))
        if workers.rank == 0:
            _keep(task, training, found)
    return found


def test_facts(training: Training, found: Evaluation) -> dict[str, Any]:
    """Return the row columns of a reading."""
    return {
        "test_bits_per_dim": found.bits_per_dim,
        "test_nats": found.nats,
        "baseline_bits_per_dim": order0_bits_per_dim(training.data, "test"),
    }


def _keep(task: TrialTask, training: Training, found: Evaluation) -> None:
    assert training.data.test is not None, "it was evaluated"
    write_images(
        task.images,
        found.nats_N,
        training.data.test.labels_N,
        is_bound=training.model.is_bound,
        search=task.search,
        search_id=task.search_id,
        trial=task.trial,
        attempt=task.attempt,
    )
