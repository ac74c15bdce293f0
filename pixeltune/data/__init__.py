"""Images as uint8 levels: sources in a literal dict, seeded splits, one decoded copy a node.

A data set's way: `sources` names a reader -> `readers.*` decode a `RawData` -> `prepare` splits it and brings it to
the model's levels -> `cache` keeps the result as files that processes map -> `load_data` hands out a `DataSet`.
`outline_of` has the form and the split sizes of a published data set also where its images are not on this machine.
"""

from pixeltune.data.baseline import order0_bits_per_dim
from pixeltune.data.dataset import DataIdentity, DataSet, DynamicDraw, ImageSet
from pixeltune.data.load import load_data
from pixeltune.data.outline import DataOutline, outline_of
from pixeltune.data.raw import RawData
from pixeltune.data.resolve import Resolved, ResolvedOutline, resolve, resolve_outline
from pixeltune.data.sources import SOURCES, Source

__all__ = [
    "SOURCES",
    "DataIdentity",
    "DataOutline",
    "DataSet",
    "DynamicDraw",
    "ImageSet",
    "RawData",
    "Resolved",
    "ResolvedOutline",
    "Source",
    "load_data",
    "order0_bits_per_dim",
    "outline_of",
    "resolve",
    "resolve_outline",
]
