"""What a search will cost here, and the question before one that would take a month."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from pixeltune.cli.search import require_affordable
from pixeltune.data import resolve_outline
from pixeltune.errors import ConfigError
from pixeltune.preflight import cost as costs
from pixeltune.preflight.cost import Cost, devices_text, measure
from pixeltune.space import Asha, Budget, Resources
from tests.support.toy_search import toy_config, toy_space

MONTHS = Cost(images=1e8, expected=4e7, speed=0.5, workers=1, device="cpu")
SHORT = Cost(images=1e8, expected=4e7, speed=500.0, workers=1, device="cpu")


def test_the_cost_counts_early_stopping_and_the_budget_of_images() -> None:
    resolved = resolve_outline(toy_config())
    stopped = measure(toy_space(scheduler=Asha((100, 200), reduction=2), budget=Budget(trials=4)), resolved)
    assert (stopped.images, stopped.expected) == (4 * 400, 4 * (100 + 100 / 2 + 200 / 4))
    assert 0 < stopped.hours < 1
    assert "early stopping" in str(stopped)
    limited = measure(toy_space(scheduler=None, budget=Budget(trials=4, images=500)), resolved)
    assert (limited.images, limited.expected) == (1600, 500)


def test_a_slow_step_is_taken_once_with_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is imitated: a step of one image takes five seconds, and nothing larger is tried."""
    batches: list[int] = []
    clock = iter(range(0, 1000, 5))
    plain = costs._batch

    def batch(resolved: costs.ResolvedOutline, count: int) -> costs.np.ndarray:
        batches.append(count)
        return plain(resolved, count)

    monkeypatch.setattr(costs.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(costs, "_batch", batch)
    assert measure(toy_space(), resolve_outline(toy_config())).speed == 1 / 5
    assert set(batches) == {1}


def test_devices_say_that_a_gpu_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr(costs, "usable_cpus", lambda: 2)
    asks = toy_space(resources=Resources(gpus=1.0))
    assert devices_text(asks) == "2 CPUs and no GPU; the search asks for one, and would train on the CPUs"
    assert devices_text(toy_space()) == "2 CPUs and no GPU"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Start a search of this cost at a terminal with this answer, or without one; what was printed."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    def ask(cost: Cost, answer: str | None, *, trials: int = 9999) -> str:
        monkeypatch.setattr(costs, "measure", lambda *_: cost)
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))
        monkeypatch.setattr("sys.stdin.isatty", lambda: answer is not None, raising=False)
        out = Console(file=io.StringIO(), width=200, force_terminal=answer is not None)
        require_affordable(out, toy_space(budget=Budget(trials=trials)))
        assert isinstance(out.file, io.StringIO)
        return out.file.getvalue()

    return ask


@pytest.mark.parametrize("answer", ["y", "YES", " yes "])
def test_a_search_of_months_starts_when_it_is_confirmed(asked: Callable[..., str], answer: str) -> None:
    said = asked(MONTHS, answer)
    assert "22,222 hours with early stopping" in said
    assert "Devices here: " in said


@pytest.mark.parametrize("answer", ["", "n", "maybe", None])
def test_a_search_of_months_is_refused_otherwise(asked: Callable[..., str], answer: str | None) -> None:
    with pytest.raises(ConfigError, match=r"must be confirmed, but 22,222 hours are forecast .*; give --yes"):
        asked(MONTHS, answer)


def test_short_and_small_searches_start_without_a_question(
    asked: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "more than 30 days" not in asked(SHORT, None)
    assert asked(MONTHS, None, trials=3) == "", "nothing is measured for a thousand images"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert asked(MONTHS, None) == "", "nor where that would take memory of a GPU"
