"""What a search optimises or bounds: columns of a trial's row."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

from pixeltune.errors import ConfigError

METRICS: dict[str, str] = {
    "valid_bits_per_dim": "minimize",
    "valid_nats": "minimize",
    "gpu_seconds": "minimize",
    "train_seconds": "minimize",
    "num_parameters": "minimize",
    "network_calls": "minimize",
    "sample_images_per_second": "maximize",
    "peak_memory_bytes": "minimize",
}
"""What a search can optimise, and in which direction: columns of a trial's row."""

GROWS = ("gpu_seconds", "train_seconds")
"""What a trial spends more of the longer it trains."""

KNOWN_EARLY = (*GROWS, "peak_memory_bytes", "num_parameters", "network_calls", "sample_images_per_second")
"""What a running trial cannot bring back within its bound: spent, or fixed when the model was built."""


def sign(metric: str) -> int:
    """Return 1 where less of a metric is better, and −1 where more is."""
    return sign_of_direction(METRICS[metric])


def sign_of_direction(direction: str) -> int:
    """Return 1 for `minimize` and −1 for `maximize`."""
    return 1 if direction == "minimize" else -1


def require_constraints(constraints: object) -> None:
    """Refuse what is no mapping of metrics to finite bounds."""
    if not isinstance(constraints, Mapping):
        raise ConfigError(f"constraints must map metrics to bounds, but got {constraints!r}")
    for name, bound in constraints.items():
        if name not in METRICS:
            raise ConfigError(f"constraints must be of {', '.join(METRICS)}, but got {name!r}")
        if isinstance(bound, bool) or not isinstance(bound, numbers.Real) or not math.isfinite(bound):
            raise ConfigError(f"constraints[{name!r}] must be a number, but got {bound!r}")


def replaced_constraints(constraints: Mapping[str, float], changes: Mapping[str, Any]) -> dict[str, float]:
    """Return the constraints with `constraints.*` changed; None removes one."""
    mine = {key.partition(".")[2]: value for key, value in changes.items() if key.partition(".")[0] == "constraints"}
    return {name: bound for name, bound in (dict(constraints) | mine).items() if bound is not None}


def violations(constraints: Mapping[str, float], row: Mapping[str, Any]) -> dict[str, float]:
    """Return how far each metric of `row` is beyond its bound, in shares of it; 0 or less where it holds.

    A bound is the most that a metric may be, or the least where it is maximised. Metrics that the row lacks are left
    out.
    """
    found = {}
    for name, bound in constraints.items():
        value = row.get(name)
        if value is not None:
            beyond = sign(name) * value - sign(name) * bound
            found[name] = float(beyond / abs(bound) if bound else beyond)
    return found


def broken(constraints: Mapping[str, float], row: Mapping[str, Any], names: tuple[str, ...] = tuple(METRICS)) -> str:
    """Return the constraints among `names` that a row is known to break, in words; "" where there is none."""
    return "; ".join(
        f"{name} {_number(row[name])} {'above' if sign(name) > 0 else 'below'} {_number(constraints[name])}"
        for name, beyond in violations(constraints, row).items()
        if beyond > 0 and name in names
    )


def not_met(constraints: Mapping[str, float], row: Mapping[str, Any]) -> str:
    """Return the same of a trial that has ended, whose bounded metrics must also be known."""
    unknown = [f"{name} unknown" for name in constraints if row.get(name) is None]
    return "; ".join(filter(None, [broken(constraints, row), *unknown]))


def keeps_to(constraints: Mapping[str, float], row: Mapping[str, Any], *, has_ended: bool) -> bool:
    """Return whether a trial may be the best: of a running one as far as is known."""
    return not (not_met(constraints, row) if has_ended else broken(constraints, row))


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
