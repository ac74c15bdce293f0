"""Trials that run out of memory on a GPU that they share are tried once more with a whole one, on a real Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pixeltune.cluster import ray_backend
from pixeltune.cluster.ray_backend import RayBackend
from pixeltune.search import run
from pixeltune.search.callbacks import SearchCallback
from pixeltune.search.run import open_search, run_search
from pixeltune.space import Budget, Resources
from pixeltune.tune import trainables
from tests.support.toy_search import FACTS, report, toy_config, toy_space

pytestmark = [pytest.mark.slow, pytest.mark.ray]


@contextmanager
def one_logical_gpu(_address: str | None) -> Iterator[list[dict[str, float]]]:
    import ray

    ray.init(address="local", num_cpus=2, num_gpus=1, log_to_driver=False, include_dashboard=False)
    yield [node["Resources"] for node in ray.nodes()]
    ray.shutdown()


def oom_where_shared(resources: Resources) -> Any:
    """Out of memory with less than a whole GPU, but for trial 1; trial 2 needs more than there is."""
    from ray import tune

    facts, finished = FACTS | {"data_checksum": None}, report(400, 2.0)  # no images were read

    def train(params: dict[str, Any]) -> None:
        trial = json.loads(params["task"])["trial"]
        fits = trial == "00001" or (resources.gpus == 1 and trial != "00002")
        messages: list[dict[str, Any]] = [{"facts": facts, "resumed": []}]
        messages += [{"report": finished}] if fits else []
        messages += [{"end": "finished" if fits else "oom", "reason": None if fits else "CUDA out of memory"}]
        for message in messages:
            tune.report({"message": json.dumps(message)})

    return tune.with_resources(train, {"CPU": resources.cpus, "GPU": resources.gpus})


def test_they_are_tried_alone_when_the_others_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_backend, "connect", one_logical_gpu)
    monkeypatch.setattr(run, "require_same_data", lambda *_: None)
    monkeypatch.setattr(trainables, "trainable", oom_where_shared)
    space = toy_space(
        base=toy_config().override({"data.num_valid": 100}),
        scheduler=None,
        budget=Budget(trials=4),
        resources=Resources(gpus=0.5),
    )
    store, manifest = open_search(space, "shared", str(tmp_path))
    outcome = run_search(space, store, manifest, backend=RayBackend(), callback=SearchCallback())
    assert (outcome.interrupted, outcome.reason) == (False, "all 4 trials are done")
    attempts = [(row["trial"], row["attempt"], row["status"], row["gpus_per_worker"]) for row in store.attempts()]
    assert attempts == [
        ("00000", 1, "oom", 0.5),
        ("00000", 2, "finished", 1.0),
        ("00001", 1, "finished", 0.5),
        ("00002", 1, "oom", 0.5),
        ("00002", 2, "oom", 1.0),
        ("00003", 1, "oom", 0.5),
        ("00003", 2, "finished", 1.0),
    ]
    assert {row["trial"]: row["status"] for row in outcome.state.ended.values()} == {
        "00000": "finished",
        "00001": "finished",
        "00002": "oom",
        "00003": "finished",
    }
