"""The comparison of a row of ours with a published number: whether the two may be compared, and why not.

Two numbers of one task (images of one form, levels and binarised or not) differ by a gap that means something when read
together with `why_not`, such as validation against test; two numbers of different tasks do not.

Two numbers are comparable if data set and its version, split, levels, binarisation, exactness, conditioning and
augmentation agree. What the published source does not state is a caveat, not a mismatch; a version or binarisation that
is known to be unclear is a mismatch, because versions differ by 0.26 bits/dim and binarisations by about a nat.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any

from pixeltune.published.table import Exactness, PublishedResult, published_results
from pixeltune.published_sets import PUBLISHED_SETS
from pixeltune.results.ranking import is_unconfirmed

SOURCES: dict[str, str] = {name: each.dataset or name for name, each in PUBLISHED_SETS.items()}
"""Sources of ours that read a published set itself, with its name in the table."""

OWN_SOURCES = ("folder", "parquet", "array")
"""Sources of ours that read any files they are given; so does a function `package.module:function`."""

EDITIONS = ("original", "old", "new")
"""First words of a `data_version` that a source gives to the published files; any other value is a user's copy."""


_ARTICLES = {
    Exactness.EXACT: "exact",
    Exactness.LOWER_BOUND: "a bound",
    Exactness.IMPORTANCE_WEIGHTED: "an importance-weighted estimate",
    Exactness.DEQUANTISED: "a density of dequantised images",
    Exactness.ODE: "an estimate through an ODE",
}


@dataclass(frozen=True, kw_only=True)
class NumberSpec:
    """The data set, split and conditions that a number of ours belongs to.

    Attributes:
        dataset: The published set, None where there is none.
        is_guessed: Whether the set was inferred from the name of the user's files.
        is_published_set: Whether the images are those of the set, not a copy.
        published_draw: Whether they are binarised as published.
        fraction: Share of the training images that was used.
        checksum: Checksum of the images.
    """

    dataset: str | None
    is_published_set: bool
    published_draw: bool
    version: str
    channels: int
    height: int
    width: int
    levels: int
    binarisation: str
    split: str
    is_bound: bool
    conditional: bool
    augmented: bool
    fraction: float = 1.0
    is_guessed: bool = False
    checksum: str | None = None
    is_unconfirmed: bool = False


@dataclass(frozen=True)
class Comparability:
    """The result of a comparison. why_not: what differs; caveats: what is unknown or worth knowing."""

    why_not: tuple[str, ...]
    caveats: tuple[str, ...]

    @property
    def comparable(self) -> bool:
        """Return True only if nothing that matters differs."""
        return not self.why_not


def identity_of(row: Mapping[str, Any], own: Sequence[PublishedResult] = ()) -> NumberSpec:
    """Return the identity of a row of the results; columns that it lacks have their default.

    own: results that the user adds to the shipped ones; their data sets are known too.
    """
    name = str(row.get("data.name"))
    version = str(row.get("data_version") or "unknown").split()[0]
    hint = _hinted(row, (*published_results(), *own))
    named = name if name in {result.dataset for result in own} else None  # a source that the shipped table lacks
    return NumberSpec(
        dataset=SOURCES.get(name, hint or named),
        is_guessed=hint is not None,
        is_published_set=name in SOURCES and version in EDITIONS,
        published_draw=_published_binarisation(name) is not None,
        version=version,
        channels=int(row.get("image_channels") or 0),
        height=int(row.get("image_height") or 0),
        width=int(row.get("image_width") or 0),
        levels=int(row.get("levels") or 0),
        binarisation=_published_binarisation(name) or row.get("data.binarise") or "none",
        split=row.get("evaluated_split") or "valid",
        is_bound=bool(row.get("is_bound")),
        conditional=(row.get("model.conditioning") or "none") != "none",
        augmented=bool(row.get("data.flip")),
        fraction=1.0 if row.get("data.fraction") is None else float(row["data.fraction"]),
        checksum=row.get("data_checksum"),
        is_unconfirmed=is_unconfirmed(row),
    )


def _published_binarisation(source: str) -> str | None:
    """Return how a source's images were binarised when they were published; None for grey levels."""
    published = PUBLISHED_SETS.get(source)
    return None if published is None or published.binarisation == "none" else published.binarisation


def check_comparable(ours: NumberSpec, published: PublishedResult) -> Comparability:
    """Compare two numbers in all respects that matter."""
    return Comparability(tuple(_mismatches(ours, published)), tuple(_caveats(ours, published)))


def published_for(ours: NumberSpec, own: Sequence[PublishedResult] = ()) -> list[PublishedResult]:
    """Return the published results of the data set of `ours`; own: those that the user adds."""
    return [result for result in (*published_results(), *own) if _is_of_the_set(ours, result)]


def is_same_task(ours: NumberSpec, published: PublishedResult) -> bool:
    """Return whether both describe images of the same form and levels, binarised or not: only then is there a gap."""
    return (
        _form(ours) == _published_form(published)
        and ours.levels == published.levels
        and (ours.binarisation == "none") == (published.binarisation == "none")
    )


def has_gap(ours: NumberSpec, published: PublishedResult) -> bool:
    """Return whether a difference to the published value means anything: the same task, and more than a limit."""
    return is_same_task(ours, published) and not published.upper_limit


def is_near(ours: NumberSpec, published: PublishedResult) -> bool:
    """Return whether both are of the same task, and binarised in the same way."""
    return is_same_task(ours, published) and ours.binarisation == published.binarisation


def _is_of_the_set(ours: NumberSpec, published: PublishedResult) -> bool:
    return published.dataset == ours.dataset or _are_same_images(ours, published)


def _are_same_images(ours: NumberSpec, published: PublishedResult) -> bool:
    return published.data_checksum is not None and published.data_checksum == ours.checksum


def _hinted(row: Mapping[str, Any], results: Sequence[PublishedResult]) -> str | None:
    """Return the published set that the user's files may be a copy of, by a word of their name and the images' form.

    Only the last part of the path counts, or the function's name; the other sources name their set themselves.
    """
    name, path = str(row.get("data.name")), str(row.get("data.path") or "")
    if name not in OWN_SOURCES and ":" not in name:
        return None
    last_parts = PureWindowsPath(path).name, name.partition(":")[2]
    words = set(re.split("[^a-z0-9]+", " ".join(last_parts).lower()))
    if "fashion" in words:  # Fashion-MNIST has the form of MNIST
        return None
    form = row.get("image_channels"), row.get("image_height"), row.get("image_width")
    for result in results:
        if result.dataset in words and form == _published_form(result):
            return result.dataset
    return None


def _form(ours: NumberSpec) -> tuple[int, int, int]:
    return ours.channels, ours.height, ours.width


def _published_form(published: PublishedResult) -> tuple[int, int, int]:
    return published.channels, published.image_height, published.image_width


def _mismatches(ours: NumberSpec, published: PublishedResult) -> Iterator[str]:
    yield from _set_mismatch(ours, published)
    yield from _split_mismatch(ours, published)
    yield from _form_mismatch(ours, published)
    yield from _binarisation_mismatch(ours, published)
    if ours.is_unconfirmed:
        yield "its bits are not those of a real code"
    exactness = Exactness.LOWER_BOUND if ours.is_bound else Exactness.EXACT
    if exactness is not published.likelihood:
        yield f"ours is {_ARTICLES[exactness]}, theirs is {_ARTICLES[published.likelihood]}"
    if published.upper_limit:
        yield f"published only as below {published.value:g}"
    if published.conditional is not None and ours.conditional != published.conditional:
        yield "class-conditional, the published is not" if ours.conditional else "published is class-conditional"
    if published.augmentation is not None and ours.augmented != published.augmentation:
        yield "augmented, the published is not" if ours.augmented else "published with augmentation"


def _set_mismatch(ours: NumberSpec, published: PublishedResult) -> Iterator[str]:
    if published.data_checksum is not None:
        if not _are_same_images(ours, published):
            yield f"images of checksum {ours.checksum}, not {published.data_checksum}"
        return
    if ours.is_guessed:
        yield f"possibly a copy of {ours.dataset}, not the published set"
    elif not ours.is_published_set:
        yield "own copy of the data, not the published set"
    yield from _version_mismatch(ours, published)


def _version_mismatch(ours: NumberSpec, published: PublishedResult) -> Iterator[str]:
    if published.version == "unclear":
        yield "version of the published set unclear"
    elif published.version is not None and ours.is_published_set and ours.version != published.version:
        yield f"{ours.version} version of the set, not the {published.version} one"


def _split_mismatch(ours: NumberSpec, published: PublishedResult) -> Iterator[str]:
    if ours.split != "test":
        yield "validation, not test"
    if published.split != published.test_split:
        yield f"published on the {published.split} split"


def _form_mismatch(ours: NumberSpec, published: PublishedResult) -> Iterator[str]:
    form, theirs = _form(ours), _published_form(published)
    if form != theirs:
        yield f"images {'×'.join(map(str, form))}, not {'×'.join(map(str, theirs))}"
    if ours.levels != published.levels:
        yield f"{ours.levels} levels, not {published.levels}"


def _binarisation_mismatch(ours: NumberSpec, published: PublishedResult) -> Iterator[str]:
    if published.binarisation == "unclear":
        yield "binarisation of the published set unclear"
    elif ours.binarisation != published.binarisation:
        yield f"binarisation {ours.binarisation}, not {published.binarisation}"
    elif ours.binarisation == "static" and ours.is_published_set and not ours.published_draw:
        yield "other draw of the binarisation"


def _caveats(ours: NumberSpec, published: PublishedResult) -> Iterator[str]:
    if published.conditional is None:
        yield "conditioning not stated"
    if published.augmentation is None:
        yield "augmentation not stated"
    is_stated = published.version is not None or published.data_checksum is not None
    if not is_stated and ours.is_published_set and ours.version != "original":
        yield "version of the set not stated"
    if published.version_inferred:
        yield "version of the published set inferred"
    if published.binarisation == "dynamic":
        yield "each paper draws its own test pixels"
    if published.likelihood_detail:
        yield published.likelihood_detail
    if published.evidence == "secondary":
        yield "as printed by another paper"
    if published.evidence == "own":
        yield "from your own table"
    if published.doubt:
        yield published.doubt
    if ours.fraction < 1.0:
        with_valid = ", and on validation" if ours.split == "test" else ""  # as `final` does
        yield f"trained on {ours.fraction:.3g} of the training images{with_valid}"
