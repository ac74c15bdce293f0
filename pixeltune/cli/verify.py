"""`pixeltune verify`: a paper's bundle recomputed from its weights and the user's images."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_OK, EXIT_REFUTED, positive, say
from pixeltune.packages import require_packages

if TYPE_CHECKING:
    from pixeltune.paper.bundle_check import BundleCheck
from pixeltune.cli.paper import bundle_of
from pixeltune.format import counted


def add_verb(verbs: Any) -> None:
    """Add `pixeltune verify`."""
    parser = verbs.add_parser(
        "verify",
        help="recompute the numbers of a paper's bundle from its weights and your images",
        examples=(
            "pixeltune verify digits_quick-final-paper",
            "pixeltune verify bundle --data images.npz --images 100",
        ),
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="what `pixeltune paper` wrote, or its folder `bundle`")
    parser.add_argument("--data", metavar="PATH", help="where the images are [as for a training: PIXELTUNE_DATA]")
    parser.add_argument("--images", type=positive, metavar="N", help="recompute the first N test images only [all]")
    parser.set_defaults(verb=verify)


def verify(options: argparse.Namespace) -> int:
    """Print a line for each check as it is made; return 1 if one fails."""
    from pixeltune.paper.bundle import read_manifest
    from pixeltune.paper.bundle_check import verify_bundle

    bundle = bundle_of(options.bundle)
    if bundle is None:
        read_manifest(options.bundle)  # refuses, before torch is needed
    require_packages("a verification", "torch")
    checks = verify_bundle(bundle or options.bundle, data_path=options.data, images=options.images, report=_show)
    passed = all(check.passed for check in checks)
    failed = sum(not check.passed for check in checks)
    partial = f", on the first {counted(options.images, 'image')} only" if options.images else ""
    say(f"Verified{partial}." if passed else f"NOT verified: {failed} of {counted(len(checks), 'check')} failed.")
    return EXIT_OK if passed else EXIT_REFUTED


def _show(check: BundleCheck) -> None:
    say(f"{'passed' if check.passed else 'FAILED'}  {check.name:<22}  {check.detail}")
