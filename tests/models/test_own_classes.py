"""The contract of models for a family and a likelihood of a user's own, as the built-in ones fulfil it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import pixeltune as pt
from pixeltune.audit import audit
from pixeltune.config import ImageSpec, stored
from pixeltune.config.trial_config import TrialConfig
from pixeltune.errors import AuditError, ConfigError
from pixeltune.models import build_model
from tests.support.own_code import FAMILY, LEAKING_FAMILY, LIKELIHOOD, WARM, own_config, write_modules

FORM = ImageSpec(channels=3, height=8, width=8, levels=4, num_classes=3)
CASES: list[dict[str, Any]] = [
    {},
    {"likelihood__name": WARM},
    {"likelihood__name": WARM, "model__colour_order": "likelihood"},
    {"likelihood__name": "logistic_mixture", "model__split": 2, "model__conditioning": "map"},
]


@pytest.mark.parametrize("changes", CASES)
def test_it_is_built_audited_and_sampled_as_a_built_in_one(code_folder: Path, changes: dict[str, Any]) -> None:
    model = build_model(own_config(**changes), FORM).double().eval()
    assert audit(model).max_mass_error < 1e-9
    labels = torch.tensor([0, 1]) if model.config.model.conditioning != "none" else None
    fast = pt.sample(model, 2, labels=labels, seed=0, method="cached")
    slow = pt.sample(model, 2, labels=labels, seed=0, method="naive")
    assert torch.equal(fast, slow)


def test_its_initial_weights_are_fixed_by_the_seed(code_folder: Path) -> None:
    one, same, other = (build_model(own_config(seed=seed), FORM).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_leak_is_found(code_folder: Path) -> None:
    write_modules(code_folder, own_shallow=LEAKING_FAMILY)
    with pytest.raises(AuditError, match="must not depend on"):
        audit(build_model(own_config(), FORM))


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (
            {"own_shallow": FAMILY.replace("return Shallow", "return ShallowConfig")},
            r"network_class of own_shallow:ShallowConfig must return a subclass of torch\.nn\.Module, but returned <",
        ),
        (
            {"own_warm": LIKELIHOOD.replace("return Warm", "return None")},
            r"likelihood_class of own_warm:WarmConfig must return a subclass of .*Likelihood, but returned None",
        ),
        (
            {"own_shallow": FAMILY.replace("self.body = ", "self.nothing; self.body = ")},
            r"building the network of own_shallow:ShallowConfig must work, but raises AttributeError: .* has no "
            r"attribute 'nothing' \(own_shallow\.py:\d+ in __init__\); fix the module",
        ),
        (
            {"own_warm": LIKELIHOOD.replace("    temperature: float = 1.0", "    warmth: float = 1.0")},
            r"building the likelihood of own_warm:WarmConfig must work, but raises TypeError: .*'temperature'",
        ),
    ],
)
def test_what_builds_nothing_is_refused_in_a_line(code_folder: Path, texts: dict[str, str], words: str) -> None:
    write_modules(code_folder, **texts)
    with pytest.raises(ConfigError, match=words):
        build_model(own_config(likelihood__name=WARM), FORM)


def test_a_configuration_that_was_only_read_builds_nothing(code_folder: Path) -> None:
    flat = own_config().flat()
    write_modules(code_folder)
    with stored():
        config = TrialConfig.from_flat(flat)
        with pytest.raises(ConfigError, match="was only read from results"):
            build_model(config, FORM)
