"""Random numbers as a function of (seed, stream, counters): the same in any order, batch, process and numpy version.

SplitMix64 (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195) read by counter. numpy's generators hand out one
sequence an object, so a pixel's draw would depend on its batch, and their permutations may change between versions.
"""

from __future__ import annotations

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def keys(seed: int, stream: str, *counters_N: np.ndarray) -> np.ndarray:
    """Return (N,) uint64, a key for each tuple of counters (each (N,), non-negative) in the stream of that name."""
    start = int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:8], "little")
    keys_N = np.full(len(counters_N[0]), start, dtype=np.uint64)
    for counter_N in counters_N:
        keys_N = _mix(keys_N + _GOLDEN * _ordinal(counter_N))
    return keys_N


def below(keys_N: np.ndarray, count: int, limit: int) -> np.ndarray:
    """Draw (N, count) uint64, uniform over 0..limit-1 (limit at most 2^32; biased by less than limit/2^32)."""
    bits: np.ndarray = _mix(keys_N[:, None] + _GOLDEN * _ordinal(np.arange(count))[None, :])
    return ((bits >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)


def permutation(seed: int, stream: str, count: int) -> np.ndarray:
    """Draw (count,) int64, a random order of 0..count-1."""
    order: np.ndarray = np.argsort(keys(seed, stream, np.arange(count)), kind="stable")
    return order


def _ordinal(counter_N: np.ndarray) -> np.ndarray:
    ordinal_N: np.ndarray = np.asarray(counter_N).astype(np.uint64) + np.uint64(1)
    return ordinal_N


def _mix(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    mixed: np.ndarray = bits ^ (bits >> np.uint64(31))
    return mixed
