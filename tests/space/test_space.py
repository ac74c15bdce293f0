from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from pixeltune.config import TrialConfig
from pixeltune.errors import ConfigError
from pixeltune.space import (
    METRICS,
    Asha,
    Budget,
    Median,
    Pareto,
    Patience,
    Resources,
    SearchSpace,
    list_searches,
    load_search,
    search_path,
)

BASE = TrialConfig.build(
    {
        "data": {"name": "digits"},
        "model": {"family": "gated", "layers": 4, "channels": 32, "kernel_size": 3},
        "likelihood": {"name": "categorical"},
        "train": {"images": 6400, "batch_size": 32, "report_every": 1600},
    }
)
VARY: dict[str, BaseDistribution] = {
    "likelihood.mixtures": IntDistribution(2, 8),
    "model.layers": IntDistribution(2, 6),
    "optim.lr": FloatDistribution(1e-4, 1e-2, log=True),
    "likelihood.name": CategoricalDistribution(("categorical", "logistic_mixture", "bernoulli")),
}
FAMILIES_TOO = VARY | {
    "model.family": CategoricalDistribution(("gated", "pixelcnn")),
    "model.first_kernel_size": CategoricalDistribution((3, 5, 7)),
}


def space(**changes: Any) -> SearchSpace:
    return SearchSpace(**({"base": BASE, "vary": VARY} | changes))


def refusal(attempt: Callable[[], object]) -> str:
    """The words of the ConfigError, which are one line."""
    with pytest.raises(ConfigError) as caught:
        attempt()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------- suggestions


def test_every_value_of_an_integer_range_must_be_buildable() -> None:
    for key, low, high in (("model.kernel_size", 3, 7), ("train.batch_size", 16, 64)):
        with pytest.raises(ConfigError, match=f"every value of vary..{key}.. must be buildable"):
            space(vary={key: IntDistribution(low, high)})
    space(vary={"model.kernel_size": IntDistribution(3, 7, step=2)})


def test_data_cannot_be_varied() -> None:
    with pytest.raises(ConfigError, match="same images"):
        space(vary={"data.fraction": FloatDistribution(0.5, 1.0)})


def test_a_key_is_asked_only_where_it_exists() -> None:
    common = {"model.layers": 3, "optim.lr": 1e-3}
    everything = common | {"likelihood.mixtures": 5}
    with_mixture = space().suggest(FixedTrial(everything | {"likelihood.name": "logistic_mixture"}))
    assert with_mixture == everything | {"likelihood.name": "logistic_mixture"}
    without = space().suggest(FixedTrial(everything | {"likelihood.name": "categorical"}))
    assert without == common | {"likelihood.name": "categorical"}


def test_the_keys_that_choose_a_class_are_asked_first() -> None:
    asked = list(space(vary=FAMILIES_TOO).vary)
    assert set(asked[:2]) == {"likelihood.name", "model.family"}
    assert asked[2:] == ["likelihood.mixtures", "model.layers", "optim.lr", "model.first_kernel_size"]


@pytest.mark.parametrize("seed", range(3))
def test_every_suggestion_of_a_sampler_is_a_configuration(seed: int) -> None:
    search = space(vary=FAMILIES_TOO)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    families = set()
    for _ in range(20):
        suggestion = search.suggest(study.ask())
        config = search.configure(suggestion)
        families.add(config.model.family)
        assert suggestion.items() <= config.flat().items()
        assert ("likelihood.mixtures" in suggestion) == (config.likelihood.name == "logistic_mixture")
        assert ("model.first_kernel_size" in suggestion) == (config.model.family == "pixelcnn")
    assert families == {"gated", "pixelcnn"}


def test_corners_are_the_combinations_of_extremes_that_exist() -> None:
    corners = list(space().corners())
    # layers 2 × lr 2 × (categorical, bernoulli: 1; logistic_mixture: 2 ends of mixtures)
    assert len(corners) == 2 * 2 * (1 + 1 + 2)
    assert len({tuple(sorted(corner.items())) for corner in corners}) == len(corners)
    assert {corner["model.layers"] for corner in corners} == {2, 6}
    assert {corner["optim.lr"] for corner in corners} == {1e-4, 1e-2}
    for corner in corners:
        assert ("likelihood.mixtures" in corner) == (corner["likelihood.name"] == "logistic_mixture")


def test_a_range_of_one_value_has_one_end() -> None:
    fixed = space(vary={"model.layers": IntDistribution(4, 4), "model.channels": IntDistribution(16, 48, step=16)})
    assert list(fixed.corners()) == [
        {"model.layers": 4, "model.channels": 16},
        {"model.layers": 4, "model.channels": 48},
    ]


def test_a_search_that_varies_nothing_has_its_base_alone() -> None:
    alone = space(vary={})
    assert list(alone.corners()) == [{}]
    assert alone.suggest(FixedTrial({})) == {}
    assert alone.configure({}) == BASE


def test_trial_0_is_the_base() -> None:
    assert space().base_suggestion() == {"likelihood.name": "categorical", "model.layers": 4, "optim.lr": 1e-3}
    assert space().configure(space().base_suggestion()) == BASE


# ------------------------------------------------------------------------------------------------------ overrides


@given(layers=st.integers(1, 256), lr=st.floats(1e-5, 1.0))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_varied_key_that_is_set_is_fixed(layers: int, lr: float) -> None:
    changed = space().override({"model.layers": layers, "optim.lr": lr})
    assert changed.vary.keys() == VARY.keys() - {"model.layers", "optim.lr"}
    assert changed.base == BASE.override({"model.layers": layers, "optim.lr": lr})
    assert changed.override({}) == changed


def test_a_fixed_class_takes_the_keys_of_the_others_out_of_the_search() -> None:
    fixed = space().override({"likelihood.name": "categorical"})
    assert fixed.vary.keys() == {"model.layers", "optim.lr"}
    with_mixture = space().override({"likelihood.name": "logistic_mixture"})
    assert with_mixture.vary.keys() == {"likelihood.mixtures", "model.layers", "optim.lr"}
    assert with_mixture.base.flat()["likelihood.mixtures"] == 8, "the default of 10 lies above what is searched"
    family = space(vary=FAMILIES_TOO).override({"model.family": "gated"})
    assert "model.first_kernel_size" not in family.vary


def test_a_key_that_only_some_trials_have_can_be_fixed() -> None:
    fixed = space().override({"likelihood.mixtures": 5})
    assert fixed.base == BASE
    assert {corner.get("likelihood.mixtures") for corner in fixed.corners()} == {None, 5}
    everything = {"likelihood.name": "logistic_mixture", "likelihood.mixtures": 5, "model.layers": 3, "optim.lr": 1e-3}
    assert fixed.configure(fixed.suggest(FixedTrial(everything))).flat()["likelihood.mixtures"] == 5
    both = space().override({"likelihood.name": "logistic_mixture", "likelihood.mixtures": 5})
    assert both.base.flat()["likelihood.mixtures"] == 5
    assert both.vary.keys() == {"model.layers", "optim.lr"}


def test_a_key_that_no_trial_has_cannot_be_fixed() -> None:
    words = refusal(lambda: space().override({"likelihood.name": "categorical", "likelihood.mixtures": 5}))
    assert words.startswith("unknown key `likelihood.mixtures`")
    assert "must be a whole number, but got 'five'" in refusal(
        lambda: space().override({"likelihood.mixtures": "five"})
    )
    assert "unknown key `likelihood.mixtuers`" in refusal(lambda: space().override({"likelihood.mixtuers": 5}))


def test_budget_and_resources_and_scheduler_are_set_like_any_key() -> None:
    changed = space().override(
        {
            "budget.trials": 3,
            "budget.hours": 0.5,
            "budget.images": None,
            "resources.workers": 2,
            "resources.gpus": 1,
            "scheduler.rungs": [1600, 3200],
            "scheduler.reduction": 3,
            "patience.times": 20,
        }
    )
    assert changed.patience == Patience(times=20)
    assert changed.budget == Budget(trials=3, hours=0.5)
    assert changed.resources == Resources(workers=2, gpus=1)
    assert changed.scheduler == Asha(rungs=(1600, 3200), reduction=3)
    assert changed.base == BASE
    assert changed.override({"scheduler": None}).scheduler is None
    assert changed.vary == space().vary


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget.trails": 3}, "unknown key `budget.trails`; did you mean `budget.trials`?"),
        ({"budget": 3}, "unknown key `budget.`"),
        ({"budget.trials": 0}, "budget.trials must be above 0, but got 0"),
        ({"budget.trials": -1}, "but got -1"),
        ({"budget.trials": 3.0}, "`budget.trials` must be a whole number, but got 3.0"),
        ({"budget.trials": "3"}, "`budget.trials` must be a number, but got '3'"),
        ({"budget.trials": True}, "`budget.trials` must be a number, but got True"),
        ({"budget.trials": None}, "`budget.trials` must be a number, but got None"),
        ({"budget.hours": float("nan")}, "budget.hours must be above 0, but got nan"),
        ({"resources.worker": 2}, "did you mean `resources.workers`?"),
        ({"resources.workers": 0}, "workers >= 1"),
        ({"resources.workers": None}, "`resources.workers` must be a number, but got None"),
        ({"resources.gpus": -1}, "gpus >= 0"),
        ({"resources.gpus": float("nan")}, "gpus >= 0"),
        ({"resources.gpus": 2}, "at most one GPU"),
        ({"resources.workers": 2, "resources.gpus": 0.5}, "a whole one (or none)"),
        ({"scheduler": 3}, "`scheduler` must be asha, median, pareto or none, but got 3"),
        ({"scheduler": "asha"}, "a search with Asha needs `scheduler.rungs` first"),
        ({"scheduler": "pareto", "scheduler.rungs": [1600]}, "a search with Pareto needs `scheduler.margin` first"),
        ({"scheduler": "median", "scheduler.rungs": [1600]}, "unknown key `scheduler.rungs`"),
        ({"scheduler": "median", "scheduler.grace": 6400}, "Median.grace must be below train.images, but got 6400"),
        ({"scheduler": None, "scheduler.rungs": [1600]}, "without a scheduler must not set `scheduler.rungs`"),
        ({"constraints.accuracy": 1}, "constraints must be of valid_bits_per_dim, "),
        ({"constraints.gpu_seconds": "much"}, "constraints['gpu_seconds'] must be a number, but got 'much'"),
        ({"constraints.gpu_seconds": float("nan")}, "must be a number, but got nan"),
        ({"scheduler.reduction": 3}, "needs `scheduler.rungs` first"),
        ({"scheduler.rungs": 1600}, "`scheduler.rungs` must be a list of whole numbers"),
        ({"scheduler.rungs": [3200, 1600]}, "must be rising"),
        ({"scheduler.rungs": [1500]}, "each rung must be a multiple of train.report_every"),
        ({"optim.learning_rate": 1}, "unknown key `optim.learning_rate`"),
        ({"model.layers": "4"}, "`model.layers` must be a whole number, but got '4'"),
    ],
    ids=str,
)
def test_a_bad_override_is_refused(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(lambda: space().override(changes))


def test_schedulers_are_changed_by_name_and_keep_what_they_share() -> None:
    asha = space().override({"scheduler": "asha", "scheduler.rungs": [1600]})
    assert asha.scheduler == Asha((1600,))
    assert asha.override({"scheduler": "median"}).scheduler == Median()
    assert asha.override({"scheduler": "median", "scheduler.grace": 1600}).scheduler == Median(grace=1600)
    front = space(objectives=("valid_nats", "num_parameters"), scheduler=Pareto((1600,), 0.5))
    assert front.override({"scheduler.margin": 1}).scheduler == Pareto((1600,), 1)
    with pytest.raises(ConfigError, match="Asha needs one objective"):
        front.override({"scheduler": "asha"})


def test_constraints_are_set_and_removed_like_any_key() -> None:
    bounded = space().override({"constraints.gpu_seconds": 60, "constraints.network_calls": 256})
    assert bounded.constraints == {"gpu_seconds": 60, "network_calls": 256}
    assert bounded.override({"constraints.gpu_seconds": None}).constraints == {"network_calls": 256}


@pytest.mark.parametrize("margin", [0, -1, float("nan")])
def test_a_margin_is_above_zero(margin: float) -> None:
    assert f"but got {margin}" in refusal(lambda: Pareto((1,), margin))


def test_an_override_leaves_the_original() -> None:
    search = space()
    before = (search.base, dict(search.vary), search.budget)
    search.override({"model.layers": 3, "budget.trials": 2})
    assert (search.base, dict(search.vary), search.budget) == before


# ----------------------------------------------------------------------------------------------------- the door


@pytest.mark.parametrize(
    "distribution",
    [
        IntDistribution(5, 8),
        IntDistribution(1, 9, step=2),
        CategoricalDistribution((2, 3)),
        CategoricalDistribution(("4",)),
        FloatDistribution(4.5, 8.0),
    ],
    ids=str,
)
def test_the_base_must_lie_inside_of_what_varies(distribution: BaseDistribution) -> None:
    words = refusal(lambda: space(vary={"model.layers": distribution}))
    assert "the base is trial 0, so its `model.layers` must be in" in words
    assert words.endswith("but it is 4")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vary": {"model.layrs": IntDistribution(1, 2)}}, "no corner has model.layrs"),
        ({"vary": {"likelihood.mixtures": IntDistribution(1, 2)}}, "no corner has likelihood.mixtures"),
        ({"vary": {"model.layers": IntDistribution(0, 8)}}, "`model.layers` must be greater than or equal to 1"),
        ({"vary": {"model.layers": FloatDistribution(1.0, 8.0)}}, "`model.layers` must be a whole number, but got 1.0"),
        ({"vary": {"train.batch_size": CategoricalDistribution((32, 33))}}, "multiple of train.batch_size"),
        ({"vary": {"model.layers": (1, 8)}}, "must be an Optuna distribution, but got (1, 8)"),
        ({"vary": ["model.layers"]}, "vary must map dotted keys"),
        ({"base": {"data": {"name": "digits"}}}, "base must be a TrialConfig"),
        ({"objectives": ()}, "objectives must name at least one"),
        ({"objectives": ("accuracy",)}, "but got 'accuracy'"),
        ({"objectives": "valid_nats"}, "objectives must be a tuple of names, but got 'valid_nats'"),
        ({"sampler": "sobol"}, "sampler must be among tpe, gp, cmaes, nsga2, random, qmc, grid, but got 'sobol'"),
        ({"scheduler": Asha((1600,)), "objectives": ("valid_nats", "gpu_seconds")}, "Asha needs one objective"),
        ({"scheduler": Median(), "objectives": ("valid_nats", "gpu_seconds")}, "Median needs one objective"),
        ({"scheduler": Pareto((1600,), 0.1)}, "Pareto needs several objectives"),
        ({"scheduler": Pareto((1600,), 0.1), "objectives": ("gpu_seconds", "valid_nats")}, "Pareto judges by valid_"),
        ({"constraints": ("gpu_seconds",)}, "constraints must map metrics to bounds"),
        ({"scheduler": Asha((1600,)), "objectives": ("num_parameters",)}, "Asha judges by valid_bits_per_dim"),
        ({"scheduler": Asha((1601,))}, "got 1601 with 1600 and 6400"),
        ({"scheduler": Asha((8000,))}, "got 8000 with 1600 and 6400"),
        (
            {"scheduler": Asha((1600,)), "base": BASE.override({"train.report_every": None})},
            "must set train.report_every",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_searched_is_refused(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(lambda: space(**changes))


@pytest.mark.parametrize("objective", METRICS)
def test_every_metric_can_be_an_objective(objective: str) -> None:
    assert space(objectives=(objective,)).objectives == (objective,)


@pytest.mark.parametrize("rungs", [(), (0, 1), (-1,), (2, 1), (1, 1), (1.5,), 4000, "ab", None, (True,)], ids=str)
def test_rungs_must_rise(rungs: Any) -> None:
    assert f"but got {rungs!r}" in refusal(lambda: Asha(rungs))


@pytest.mark.parametrize("reduction", [1, 0, -2])
def test_a_reduction_must_reduce(reduction: int) -> None:
    assert f"but got {reduction}" in refusal(lambda: Asha((1,), reduction))


@pytest.mark.parametrize("name", ["trials", "images", "gpu_hours", "hours"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_budget_is_above_zero(name: str, value: float) -> None:
    assert refusal(lambda: Budget(**{name: value})) == f"budget.{name} must be above 0, but got {value}"


@pytest.mark.parametrize(("name", "value"), [("times", 1), ("minutes", 0), ("start_minutes", float("inf"))])
def test_patience_has_an_end(name: str, value: float) -> None:
    assert f"patience.{name} must be a finite number above" in refusal(lambda: Patience(**{name: value}))


def test_a_small_model_may_take_a_part_of_a_gpu() -> None:
    assert Resources(gpus=0.25).gpus == 0.25
    assert Resources(workers=4, gpus=1).workers == 4


# ------------------------------------------------------------------------------------------------ search files

FILE = """
from pixeltune import SearchSpace, TrialConfig
search = SearchSpace(
    base=TrialConfig.build(
        {"data": {"name": "digits"}, "model": {"family": "gated"}, "likelihood": {"name": "categorical"}}
    )
)
"""


def test_a_search_is_loaded_by_name_or_path(tmp_path: Path) -> None:
    assert load_search("digits_quick") == load_search(search_path("digits_quick"))
    path = tmp_path / "my search.py"
    path.write_text(FILE, encoding="utf-8")
    assert load_search(path).base.model.family == "gated"
    assert load_search(str(path)) == load_search(path)


@pytest.mark.parametrize(
    ("name", "nearest"), [("digits_quik", "digits_quick"), ("zzz", None), ("", None), ("../x", None)]
)
def test_an_unknown_name_lists_the_known_ones(name: str, nearest: str | None) -> None:
    words = refusal(lambda: load_search(name))
    assert repr(name) in words
    for known in list_searches():
        assert known in words
    assert ("did you mean" in words) == (nearest is not None)
    if nearest:
        assert f"did you mean {nearest}?" in words


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("search = (", "stops with SyntaxError"),
        ("import no_such_module", "stops with ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise ValueError('first\\nsecond')", "stops with ValueError: first"),
        ("1 / 0", "stops with ZeroDivisionError"),
        ("", "must define `search = SearchSpace(...)`"),
        ("search = 3", "must define `search = SearchSpace(...)`"),
        (FILE.replace('"gated"', '"gatde"'), "`model.family` must be one of"),
        (FILE.replace('"model"', '"modle"'), "unknown key `modle`; did you mean `model`?"),
        (FILE.replace("search =", "search = 1,"), "must define"),
        ("\0", "stops with"),
    ],
    ids=str,
)
def test_a_bad_search_file_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(content, encoding="utf-8")
    got = refusal(lambda: load_search(path))
    assert words in got
    assert str(path) in got


def test_a_missing_search_file_is_named(tmp_path: Path) -> None:
    assert "there is none at" in refusal(lambda: load_search(tmp_path / "none.py"))
    (tmp_path / "folder.py").mkdir()
    assert "there is none at" in refusal(lambda: load_search(tmp_path / "folder.py"))


# ------------------------------------------------------------------------------------------------- numbers of the parts

WHOLE = [
    (Budget, "trials", {}),
    (Budget, "images", {}),
    (Asha, "reduction", {"rungs": (1600,)}),
    (Median, "grace", {}),
    (Median, "completed", {}),
    (Resources, "workers", {}),
    (Resources, "cpus", {}),
    (space, "keep", {}),
    (space, "seed", {}),
]
REAL = [
    (Budget, "gpu_hours", {}),
    (Budget, "hours", {}),
    (Pareto, "margin", {"rungs": (1600,)}),
    (Resources, "gpus", {}),
    (Patience, "times", {}),
    (Patience, "minutes", {}),
    (Patience, "start_minutes", {}),
]


@pytest.mark.parametrize(("part", "name", "others"), WHOLE, ids=lambda item: getattr(item, "__name__", str(item)))
def test_whole_numbers_of_numpy_are_taken_and_floats_are_not(
    part: Callable[..., Any], name: str, others: dict[str, Any]
) -> None:
    taken = getattr(part(**others, **{name: np.int64(3)}), name)
    assert (taken, type(taken)) == (3, int)
    for value, words in (
        (2.0, "must be a whole number, but got 2.0; write 2"),
        (np.float32(2), "must be a whole number, but got 2.0; write 2"),
        (2.5, "must be a whole number, but got 2.5"),
        (True, "must be a whole number, but got True"),
        (np.True_, "must be a whole number, but got True"),
        ("3", "must be a whole number, but got '3'"),
        ([3], "must be a whole number, but got [3]"),
        (-2, "-2"),
    ):
        if (name, value) != ("seed", -2):
            assert words in refusal(lambda value=value: part(**others, **{name: value}))
    refusal(lambda: part(**others, **{name: float("nan")}))
    refusal(lambda: part(**others, **{name: float("inf")}))
    if name != "images":
        assert f"{name} must be a whole number, but got None" in refusal(lambda: part(**others, **{name: None}))


@pytest.mark.parametrize(("part", "name", "others"), REAL, ids=lambda item: getattr(item, "__name__", str(item)))
def test_numbers_of_numpy_are_taken_and_what_is_none_is_not(
    part: Callable[..., Any], name: str, others: dict[str, Any]
) -> None:
    for value, kind in ((np.float32(1.0), float), (np.int64(1), int)):
        value = value if name != "times" else value + value
        taken = getattr(part(**others, **{name: value}), name)
        assert (taken, type(taken)) == (value, kind)
    for value in (True, np.True_, "1", [1]):
        assert "must be a number, but got " in refusal(lambda value=value: part(**others, **{name: value}))
    for value in (float("nan"), float("inf"), -1):
        refusal(lambda value=value: part(**others, **{name: value}))


def test_rungs_bounds_and_galleries_are_plain_numbers_too() -> None:
    assert type(Asha(rungs=(np.int64(1600),)).rungs[0]) is int
    assert type(Pareto(rungs=[np.int32(1600)], margin=1).rungs) is tuple
    assert type(space(constraints={"gpu_seconds": np.int64(5)}).constraints["gpu_seconds"]) is int
    assert type(space(galleries=(np.float32(1.5),)).galleries[0]) is float
    for rungs in ((1600.0,), (True,), ("1600",), (float("nan"),)):
        refusal(lambda rungs=rungs: Asha(rungs=rungs))
    for epochs in ((float("nan"),), ("1",), (float("inf"),), (-1,), (True,), [1.0]):
        assert "galleries must be" in refusal(lambda epochs=epochs: space(galleries=epochs))
    assert space().override({"budget.trials": np.int64(7)}).budget.trials == 7


# ------------------------------------------------------------------------------------------------------ types of values

KINDS: list[tuple[str, BaseDistribution, Any, list[Any]]] = [
    ("model.dropout", CategoricalDistribution([0, 0.25]), 0.25, [0.0, 0.25]),
    ("optim.ema", CategoricalDistribution([0, 0.0, 0.5]), 0.0, [0.0, 0.5]),
    ("optim.clip", CategoricalDistribution([None, 1]), None, [None, 1.0]),
    ("optim.weight_decay", IntDistribution(0, 2), 0.0, [0, 1, 2]),
    ("optim.warmup", FloatDistribution(0.0, 0.3, step=0.1), 0.0, [0.0, 0.1, 0.2, 0.3]),
    ("model.layers", CategoricalDistribution([1, 4]), 4, [1, 4]),
    ("train.compile", CategoricalDistribution([False, True]), False, [False, True]),
    ("train.precision", CategoricalDistribution(["auto", "float32"]), "auto", ["auto", "float32"]),
    ("seed", IntDistribution(1, 2), 1, [1, 2]),
]


@pytest.mark.parametrize(("key", "distribution", "base", "values"), KINDS, ids=str)
def test_a_value_has_one_type_when_it_is_drawn_stored_read_and_compared(
    key: str, distribution: BaseDistribution, base: Any, values: list[Any]
) -> None:
    """A whole number among floats was 0 in the space and 0.0 in the rows, and the report did not find it."""
    mine = SearchSpace(base=BASE.override({key: base}), vary={key: distribution})
    assert [typed(one[key]) for one in mine.configurations()] == [typed(value) for value in values]
    assert mine.num_configurations == len(values)
    for value in values:
        stored = mine.configure({key: value}).flat()
        assert typed(mine.suggestion_of(stored)[key]) == typed(value)
        drawn = mine.suggest(FixedTrial({key: value}))
        assert typed(drawn[key]) == typed(value)
        assert drawn == mine.suggestion_of(stored)
    assert typed(mine.base_suggestion()[key]) in [typed(value) for value in values]


def typed(value: Any) -> tuple[Any, str]:
    return value, type(value).__name__


def test_numbers_of_numpy_among_choices_are_python_s() -> None:
    with pytest.warns(UserWarning, match="Choices for a categorical distribution"):
        choices = CategoricalDistribution([np.int64(2), np.int64(4)])
    mine = SearchSpace(base=BASE, vary={"model.layers": choices})
    assert [typed(one["model.layers"]) for one in mine.configurations()] == [(2, "int"), (4, "int")]


def test_a_step_is_counted_however_it_is_rounded() -> None:
    """0.1 + 6 × 0.1 is not 0.7: a value that was drawn must be one that is listed."""
    mine = SearchSpace(
        base=BASE.override({"optim.ema": 0.1}), vary={"optim.ema": FloatDistribution(0.1, 0.7, step=0.1)}
    )
    listed = {one["optim.ema"] for one in mine.configurations()}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = {mine.suggest(study.ask())["optim.ema"] for _ in range(60)}
    assert drawn == listed
    assert len(listed) == 7


@pytest.mark.parametrize(
    ("vary", "count"),
    [
        ({}, 1),
        ({"optim.lr": FloatDistribution(1e-3, 1e-3)}, 1),
        ({"optim.lr": FloatDistribution(1e-3, 1e-2)}, None),
        ({"model.layers": IntDistribution(2, 6, log=True), "seed": IntDistribution(0, 9)}, 50),
        ({"likelihood.name": VARY["likelihood.name"], "likelihood.mixtures": IntDistribution(2, 8)}, 9),
        ({**VARY, "optim.lr": CategoricalDistribution([1e-3])}, 5 * 9),
        (
            {**VARY, "optim.lr": CategoricalDistribution([1e-3])}
            | {key: value for key, value in FAMILIES_TOO.items() if key not in VARY},
            (1 + 3) * 5 * 9,
        ),
    ],
    ids=str,
)
def test_configurations_are_counted(vary: dict[str, BaseDistribution], count: int | None) -> None:
    """mixtures exists for logistic_mixture alone, first_kernel_size for pixelcnn alone."""
    mine = SearchSpace(base=BASE.override({"optim.lr": 1e-3, "likelihood.name": "categorical"}), vary=vary)
    assert mine.num_configurations == count
    every = [tuple(sorted(mine.configure(one).flat().items(), key=str)) for one in mine.configurations()]
    assert len(set(every)) == len(every) == (count or 0)


def test_a_search_file_that_changes_within_a_second_is_read_again(tmp_path: Path) -> None:
    """Python's bytecode is found by the second and the size of its source, which do not change here."""
    file = tmp_path / "mine.py"
    for layers in (2, 3):
        file.write_text(
            "from tests.support.toy_search import toy_config, toy_space\n"
            f'search = toy_space(base=toy_config().override({{"model.layers": {layers}}}))\n'
        )
        os.utime(file, (1_000_000_000, 1_000_000_000))
        assert load_search(file).base.model.layers == layers
