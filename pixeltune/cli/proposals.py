"""The options for what a search tries: the sampler, first configurations, the values of a grid, and priors."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pixeltune.errors import ConfigError
from pixeltune.space import SAMPLERS

if TYPE_CHECKING:
    from pixeltune.space import SearchSpace


def add_proposals(parser: argparse.ArgumentParser) -> None:
    """Add --sampler, --first, --grid and --prior."""
    parser.add_argument("--sampler", choices=tuple(SAMPLERS), help="what proposes the trials [the search's own]")
    parser.add_argument(
        "--first",
        action="append",
        default=[],
        metavar="KEY=VALUE,…",
        help="a configuration to try right after the base, such as model.layers=6,optim.lr=2e-3; repeatable",
    )
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=VALUE,…",
        help="the values of a key that the sampler grid tries, such as optim.lr=1e-3,3e-3; repeatable",
    )
    parser.add_argument(
        "--prior",
        action="append",
        default=[],
        metavar="KEY=PRIOR",
        help="where the sampler tpe expects the best value of a key, such as 'optim.lr=LogNormal(1e-3, 2)'; repeatable",
    )


def with_proposals(space: SearchSpace, options: argparse.Namespace) -> SearchSpace:
    """Return the search with these options; those of a key replace what the search file has for it.

    Raises:
        ConfigError: An option is not of its form, or does not fit the search.
    """
    from pixeltune.space.priors import parse_prior

    grid = {key: _values(key, text) for key, text in map(_key_and_text, options.grid)}
    prior = {key: parse_prior(text) for key, text in map(_key_and_text, options.prior)}
    changes: dict[str, Any] = {} if options.sampler is None else {"sampler": options.sampler}
    changes |= {"grid": {**space.grid, **grid}} if grid else {}
    changes |= {"prior": {**space.prior, **prior}} if prior else {}
    space = replace(space, **changes) if changes else space
    return space.with_first([_configuration(text) for text in options.first])


def _key_and_text(text: str) -> tuple[str, str]:
    key, sign, value = (part.strip() for part in text.partition("="))
    if not sign or not key or not value:
        raise ConfigError(f"--grid and --prior must have the form key=…, but got {text!r}")
    return key, value


def _values(key: str, text: str) -> list[Any]:
    from pixeltune.config import parse_setting

    return [parse_setting(f"{key}={value}")[1] for value in text.split(",")]


def _configuration(text: str) -> Mapping[str, Any]:
    from pixeltune.config import parse_setting

    found: dict[str, Any] = {}
    for part in text.split(","):
        key, value = parse_setting(part)
        if key in found:
            raise ConfigError(f"--first must set each key once, but got `{key}` twice in {text!r}")
        found[key] = value
    return found
