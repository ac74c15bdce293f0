"""`pixeltune config`: every key with its default, or a file as pixeltune reads it."""

from __future__ import annotations

import argparse
from typing import Any

from pixeltune.cli.common import EXIT_OK, add_settings, console, settings_of
from pixeltune.errors import ConfigError


def add_verb(verbs: Any) -> None:
    """Add `pixeltune config`."""
    parser = verbs.add_parser(
        "config",
        help="all keys with defaults and meaning, or a file as it is understood",
        examples=("pixeltune config --family pixelcnnpp", "pixeltune config --config model.toml --set optim.lr=1e-3"),
    )
    parser.add_argument("--config", metavar="FILE.toml", help="show this file")
    parser.add_argument(
        "--family",
        metavar="NAME",
        help="show a family's defaults [gated]",
    )
    parser.add_argument("--likelihood", metavar="NAME", help="with this likelihood [logistic_mixture]")
    add_settings(parser)
    parser.set_defaults(verb=show)


def show(options: argparse.Namespace) -> int:
    """Print a table of keys."""
    from pixeltune.config import TrialConfig
    from pixeltune.results.schema import config_columns, own_config_columns

    if options.config and (options.family or options.likelihood):
        raise ConfigError("--config already names family and likelihood; change them with --set")
    tree = {
        "data": {"name": "digits"},
        "model": {"family": options.family or "gated"},
        "likelihood": {"name": options.likelihood or "logistic_mixture"},
    }
    config = TrialConfig.from_toml(options.config) if options.config else TrialConfig.build(tree)
    config = config.override(settings_of(options))
    columns = config_columns() | own_config_columns(config)
    out = console()
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("key", "value", "unit", "meaning"):
        table.add_column(title)
    for key, value in config.flat().items():
        table.add_row(key, str(value), columns[key].unit, columns[key].description)
    out.print(table)
    return EXIT_OK
