"""Every data set of the table of published results has a source, or a reason why it has none."""

from __future__ import annotations

from typing import Any

import pytest

from pixeltune.data import SOURCES
from pixeltune.published import comparability
from pixeltune.published.table import Exactness, PublishedResult, published_results
from pixeltune.published_sets import NO_SOURCE, PUBLISHED_SETS, PublishedSet

DATASETS = sorted({result.dataset for result in published_results()})
MATCHABLE = [
    result
    for result in published_results()
    if result.dataset not in NO_SOURCE
    and result.likelihood in (Exactness.EXACT, Exactness.LOWER_BOUND)
    and "unclear" not in (result.version, result.binarisation)
    and not result.upper_limit
]


def row_of(edition: PublishedSet, published: PublishedResult) -> dict[str, Any]:
    """A row of `final` on this edition, binarised as the published result where the images have grey levels."""
    drawn = edition.levels > 2 and published.levels == 2
    channels, height, width = edition.shape
    return {
        "data.name": edition.name,
        "data_version": edition.version,
        "data.binarise": published.binarisation if drawn else "none",
        "image_channels": channels,
        "image_height": height,
        "image_width": width,
        "levels": 2 if drawn else edition.levels,
        "evaluated_split": "test",
    }


def reasons(edition: PublishedSet, published: PublishedResult) -> list[str]:
    """What differs in the images: all else is the model's."""
    ours = comparability.identity_of(row_of(edition, published))
    if ours.dataset != published.dataset:
        return ["another data set"]
    about_models = ("a bound", "the exact likelihood", "exact", "class-conditional", "augment", "published on the")
    return [
        why
        for why in comparability.check_comparable(ours, published).why_not
        if not any(word in why for word in about_models)
    ]


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_published_data_set_has_a_source_or_a_reason(dataset: str) -> None:
    sources = [name for name, of in comparability.SOURCES.items() if of == dataset]
    assert bool(sources) != (dataset in NO_SOURCE)
    assert all(name in SOURCES for name in sources)
    assert NO_SOURCE.get(dataset, "reason")


def test_every_source_that_comparisons_know_exists_and_states_what_it_reads() -> None:
    assert comparability.SOURCES.keys() == PUBLISHED_SETS.keys()
    assert {name for name, source in SOURCES.items() if source.published} == set(PUBLISHED_SETS)
    for name, published in PUBLISHED_SETS.items():
        known = SOURCES[name].published
        assert known is published
        assert all(edition.name == name for edition in published.editions)
    assert not set(NO_SOURCE) & {*comparability.SOURCES, *comparability.SOURCES.values()}
    assert set(comparability.OWN_SOURCES) == {name for name, source in SOURCES.items() if source.published is None}


@pytest.mark.parametrize("published", MATCHABLE, ids=lambda row: f"{row.dataset} {row.model} {row.split}")
def test_the_images_of_a_published_number_can_be_trained_on(published: PublishedResult) -> None:
    every = [edition for each in PUBLISHED_SETS.values() for edition in each.editions]
    same = [edition for edition in every if not reasons(edition, published)]
    assert same, min((reasons(edition, published) for edition in every), key=len)
    # A version of ImageNet, and the draw of MNIST, are one edition's alone.
    if published.version is not None or published.binarisation == "static":
        assert len(same) == 1


@pytest.mark.parametrize(
    ("name", "version", "fits"),
    [
        ("mnist_static", "original", True),
        ("mnist_static", "altered", False),
        ("mnist", "original", False),
        ("mnist", "altered", False),
    ],
)
def test_only_the_published_draw_compares_with_static_mnist(name: str, version: str, fits: bool) -> None:
    static = next(row for row in MATCHABLE if row.dataset == "mnist" and row.binarisation == "static")
    row = row_of(PUBLISHED_SETS[name], static) | {"data_version": version}
    assert (
        not [
            why
            for why in comparability.check_comparable(comparability.identity_of(row), static).why_not
            if "bound" not in why
        ]
    ) == fits
