"""The command of a report gives a search the same first configurations, grid and priors again."""

from __future__ import annotations

from typing import Any

import pytest

from pixeltune.cli.proposals import with_proposals
from pixeltune.cli.search import launch_line
from pixeltune.report.sections.commands import _proposals
from pixeltune.results.manifest import SearchManifest
from pixeltune.space import ChoiceWeights, LogNormal
from tests.support.toy_search import toy_space

FIRST = [{"model.layers": 5}, {"likelihood.name": "logistic_mixture", "likelihood.mixtures": 4, "optim.lr": 1 / 300}]


@pytest.mark.parametrize(
    "changes",
    [
        {"first": FIRST},
        {"sampler": "grid", "grid": {"optim.lr": [1 / 300, 0.02], "likelihood.name": ["logistic_mixture"]}},
        {
            "prior": {
                "optim.lr": LogNormal(1 / 300, 2, confidence=30),
                "likelihood.name": ChoiceWeights({"categorical": 1, "logistic_mixture": 2}),
            },
        },
    ],
    ids=["first", "grid", "prior"],
)
def test_the_options_give_the_same_search(changes: dict[str, Any]) -> None:
    """Of a file that lacks them, and of the file that has them."""
    space = toy_space(**changes)
    manifest = SearchManifest.of(space, "toy")
    plain = toy_space(vary=space.vary)
    options = launch_line().parse_args(["--sampler", space.sampler, *_proposals(manifest)])
    for file in (plain, space):
        again = SearchManifest.of(with_proposals(file, options), "toy")
        assert again.difference(manifest) == []
        assert again.first == manifest.first
    read = SearchManifest.from_json(manifest.to_json())
    assert read.difference(manifest) == []
    assert read.first == manifest.first
