from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune.errors import StoreError
from pixeltune.results.manifest import SearchManifest
from pixeltune.space import Asha, Budget, Median, Pareto, Resources
from tests.support.results import make_space

SPACE = make_space()

learning_rates = st.tuples(st.floats(1e-6, 1e-3), st.floats(1e-3, 1.0), st.booleans()).map(
    lambda args: FloatDistribution(args[0], args[1], log=args[2])
)
layers = st.tuples(st.integers(1, 20), st.integers(20, 256)).map(lambda args: IntDistribution(*args))
precisions = st.permutations(["auto", "float32", "bfloat16"]).map(CategoricalDistribution)


@given(
    vary=st.fixed_dictionaries(
        {}, optional={"optim.lr": learning_rates, "model.layers": layers, "train.precision": precisions}
    ),
    rungs=st.none() | st.lists(st.integers(1, 3), min_size=1, unique=True).map(sorted),
    seed=st.integers(0, 2**40),
    overrides=st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=5)),
    baseline=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_manifest_comes_back_equal(
    vary: dict[str, BaseDistribution], rungs: list[int] | None, seed: int, overrides: dict[str, Any], baseline: float
) -> None:
    scheduler = None if rungs is None else Asha(tuple(1600 * rung for rung in rungs))
    space = make_space(vary=vary, scheduler=scheduler, seed=seed)
    manifest = SearchManifest.of(space, "tiny", overrides=overrides, baseline_bits_per_dim=baseline)
    back = SearchManifest.from_json(manifest.to_json())
    assert back == manifest
    assert back.distributions() == vary
    assert back.difference(manifest) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"base": SPACE.base.override({"model.channels": 8})}, "model.channels: 8 here, 384 in the results"),
        ({"base": SPACE.base.override({"optim.clip": 1.0})}, "optim.clip: 1.0 here, None in the results"),
        (
            {"vary": {}},
            "vary model.layers: fixed here, IntDistribution(log=False, step=1, low=2, high=20) in the results",
        ),
        ({"objectives": ("valid_nats",)}, "objectives: valid_nats here, valid_bits_per_dim in the results"),
        ({"scheduler": None}, "scheduler: none here, ASHA at [1600, 3200] by 2 in the results"),
        ({"scheduler": Asha((1600,))}, "scheduler: ASHA at [1600] by 2 here, ASHA at [1600, 3200] by 2 in the results"),
        (
            {"scheduler": Median(grace=1600)},
            "scheduler: median after 1600 images and 4 finished trials here, ASHA at [1600, 3200] by 2 in the results",
        ),
        (
            {"scheduler": Pareto((1600,), 0.1), "objectives": ("valid_nats", "num_parameters")},
            "scheduler: Pareto at [1600] with a margin of 0.1 here, ASHA at [1600, 3200] by 2 in the results",
        ),
        ({"constraints": {"gpu_seconds": 60}}, "constraints: gpu_seconds 60 here, none in the results"),
        ({"sampler": "random"}, "sampler: random here, tpe in the results"),
        ({"seed": 5}, "sampler seed: 5 here, 0 in the results"),
    ],
)
def test_what_differs_is_said_in_a_line(changes: dict[str, Any], line: str) -> None:
    other = SearchManifest.of(SPACE, "tiny")
    assert line in SearchManifest.of(make_space(**changes), "tiny").difference(other)


@pytest.mark.parametrize(
    "changes",
    [
        {"budget": Budget(trials=99, hours=3)},
        {"resources": Resources(workers=2)},
        {"title": "another"},
        {"base": SPACE.base.override({"data.path": "/elsewhere", "data.download": True})},
    ],
)
def test_budget_resources_and_whereabouts_are_no_difference(changes: dict[str, Any]) -> None:
    other = SearchManifest.of(SPACE, "tiny")
    assert SearchManifest.of(make_space(**changes), "tiny").difference(other) == []


def test_an_option_that_did_not_exist_yet_counts_with_its_default() -> None:
    today = SearchManifest.of(SPACE, "tiny")
    before = replace(today, base={key: value for key, value in today.base.items() if key != "optim.clip"})
    assert today.difference(before) == []
    clipped = replace(today, base={**today.base, "optim.clip": 2.0})
    assert clipped.difference(before) == ["optim.clip: 2.0 here, None in the results"]


def test_a_manifest_from_before_there_were_several_schedulers_opens_and_agrees() -> None:
    today = SearchManifest.of(SPACE, "tiny")
    tree = json.loads(today.to_json())
    del tree["constraints"], tree["sha256"]
    tree["scheduler"] = {"rungs": [1600, 3200], "reduction": 2}
    before = SearchManifest.from_json(json.dumps(tree))
    assert today.difference(before) == before.difference(today) == []


def test_an_edited_manifest_is_refused_until_it_gives_up_its_digest() -> None:
    text = SearchManifest.of(SPACE, "tiny").to_json()
    edited = text.replace('"sampler_seed": 0', '"sampler_seed": 1')
    with pytest.raises(StoreError, match=r"as pixeltune wrote it.*put a copy of it back, or remove its last entry"):
        SearchManifest.from_json(edited)
    tree = json.loads(edited)
    assert list(tree)[-1] == "sha256"
    del tree["sha256"]
    assert SearchManifest.from_json(json.dumps(tree)).sampler_seed == 1


@pytest.mark.parametrize("spoilt", ["", "x", None, 7], ids=repr)
def test_a_digest_that_cannot_be_read_is_damage(spoilt: object) -> None:
    """A flipped bit in the mark before the digits must not make the file one of an earlier version."""
    tree = json.loads(SearchManifest.of(SPACE, "tiny").to_json()) | {"sha256": spoilt}
    with pytest.raises(StoreError, match="as pixeltune wrote it"):
        SearchManifest.from_json(json.dumps(tree))


def test_a_changed_family_shows_the_keys_that_come_and_go() -> None:
    masked = make_space(base=SPACE.base.override({"model.family": "pixelcnn"}))
    lines = SearchManifest.of(masked, "tiny").difference(SearchManifest.of(SPACE, "tiny"))
    assert "model.family: pixelcnn here, gated in the results" in lines
    assert "model.variant: residual here, not there in the results" in lines


def test_choices_of_an_older_file_have_the_type_of_their_rows() -> None:
    """[0, 0.25] was written as it was given, and rows hold 0.0: the report looked for 0.0 among 0 and 0.25."""
    base = SPACE.base.override({"model.dropout": 0.25})
    space = make_space(base=base, vary={"model.dropout": CategoricalDistribution([0, 0.25])})
    today = SearchManifest.of(space, "tiny")
    tree = json.loads(today.to_json())
    del tree["sha256"]
    tree["vary"]["model.dropout"]["attributes"]["choices"] = [0, 0.25]
    before = SearchManifest.from_json(json.dumps(tree))
    for manifest in (today, before):
        assert str(manifest.distributions()["model.dropout"]) == "CategoricalDistribution(choices=(0.0, 0.25))"
    assert today.difference(before) == before.difference(today) == []
