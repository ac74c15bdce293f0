from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pixeltune.config import DISCRIMINATORS, FAMILIES, KEYS_NOT_HASHED, LIKELIHOODS, GatedConfig, TrialConfig
from pixeltune.errors import ConfigError
from tests.support.config_strategies import PAIRS, TEXT, configs, field_of, nested, smallest

seeded = settings(max_examples=40, deadline=None, derandomize=True)


@given(config=configs(), start=st.sampled_from(PAIRS))
@seeded
def test_flat_keys_bring_any_configuration_back(config: TrialConfig, start: tuple[str, str]) -> None:
    flat = config.flat()
    assert TrialConfig.build(nested(flat)) == config
    assert config.override({}) == config
    assert smallest(*start).override(flat) == config
    assert smallest(*start).override(dict(reversed(flat.items()))) == config


@given(config=configs(), data=st.data())
@seeded
def test_an_override_by_its_own_values_changes_nothing(config: TrialConfig, data: st.DataObject) -> None:
    keys = data.draw(st.sets(st.sampled_from(list(config.flat()))))
    again = config.override({key: config.flat()[key] for key in keys})
    assert again == config
    assert again.key() == config.key()


@given(config=configs())
@seeded
def test_toml_and_json_bring_any_configuration_back(config: TrialConfig) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.toml"
        path.write_text(config.to_toml(), encoding="utf-8")
        assert TrialConfig.from_toml(path) == config
    assert TrialConfig.model_validate_json(config.model_dump_json()) == config


@given(config=configs())
@seeded
def test_what_differs_from_the_defaults_is_all_that_must_be_told(config: TrialConfig) -> None:
    changed = config.changed()
    assert {"data.name", "model.family", "likelihood.name"} <= changed.keys()
    again = TrialConfig.build(nested(changed))
    assert again == config
    assert again.key() == config.key()


@given(config=configs(), path=st.none() | TEXT, download=st.booleans())
@seeded
def test_the_key_does_not_say_where_the_data_lies(config: TrialConfig, path: str | None, download: bool) -> None:
    moved = config.override({"data.path": path, "data.download": download})
    assert moved.key() == config.key()
    assert len(config.key()) == 12
    assert int(config.key(), 16) >= 0


@given(one=configs(), other=configs())
@seeded
def test_unlike_configurations_have_unlike_keys(one: TrialConfig, other: TrialConfig) -> None:
    def what(config: TrialConfig) -> dict[str, object]:
        return {key: value for key, value in config.flat().items() if key not in KEYS_NOT_HASHED}

    assert (one.key() == other.key()) == (what(one) == what(other))


def test_a_change_of_any_key_changes_the_key() -> None:
    config = smallest().override({"model.conditioning": "bias", "model.colour_order": "likelihood"})
    config = config.override({"likelihood.name": "logistic_mixture"})
    other_values = {"model.kernel_size": 7, "train.images": 32 * 7, "train.report_every": 32, "train.batch_size": 25}
    other_values["train.stop_after"] = 64
    told = {f"{section}.{name}" for section, name in DISCRIMINATORS.items()}
    free = [key for key in config.flat() if key not in told and key not in KEYS_NOT_HASHED]
    seen = {config.key()}
    for key in free:
        value = config.flat()[key]
        changed = config.override({key: other_values.get(key, _another(config, key, value))})
        assert changed.flat()[key] != value
        seen.add(changed.key())
    assert len(seen) == 1 + len(free)


def _another(config: TrialConfig, key: str, value: object) -> object:
    """A valid value unlike the default."""
    choices = getattr(field_of(config, key).annotation, "__args__", ())
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return next((choice for choice in choices if choice != value), "mnist")
    if isinstance(value, int):
        return value + 1
    if key == "data.fraction" or key == "optim.decay":
        return 0.5
    return 0.25 if float in choices or isinstance(value, float) else 4


def test_keys_of_earlier_versions_stay() -> None:
    """A golden value: results of years refer to it."""
    assert smallest("gated", "categorical").key() == "3f39d1b32961"
    assert smallest("gated", "categorical").override({"optim.lr": 0.25, "seed": 7}).key() == "ce00c04cde5b"


def test_a_new_option_with_its_default_leaves_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = smallest("gated").override({"model.layers": 3})

    class WithNewOption(GatedConfig):
        new_option: int = 3

    monkeypatch.setitem(FAMILIES, "gated", WithNewOption)
    after = smallest("gated").override({"model.layers": 3})
    assert after.flat()["model.new_option"] == 3
    assert after.key() == before.key()
    assert after.override({"model.new_option": 4}).key() != before.key()


@pytest.mark.parametrize(
    ("family", "variant", "other", "default"),
    [("pixelcnnpp", "full", "pixelcnn", "residual"), ("pixelcnn", "simple", "pixelcnnpp", "full")],
)
def test_another_family_has_variants_of_its_own(family: str, variant: str, other: str, default: str) -> None:
    config = smallest(family).override({"model.variant": variant, "model.layers": 3})
    changed = config.override({"model.family": other})
    assert (changed.flat()["model.variant"], changed.model.layers) == (default, 3)


@given(config=configs(), data=st.data())
@seeded
def test_another_family_keeps_the_shared_keys(config: TrialConfig, data: st.DataObject) -> None:
    family = data.draw(st.sampled_from([name for name in FAMILIES if name != config.model.family]))
    try:
        changed = config.override({"model.family": family})
    except ConfigError:
        assume(False)
    defaults = FAMILIES[family](family=family).model_dump()
    own = {"family", "variant"}
    kept = {key: value for key, value in config.model.model_dump().items() if key in defaults and key not in own}
    assert changed.model.model_dump() == defaults | kept | {"family": family}
    assert changed.likelihood == config.likelihood
    assert (changed.data, changed.optim, changed.train, changed.seed) == (
        config.data,
        config.optim,
        config.train,
        config.seed,
    )


@pytest.mark.parametrize(("old", "new"), list(itertools.permutations(LIKELIHOODS, 2)))
def test_another_likelihood_keeps_the_shared_keys(old: str, new: str) -> None:
    config = smallest("gated", old)
    changed = config.override({"likelihood.name": new})
    assert changed.likelihood == LIKELIHOODS[new](name=new)
    assert changed.model == config.model


def test_a_family_and_its_own_keys_change_together() -> None:
    config = smallest("gated").override({"model.first_kernel_size": 9, "model.layers": 4, "model.family": "pixelcnn"})
    assert config.model.model_dump() == FAMILIES["pixelcnn"]().model_dump() | {
        "first_kernel_size": 9,
        "layers": 4,
        "channels": 384,
        "kernel_size": 5,
        "head_channels": 0,
    }


def test_a_configuration_is_never_edited() -> None:
    config = smallest()
    before = config.model_dump_json()
    config.override({"model.layers": 3, "likelihood.name": "categorical"})
    assert config.model_dump_json() == before
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        config.model.layers = 3  # type: ignore[misc]


def test_seeds_are_independent_of_one_another() -> None:
    config = smallest()
    asked = [("init",), ("dropout", 0), ("dropout", 1), ("dropout", 1, 0), ("dropout", 11, 0), ("dropout", 1, 10)]
    seeds = [config.seed_for(*words) for words in asked] + [config.override({"seed": 1}).seed_for("init")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert config.seed_for("init") == smallest("pixelcnn").seed_for("init")
