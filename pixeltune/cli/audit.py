"""`pixeltune audit`: the structure of a configured model, untrained."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_OK, add_settings, say, settings_of
from pixeltune.format import counted

if TYPE_CHECKING:
    pass


def add_verb(verbs: Any) -> None:
    """Add `pixeltune audit`."""
    parser = verbs.add_parser(
        "audit",
        help="check causality, receptive field and normalisation of a configuration",
        examples=(
            "pixeltune audit --config model.toml",
            "pixeltune audit --config model.toml --set model.kernel_size=5",
        ),
    )
    parser.add_argument("--config", required=True, metavar="FILE.toml")
    add_settings(parser)
    parser.set_defaults(verb=audit)


def audit(options: argparse.Namespace) -> int:
    """Audit an untrained configuration: leaks depend on its structure alone."""
    from pixeltune.audit import audit as examine
    from pixeltune.config import TrialConfig
    from pixeltune.models import build_model

    config = TrialConfig.from_toml(options.config).override(settings_of(options))
    report = examine(build_model(config))
    say(
        f"Passed in {report.seconds:.2f} s: causal by position and colour, some past pixel matters everywhere, "
        f"receptive field {counted(report.receptive_rows, 'row')} × {counted(report.receptive_cols, 'column')} with "
        f"{counted(report.blind_spot, 'past pixel')} unseen inside, "
        f"probabilities sum to one within {report.max_mass_error:.1e}."
    )
    return EXIT_OK
