"""Ranges as text, and the reference of keys: every key, with bounds that are those that the code enforces."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune.config import FAMILIES, LIKELIHOODS, TrialConfig
from pixeltune.errors import ConfigError
from pixeltune.space import METRICS, SearchSpace
from pixeltune.space.key_reference import REQUIRED, KeyReference, config_reference, search_reference
from pixeltune.space.keys import range_text, value_text
from pixeltune.space.parts import SCHEDULERS, Budget, Patience, Resources

PAIRS = [(family, name) for family, kind in FAMILIES.items() for name in LIKELIHOODS if name in kind.likelihoods]


def _config(family: str = "gated", likelihood: str = "logistic_mixture") -> TrialConfig:
    return TrialConfig.build(
        {"data": {"name": "digits"}, "model": {"family": family}, "likelihood": {"name": likelihood}}
    )


@pytest.mark.parametrize(
    ("distribution", "text"),
    [
        (IntDistribution(2, 6), "2…6"),
        (IntDistribution(2, 6, step=2), "2…6 (step 2)"),
        (IntDistribution(8, 1024, log=True), "8…1024 (log)"),
        (IntDistribution(4, 4), "4"),
        (FloatDistribution(5e-4, 1e-2, log=True), "5e-4…1e-2 (log)"),
        (FloatDistribution(1.25e-4, 0.003, log=True), "1.25e-4…3e-3 (log)"),
        (FloatDistribution(0.1, 10.0, log=True), "0.1…10 (log)"),
        (FloatDistribution(0.0, 0.5), "0…0.5"),
        (FloatDistribution(0.0, 0.5, step=0.1), "0…0.5 (step 0.1)"),
        (FloatDistribution(-1e-7, 1e20), "-1e-7…1e20"),
        (CategoricalDistribution(["categorical", "logistic_mixture"]), "categorical | logistic_mixture"),
        (CategoricalDistribution([True, False, None]), "true | false | none"),
        (CategoricalDistribution([1, 2.5, "x"]), "1 | 2.5 | x"),
        (CategoricalDistribution(["bias"]), "bias"),
    ],
)
def test_a_range_is_short_and_plain(distribution: BaseDistribution, text: str) -> None:
    assert range_text(distribution) == text


@given(st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_no_digit_of_a_number_is_lost(value: float, has_exponent: bool) -> None:
    assert float(value_text(value, has_exponent=has_exponent)) == value


@pytest.mark.parametrize(("family", "likelihood"), PAIRS)
def test_every_key_of_a_configuration_is_described(family: str, likelihood: str) -> None:
    config = _config(family, likelihood)
    found = {each.key: each for each in config_reference(config)}
    assert list(found) == list(config.flat())
    for key, value in config.flat().items():
        assert found[key].meaning
        assert found[key].form
        assert found[key].default in (REQUIRED, value_text(value))
    assert {key for key, each in found.items() if each.default == REQUIRED} == {
        "data.name",
        "model.family",
        "likelihood.name",
    }


def _probes(reference: KeyReference) -> list[tuple[object, bool]]:
    """Return values at and beyond the ends of a range as text, with whether they must be taken."""
    number = int if reference.kind.startswith("whole") else float
    found: list[tuple[object, bool]] = []
    low, _, high = reference.values.partition("…")
    for text, outwards in ((low, -1), (high, 1)):
        if text:
            match = re.search(r"(-?[\d.]+(?:e-?\d+)?)(?:\^(\d+))?", text)
            assert match is not None, reference
            value = number(match[1]) ** int(match[2] or 1)
            is_open = any(word in text for word in (">", "above", "below"))
            found.append((value, not is_open))
            found.append((value + outwards, False))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ranges_are_those_that_are_enforced(family: str) -> None:
    config = _config(family)
    enforced = 0
    for reference in config_reference(config):
        if "number" not in reference.kind:
            continue
        for value, is_valid in _probes(reference):
            # A value in the range may still not fit other keys, such as a batch that does not divide the images.
            refusal = _refusal(config, reference.key, value)
            assert is_valid or refusal, f"{reference.key} takes {value}, outside of {reference.values}"
            assert not (is_valid and re.search("must be (greater|less)", refusal)), refusal
            enforced += not refusal
    assert enforced > 10


def test_choices_are_those_that_are_taken() -> None:
    config = _config()
    for reference in config_reference(config):
        if reference.kind == "choice" and reference.key not in ("model.family", "likelihood.name"):
            for choice in reference.values.removesuffix(" or none").split(" | "):
                assert "must be '" not in _refusal(config, reference.key, choice)
            assert "must be '" in _refusal(config, reference.key, "no-such-choice")


def _refusal(config: TrialConfig, key: str, value: object) -> str:
    """Return why a value is refused; "" where it is taken."""
    try:
        config.override({key: value})
    except ConfigError as error:
        return str(error)
    return ""


def test_every_field_of_a_search_part_has_a_key() -> None:
    keys = [each.key for each in search_reference()]
    assert len(keys) == len(set(keys))
    for section, kinds in {
        "budget": (Budget,),
        "resources": (Resources,),
        "patience": (Patience,),
        "scheduler": tuple(SCHEDULERS.values()),
    }.items():
        names = {f"{section}.{field.name}" for kind in kinds for field in dataclasses.fields(kind)}
        assert names == {key for key in keys if key.startswith(f"{section}.")}
    assert {key for key in keys if key.startswith("constraints.")} == {f"constraints.{name}" for name in METRICS}
    assert all(each.meaning and each.form for each in search_reference())


def test_defaults_and_ranges_of_a_search_are_those_that_are_enforced() -> None:
    space = SearchSpace(base=_config())
    for reference in search_reference():
        section, _, name = reference.key.partition(".")
        if section not in ("budget", "resources", "patience"):
            continue
        assert reference.default == value_text(getattr(getattr(space, section), name))
        for value, is_valid in _probes(reference):
            changes = {"resources.workers": 1, reference.key: value}
            if is_valid:
                assert getattr(getattr(space.override(changes), section), name) == value
            else:
                with pytest.raises(ConfigError):
                    space.override(changes)


def test_the_keys_of_a_search_are_taken() -> None:
    space = SearchSpace(base=_config())
    changed = space.override({"scheduler": "median", "scheduler.grace": 5, "constraints.num_parameters": 10})
    assert changed.scheduler == SCHEDULERS["median"](grace=5)  # type: ignore[call-arg]
    assert changed.constraints == {"num_parameters": 10}
