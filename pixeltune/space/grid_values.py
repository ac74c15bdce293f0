"""The values of the sampler `grid`: lists for some keys, and every value of the distributions of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pixeltune.config import Scalar
from pixeltune.errors import ConfigError
from pixeltune.space.first_configurations import drawable, require_varied
from pixeltune.space.keys import value_text, values_of
from pixeltune.space.sampler_names import GRID

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def require_grid(
    sampler: str, grid: Mapping[str, Sequence[Any]], vary: Mapping[str, BaseDistribution]
) -> dict[str, tuple[Scalar, ...]]:
    """Return the lists of a grid with the values that trials draw.

    Raises:
        ConfigError: There is a list although the sampler is another one, a key is not varied, a list is empty, repeats
            a value or has one that no trial can draw, or a key with endlessly many values has no list.
    """
    if not isinstance(grid, Mapping):
        raise ConfigError(f'grid must map keys to lists of values, such as {{"optim.lr": [1e-3]}}, but got {grid!r}')
    if grid and sampler != GRID:
        raise ConfigError(f"grid must be of a search with sampler='{GRID}', but the sampler is {sampler}")
    require_varied("grid", grid, vary)
    lists = {key: _values(key, values, vary[key]) for key, values in grid.items()}
    endless = [key for key in vary if key not in lists and values_of(vary[key]) is None]
    if sampler == GRID and endless:
        raise ConfigError(
            f"the sampler {GRID} must have a list of values for each range without a step, but `{endless[0]}` has "
            f'none; give grid={{"{endless[0]}": [...]}}, or --grid {endless[0]}=VALUE,VALUE'
        )
    return lists


def grid_distributions(
    grid: Mapping[str, Sequence[Scalar]], vary: Mapping[str, BaseDistribution]
) -> dict[str, BaseDistribution]:
    """Return the varied keys, with the values of the grid as choices in their order."""
    from optuna.distributions import CategoricalDistribution

    return {key: CategoricalDistribution(grid[key]) if key in grid else kind for key, kind in vary.items()}


def _values(key: str, values: object, distribution: BaseDistribution) -> tuple[Scalar, ...]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise ConfigError(f"grid[{key!r}] must be a list of values, but got {values!r}")
    drawn: list[Scalar] = []
    for value in values:
        try:
            drawn.append(drawable(distribution, value))
        except ValueError as error:
            raise ConfigError(f"grid[{key!r}] must have values {error}") from None
        if drawn[-1] in drawn[:-1]:
            raise ConfigError(f"grid[{key!r}] must have each value once, but got {value_text(drawn[-1])} twice")
    if not drawn:
        raise ConfigError(f"grid[{key!r}] must have at least one value, but got none")
    return tuple(drawn)
