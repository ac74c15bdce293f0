"""What a user gives a search to try: first configurations, lists of a grid, and priors; and what is refused of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune.errors import ConfigError
from pixeltune.space import SAMPLERS, ChoiceWeights, LogNormal, Normal
from pixeltune.space.priors import parse_prior, prior_text
from tests.support.toy_search import VARY, toy_config, toy_space

MIXTURE = {"likelihood.name": "logistic_mixture", "likelihood.mixtures": 3}
STEPS = {"model.dropout": FloatDistribution(0.0, 0.4, step=0.1), "model.layers": IntDistribution(2, 6, step=2)}


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        toy_space(**changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------- first configurations


def test_keys_that_are_not_given_have_the_value_of_the_base() -> None:
    space = toy_space(first=[{"model.layers": np.int64(4)}, MIXTURE | {"optim.lr": 0.002}])
    assert space.first_suggestions() == [
        {"likelihood.name": "categorical", "model.layers": 4, "optim.lr": 0.01},
        MIXTURE | {"model.layers": 2, "optim.lr": 0.002},
    ]
    assert type(space.first_suggestions()[0]["model.layers"]) is int


def test_a_key_that_the_base_lacks_has_its_default_if_that_can_be_drawn() -> None:
    first = [{"likelihood.name": "logistic_mixture"}]
    vary = VARY | {"likelihood.mixtures": IntDistribution(2, 12)}
    assert toy_space(vary=vary, first=first).first_suggestions()[0]["likelihood.mixtures"] == 10
    assert "first[0] must set `likelihood.mixtures`" in refusal(first=first)


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (
            [{"model.layrs": 4}],
            "first[0] must name keys that vary, but got `model.layrs`; did you mean `model.layers`?",
        ),
        ([{"model.channels": 8}], "must name keys that vary, but got `model.channels`"),
        ([{"model.layers": 3}, {"model.layers": 7}], "first[1] must have `model.layers` among 2…6, but got 7"),
        ([{"model.layers": 2.5}], "among 2…6, but got 2.5"),
        ([{"model.layers": True}], "among 2…6, but got true"),
        ([{"model.layers": "3"}], "among 2…6, but got '3'"),
        ([{"optim.lr": math.nan}], "but got nan"),
        ([{"optim.lr": None}], "but got none"),
        ([{"likelihood.name": "bernoulli"}], "among categorical | logistic_mixture, but got 'bernoulli'"),
        ([{"likelihood.mixtures": 3}], "`likelihood.mixtures` does not exist with the base"),
        ([MIXTURE | {"likelihood.name": "categorical"}], "does not exist with likelihood.name=categorical"),
        ([{}], "first[0] must be a configuration of its own, but it is the same as the base"),
        ([{"model.layers": 2, "optim.lr": 0.01}], "the same as the base"),
        ([{"model.layers": 3}, {"model.layers": 3, "optim.lr": 0.01}], "first[1] must be a configuration of its own"),
        ({"model.layers": 3}, "first must be a list of configurations"),
        ([("model.layers", 3)], "first must be a list of configurations"),
    ],
)
def test_a_first_configuration_that_no_trial_can_be_is_refused(first: Any, says: str) -> None:
    assert says in refusal(first=first)


def test_values_between_steps_are_refused() -> None:
    plain = {"vary": STEPS, "scheduler": None}
    space = toy_space(**plain, first=[{"model.dropout": 0.3, "model.layers": 4}])
    assert space.first_suggestions() == [{"model.dropout": 3 * 0.1, "model.layers": 4}]
    for first in ({"model.dropout": 0.25}, {"model.layers": 3}):
        assert "(step " in refusal(**plain, first=[first])


def test_a_key_that_is_set_leaves_the_first_configurations() -> None:
    space = toy_space(first=[{"model.layers": 4}, {"model.layers": 4, "optim.lr": 0.002}])
    fixed = space.override({"model.layers": 4})
    assert fixed.first_suggestions() == [{"likelihood.name": "categorical", "optim.lr": 0.002}]
    assert fixed.override({"optim.clip": 3.0}).first == fixed.first
    with pytest.raises(ConfigError, match=r"first\[0\] must agree with what is set, but .* model.layers=4 and .* 5"):
        space.override({"model.layers": 5})
    mixed = toy_space(first=[MIXTURE])
    with pytest.raises(ConfigError, match=r"first\[0\] must agree with what is set"):
        mixed.override({"likelihood.name": "categorical"})
    assert mixed.override({"likelihood.mixtures": 3}).first_suggestions()[0]["likelihood.mixtures"] == 3
    with pytest.raises(ConfigError, match=r"first\[0\] must have `likelihood.mixtures` among 4, but got 3"):
        mixed.override({"likelihood.mixtures": 4})


def test_more_first_configurations_follow_those_that_are_there() -> None:
    space = toy_space(first=[{"model.layers": 4}])
    more = space.with_first([{"model.layers": 4, "optim.lr": 0.01}, {"model.layers": 5}])
    assert [each["model.layers"] for each in more.first_suggestions()] == [4, 5]
    with pytest.raises(ConfigError, match=r"first\[2\] must be a configuration of its own, but .* first\[1\]"):
        space.with_first([{"model.layers": 5}, {"model.layers": 5}])


# ----------------------------------------------------------------------------------------------------------- grid


def test_a_grid_has_every_combination_and_the_last_key_changes_fastest() -> None:
    vary = {key: VARY[key] for key in ("optim.lr", "model.layers", "likelihood.name", "likelihood.mixtures")}
    grid = {"optim.lr": [0.02, 0.001], "model.layers": (6, 2), "likelihood.mixtures": [3]}
    space = toy_space(vary=vary, sampler="grid", grid=grid)
    found = [tuple(each.values()) for each in space.grid_configurations()]
    pairs = [(0.02, 6), (0.02, 2), (0.001, 6), (0.001, 2)]
    assert found == [("categorical", *pair) for pair in pairs] + [("logistic_mixture", *pair, 3) for pair in pairs]
    assert space.num_configurations == 9, "the base, whose learning rate is not in the grid"
    on_grid = toy_space(vary=vary, sampler="grid", grid=grid | {"optim.lr": [0.01]})
    assert on_grid.num_configurations == 4
    assert len(list(on_grid.configurations())) == 4


def test_a_range_of_steps_is_enumerated() -> None:
    space = toy_space(vary=STEPS, sampler="grid", scheduler=None)
    assert space.num_configurations == 5 * 3
    assert [each["model.dropout"] for each in space.grid_configurations()][::3] == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4]
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"grid": {}}, "a list of values for each range without a step, but `optim.lr` has none; give grid="),
        ({"grid": {"optim.lr": [0.01, 1.0]}}, "grid['optim.lr'] must have values among 1e-4…1e-1 (log), but got 1"),
        ({"grid": {"optim.lr": []}}, "must have at least one value"),
        ({"grid": {"optim.lr": [0.01, 0.01]}}, "must have each value once, but got 0.01 twice"),
        ({"grid": {"optim.lr": 0.01}}, "must be a list of values, but got 0.01"),
        ({"grid": {"optim.lr": "0.01"}}, "must be a list of values, but got '0.01'"),
        ({"grid": {"optim.lt": [0.01]}}, "did you mean `optim.lr`?"),
        ({"grid": {"optim.lr": [0.01]}, "sampler": "tpe"}, "sampler='grid', but the sampler is tpe"),
        ({"grid": [0.01]}, "grid must map keys to lists"),
    ],
)
def test_a_grid_that_cannot_be_tried_is_refused(changes: dict[str, Any], says: str) -> None:
    assert says in refusal(**({"sampler": "grid"} | changes))


def test_a_key_that_is_set_leaves_grid_and_priors() -> None:
    space = toy_space(sampler="grid", grid={"optim.lr": [0.01, 0.02], "model.layers": [2, 3]})
    assert space.override({"optim.lr": 0.05}).grid == {"model.layers": (2, 3)}
    assert space.override({"optim.lr": 0.05}).num_configurations == 2 * 8
    prior = {"optim.lr": LogNormal(0.01, 2), "likelihood.mixtures": Normal(4, 1)}
    assert set(toy_space(prior=prior).override({"likelihood.mixtures": 5}).prior) == {"optim.lr"}


# --------------------------------------------------------------------------------------------------------- priors


def test_a_density_is_on_the_scale_on_which_the_key_is_searched() -> None:
    """The densities integrate to one value over each scale, and have their centre where it says."""
    for prior, low, high in ((LogNormal(0.01, 2.0), 1e-6, 100.0), (Normal(3.0, 0.5), 1e-3, 10.0)):
        values = np.exp(np.linspace(math.log(low), math.log(high), 200_001))
        areas = []
        for is_log in (True, False):
            scale = np.log(values) if is_log else values
            density = np.exp([prior.log_density(value, is_log) for value in values])
            areas.append(np.trapezoid(density, scale))
        assert areas == pytest.approx([1.0, 1.0], rel=1e-4)
        assert prior.mass(low, high) == pytest.approx(1.0)
        centre = prior.median if isinstance(prior, LogNormal) else prior.mean
        assert prior.quantile(0.5, low, high) == pytest.approx(centre, rel=1e-3)
    assert LogNormal(0.01, 2.0).quantile(0.8413447, 1e-6, 100.0) == pytest.approx(0.02, rel=1e-4)
    assert Normal(3.0, 0.5).quantile(0.8413447, 0.0, 10.0) == pytest.approx(3.5, rel=1e-4)
    assert [Normal(3.0, 0.5).quantile(unit, 2.9, 3.2) for unit in (0.0, 1.0)] == [2.9, 3.2]


@pytest.mark.parametrize(
    ("prior", "says"),
    [
        ({"optim.lr": LogNormal(1.0, 2)}, "must have its median in 1e-4…1e-1 (log), but got 1"),
        ({"model.layers": Normal(7, 1)}, "must have its mean in 2…6, but got 7"),
        (
            {"likelihood.name": Normal(1, 1)},
            "ChoiceWeights, because categorical | logistic_mixture are choices",
        ),
        ({"model.layers": ChoiceWeights({2: 1})}, "must be Normal or LogNormal, because 2…6 is a range"),
        ({"likelihood.name": ChoiceWeights({"categorical": 2})}, "for every choice, but logistic_mixture has none"),
        ({"likelihood.name": ChoiceWeights({"bernoulli": 2})}, "must weigh choices among categorical | logistic"),
        ({"optim.lt": LogNormal(0.01, 2)}, "prior must name keys that vary, but got `optim.lt`; did you mean"),
        ({"optim.lr": 0.01}, "must be LogNormal, Normal, ChoiceWeights, but got 0.01"),
        ([LogNormal(0.01, 2)], "prior must map keys to priors"),
    ],
)
def test_a_prior_that_does_not_fit_its_key_is_refused(prior: Any, says: str) -> None:
    assert says in refusal(prior=prior)


def test_a_range_that_reaches_zero_has_no_logarithm() -> None:
    vary = {"model.dropout": FloatDistribution(0.0, 0.5)}
    assert "of a range above 0 to be LogNormal" in refusal(vary=vary, prior={"model.dropout": LogNormal(0.1, 2)})


@pytest.mark.parametrize("sampler", [name for name, kind in SAMPLERS.items() if not kind.takes_priors])
def test_samplers_that_cannot_use_a_prior_refuse_it(sampler: str) -> None:
    vary = {"optim.lr": CategoricalDistribution((0.01, 0.02)), "model.layers": IntDistribution(2, 4)}
    says = refusal(sampler=sampler, vary=vary, prior={"model.layers": Normal(3, 1)})
    assert f"must have the sampler tpe, but got {sampler}" in says


@pytest.mark.parametrize(
    "make",
    [
        lambda: LogNormal(0.0, 2),
        lambda: LogNormal(0.01, 1.0),
        lambda: LogNormal(0.01, math.inf),
        lambda: LogNormal(0.01, 2, confidence=0),
        lambda: Normal(math.nan, 1),
        lambda: Normal(1, 0),
        lambda: Normal(1, True),
        lambda: ChoiceWeights({}),
        lambda: ChoiceWeights({"a": 0}),
        lambda: ChoiceWeights({"a": math.inf}),
        lambda: ChoiceWeights(["a"]),
    ],
)
def test_a_prior_without_a_density_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize(
    "prior",
    [LogNormal(1e-3, 2.5), Normal(-3, 0.125, confidence=40), ChoiceWeights({"a b": 3, None: 0.5, 2: 1, True: 2})],
)
def test_the_text_of_a_prior_is_read_back(prior: Any) -> None:
    assert parse_prior(prior_text(prior)) == prior


@pytest.mark.parametrize(
    "text",
    [
        "",
        "LogNormal",
        "LogNormal(1)",
        "Beta(1, 2)",
        "Normal(1, 2, 3, 4)",
        "Normal(x, 1)",
        "Normal(1, **{})",
        "a.Normal(1, 2)",
        "Normal(mean=1)",
    ],
)
def test_what_is_no_prior_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"a prior must be written as LogNormal\(MEDIAN, FACTOR\)"):
        parse_prior(text)


def test_the_base_of_a_grid_may_be_outside_of_it() -> None:
    space = toy_space(base=toy_config(), sampler="grid", grid={"optim.lr": [0.02]}, first=[{"model.layers": 4}])
    assert next(iter(space.configurations())) == space.base_suggestion()
    assert space.num_configurations == 2 + 5 * 1 + 5 * 7
