"""Published sampling speeds of autoregressive image models: `published_speeds.csv`, one row a measurement.

Seconds of two machines do not compare; the speed-up against naive sampling of the same model and batch on the same
device does. Columns:

model, dataset, image_channels, image_height, image_width: what is sampled; pixels. `audio` is no image.
method: `naive` (one pass of the whole network for each step), `cached` (each feature is computed once), `fixed_point`
    (Jacobi iteration of the whole image), `jacobi_gauss_seidel` and `gauss_seidel_jacobi` (mixtures of both),
    `pixel_groups` (a model that draws groups of pixels at once: another distribution, not a faster exact method).
batch_size: images drawn together. device: as stated. seconds: for the batch.
speedup: naive seconds / seconds, both of the same model, batch and device; as stated, or the ratio of stated seconds.
year, title, arxiv, where, evidence, doubt: the source, as in `published.csv`. detail: what else was stated.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from importlib import resources

from pixeltune.errors import StoreError
from pixeltune.published.table import FieldReader, number_from, parsed, read_table, whole_from, word_of

METHODS = ("naive", "cached", "fixed_point", "jacobi_gauss_seidel", "gauss_seidel_jacobi", "pixel_groups")


@dataclass(frozen=True, kw_only=True)
class PublishedSpeed:
    """A row of `published_speeds.csv`; the module's docstring explains its columns. None where not stated."""

    model: str
    dataset: str
    image_channels: int | None
    image_height: int | None
    image_width: int | None
    method: str
    batch_size: int | None
    device: str | None
    seconds: float | None
    speedup: float | None
    year: int
    title: str
    arxiv: str | None
    where: str
    evidence: str
    detail: str | None
    doubt: str | None

    @property
    def images_per_second(self) -> float | None:
        """Return the images drawn per second by whole batches; None where seconds or batch are not stated."""
        return self.batch_size / self.seconds if self.batch_size and self.seconds else None


_NAMES = [field.name for field in fields(PublishedSpeed)]
_READERS: dict[str, FieldReader] = {
    **{name: whole_from(1).or_blank() for name in ("image_channels", "image_height", "image_width", "batch_size")},
    "method": word_of({method: method for method in METHODS}),
    "seconds": number_from(0).or_blank(),
    "speedup": number_from(0).or_blank(),
    "year": whole_from(1900, 2100),
}


@cache
def published_speeds() -> tuple[PublishedSpeed, ...]:
    """Return the table that is shipped with pixeltune."""
    text = resources.files("pixeltune.published").joinpath("published_speeds.csv").read_text(encoding="utf-8")
    return parse_speeds(text)


def parse_speeds(text: str) -> tuple[PublishedSpeed, ...]:
    """Read a table of the shipped form; a StoreError names the line and the column at fault."""
    name = "the published speeds"
    columns, lines = read_table(text, name)
    if columns != _NAMES:
        raise StoreError(f"{name} must have the columns {', '.join(_NAMES)}; got {columns}")
    return tuple(PublishedSpeed(**parsed(line, f"line {number} of {name}", _READERS)) for number, line in lines)
