"""Images as uint8 levels: sources in a literal dict, seeded splits, one decoded copy a node.

A data set's way: `sources` names a reader -> `readers.*` decode a `RawData` -> `prepare` splits it and brings it to
the model's levels -> `cache` keeps the result as files that processes map -> `load_data` hands out a `DataSet`.
"""

from pixeltune.data.baseline import order0_bits_per_dim
from pixeltune.data.load import load_data
from pixeltune.data.raw import RawData
from pixeltune.data.resolve import Resolved, resolve
from pixeltune.data.sets import DataIdentity, DataSet, DynamicDraw, ImageSet
from pixeltune.data.sources import SOURCES, Source

__all__ = [
    "SOURCES",
    "DataIdentity",
    "DataSet",
    "DynamicDraw",
    "ImageSet",
    "RawData",
    "Resolved",
    "Source",
    "load_data",
    "order0_bits_per_dim",
    "resolve",
]
