"""`pixeltune config`: every key with type, range, default and meaning; a file as it is read; a file to begin with."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_OK, add_settings, console, say, settings_of
from pixeltune.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

    from pixeltune.config import Scalar, TrialConfig
    from pixeltune.space.key_reference import KeyReference

_WIDE = 120
"""The columns of a terminal from which a type and range have a column of their own."""

_LINE = 100
"""The longest line of a comment in a template."""


def add_verb(verbs: Any) -> None:
    """Add `pixeltune config`."""
    parser = verbs.add_parser(
        "config",
        help="all keys with range, default and meaning, or a file as it is understood",
        examples=(
            "pixeltune config --family pixelcnnpp",
            "pixeltune config train",
            "pixeltune config --template gated > model.toml",
            "pixeltune config --config model.toml --set optim.lr=1e-3",
        ),
    )
    parser.add_argument("key", nargs="?", metavar="KEY", help="one key, or a section such as train or budget [all]")
    parser.add_argument("--config", metavar="FILE.toml", help="show this file")
    parser.add_argument(
        "--family",
        metavar="NAME",
        help="show a family's defaults [gated]",
    )
    parser.add_argument("--likelihood", metavar="NAME", help="with this likelihood [logistic_mixture]")
    parser.add_argument(
        "--template", metavar="FAMILY", help="write a commented file with a family's defaults, for pixeltune train"
    )
    add_settings(parser)
    parser.set_defaults(verb=show)


def show(options: argparse.Namespace) -> int:
    """Print a table of keys, or a template."""
    from pixeltune.space.key_reference import config_reference, search_reference

    _require_one_source(options)
    config = _config(options)
    if options.template:
        for line in template(config):
            say(line)
        return EXIT_OK
    references = config_reference(config)
    rest = [] if options.config else search_reference()
    if options.key:
        references, rest = ([each for each in part if _is_in(each.key, options.key)] for part in (references, rest))
        if not references and not rest:
            raise _unknown(options.key, [*config_reference(config), *search_reference()])
    out = console()
    if references:
        _print(out, references, config.flat())
    if rest:
        out.print("\nOf a search, in its file or by --set:" if references else "Of a search, in its file or by --set:")
        _print(out, rest, {})
    return EXIT_OK


def _require_one_source(options: argparse.Namespace) -> None:
    if options.config and (options.family or options.likelihood):
        raise ConfigError("--config already names family and likelihood; change them with --set")
    if options.template and (options.config or options.family or options.key):
        extra = "--config" if options.config else "--family" if options.family else "KEY"
        raise ConfigError(f"--template must be of a family and nothing else, but got {extra} too; leave one out")


def _config(options: argparse.Namespace) -> TrialConfig:
    from pixeltune.config import FAMILIES, TrialConfig

    if options.config:
        return TrialConfig.from_toml(options.config).override(settings_of(options))
    family = options.template or options.family or "gated"
    taken = FAMILIES[family].likelihoods if family in FAMILIES else ("logistic_mixture",)
    default = "logistic_mixture" if "logistic_mixture" in taken else taken[0]
    tree = {
        "data": {"name": "digits"},
        "model": {"family": family},
        "likelihood": {"name": options.likelihood or default},
    }
    return TrialConfig.build(tree).override(settings_of(options))


def _is_in(key: str, wanted: str) -> bool:
    """Return whether a key is the wanted one, or in the wanted section."""
    return key == wanted or key.startswith(f"{wanted.removesuffix('.')}.")


def _unknown(key: str, references: Sequence[KeyReference]) -> ConfigError:
    if key.endswith(".toml"):
        return ConfigError(f"KEY must be a key or a section, but got {key}; show a file with --config {key}")
    keys = [each.key for each in references]
    sections = dict.fromkeys(known.partition(".")[0] for known in keys)
    near = did_you_mean(key, [*keys, *sections], as_code=True)
    return ConfigError(f"unknown key `{key}`; {near}{' ' if near else ''}sections are {', '.join(sections)}")


def _print(out: Console, references: Sequence[KeyReference], values: dict[str, Scalar]) -> None:
    """Print keys; on a narrow terminal the type and range begin the meaning."""
    from pixeltune.cli.tables import TableColumn, print_table
    from pixeltune.results.schema import config_columns
    from pixeltune.space.key_reference import REQUIRED
    from pixeltune.space.keys import value_text

    known = config_columns()
    units = {each.key: known[each.key].unit if each.key in known else "" for each in references}
    is_narrow = out.is_terminal and out.width < _WIDE
    has_changes = any(
        each.default != REQUIRED and value_text(values[each.key]) != each.default
        for each in references
        if each.key in values
    )
    columns = [
        TableColumn(title="key", align="left"),
        *([TableColumn(title="value", align="left")] if values else []),
        *([TableColumn(title="default", align="left", priority=1)] if has_changes or not values else []),
        *([] if is_narrow else [TableColumn(title="type and range", align="left", least=24)]),
        *([TableColumn(title="unit", align="left", priority=2)] if any(units.values()) else []),
        TableColumn(title="meaning", align="left", least=24),
    ]
    rows = []
    for each in references:
        row = {
            "key": each.key,
            "value": value_text(values.get(each.key)),
            "default": each.default,
            "type and range": each.form,
            "unit": units[each.key],
            "meaning": f"{each.form}: {each.meaning}" if is_narrow else each.meaning,
        }
        rows.append([row[column.title] for column in columns])
    print_table(out, columns, rows)


def template(config: TrialConfig) -> Iterator[str]:
    """Return the lines of a TOML file with every key, its value, and above it what it means and may be.

    A key without a value is a comment. `TrialConfig.from_toml` reads the file back as `config`.
    """
    import textwrap

    import tomli_w

    from pixeltune.space.key_reference import config_reference

    yield f"# A configuration of family {config.model.family}: {_summary(type(config.model))}"
    yield "# Train it with `pixeltune train THIS_FILE`; a key that is left out has its default."
    values = config.flat()
    # TOML has keys of the root before its tables.
    references = sorted(config_reference(config), key=lambda each: "." in each.key)
    before = ""
    for each in references:
        section, _, name = each.key.rpartition(".")
        if section != before:
            yield ""
            yield f"[{section}]"
            before = section
        yield ""
        yield from (f"# {line}" for line in textwrap.wrap(f"{each.meaning} ({each.form}).", _LINE - 2))
        value = values[each.key]
        yield f"# {name} = …    # none" if value is None else tomli_w.dumps({name: value}).rstrip()


def _summary(kind: type) -> str:
    return (kind.__doc__ or kind.__name__).strip().splitlines()[0]
