"""Two processes train as one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pixeltune.training.loop import fit
from tests.support.tiny_trainings import numbers, tiny, two_processes


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"optim__ema": 0.9, "optim__clip": 20.0},
        {"likelihood__name": "logistic_mixture", "data__levels": 4},
        # Training amplifies the rounding of float32, and more so the deeper the network and the larger its steps.
        {"model__family": "pixelcnnpp", "model__layers": 1, "likelihood__name": "logistic_mixture", "optim__lr": 1e-4},
        # The noise of the bound and the weight of its KL follow the place in the stream, not the worker.
        {"model__family": "pixelvae", "model__latent_dim": 4, "model__kl_warmup": 10, "optim__lr": 1e-3},
    ],
    ids=["categorical", "mixture", "initialised by data", "bound"],
)
def test_two_workers_give_the_losses_of_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = tiny(train__images=640, train__report_every=160, **changes)
    alone = [numbers(report) for report in fit(config)]
    first, second = two_processes(config, tmp_path)
    assert first["weights"] == second["weights"]
    for ours, report in zip(alone, first["reports"], strict=True):
        for key in ("train_nats", "valid_nats", "train_bits_per_dim", "valid_bits_per_dim", "grad_norm"):
            assert report[key] == pytest.approx(ours[key], rel=1e-5), key
    for one, two in zip(first["reports"], second["reports"], strict=True):
        assert one["valid_nats"] == two["valid_nats"]
        assert one["train_nats"] == two["train_nats"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["none", "nan"])
def test_nothing_of_the_group_outlives_it(tmp_path: Path, fault: str) -> None:
    """Its threads take Python's lock to let go of tensors: one that does so while Python ends aborts the process."""
    for ended in two_processes(tiny(), tmp_path, fault=fault):
        assert not [name for name in ended["threads"] if "gloo" in name or "tcpstore" in name]


@pytest.mark.slow
def test_all_workers_stop_together_when_one_diverges(tmp_path: Path) -> None:
    first, second = two_processes(tiny(), tmp_path, fault="nan")
    assert "step 0" in first["reports"]
    assert "step 0" in second["reports"]


@pytest.mark.slow
def test_all_workers_pause_together_when_one_has_to_and_go_on_to_the_same_numbers(tmp_path: Path) -> None:
    config = tiny(train__images=640, train__report_every=160, model__dropout=0.3)
    (tmp_path / "whole").mkdir()
    whole, _ = two_processes(config, tmp_path / "whole")
    first, second = two_processes(config, tmp_path, fault="pause")
    times = ("train_seconds", "eval_seconds", "compile_seconds", "images_per_second")
    for run in (first, second):
        for report, uninterrupted in zip(run["reports"], whole["reports"], strict=True):
            assert {k: v for k, v in report.items() if k not in times} == {
                k: v for k, v in uninterrupted.items() if k not in times
            }
    assert first["weights"] == second["weights"] == whole["weights"]
