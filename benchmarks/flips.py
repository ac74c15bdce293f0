"""Damage to each kind of results file: every flipped bit, and every truncation.

    uv run python benchmarks/flips.py
    uv run python benchmarks/flips.py --only row,manifest --every 7

Each damaged file is read as a user reads it. It is `detected` where the reader refuses in one line or sets the file
aside with a warning, `harmless` where all that is read equals what was written, `silent` where it differs without a
warning, and `foreign` where another exception ends the reader. The exit code is 1 where anything is silent or foreign.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.support.damage import OUTCOMES, checkpoint_targets, cuts, flips, page_checksum_target, table_targets


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of positions and lengths, each N-th alone")
    parser.add_argument("--only", default="", metavar="NAMES", help="files by name, separated by commas")
    parser.add_argument(
        "--page-checksums", action="store_true", help="a row that Parquet's own checksums protect, alone"
    )
    options = parser.parse_args()
    print("| file | bytes | damage | places | detected | harmless | silent | foreign | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    harm = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        only_pages = options.page_checksums
        targets = [page_checksum_target(place)] if only_pages else [*table_targets(place), *checkpoint_targets(place)]
        for target in targets:
            if options.only and target.name not in options.only.split(","):
                continue
            whole = target.path.read_bytes()
            for damage, contents in (
                ("bit flipped", flips(whole, range(0, 8 * len(whole), options.every))),
                ("cut", cuts(whole, range(0, len(whole), options.every))),
            ):
                before = time.perf_counter()
                counts = target.count(contents)
                figures = " | ".join(f"{counts[name]:,}" for name in OUTCOMES)
                seconds = time.perf_counter() - before
                print(
                    f"| {target.name} | {len(whole):,} | {damage} | {counts.total():,} | {figures} | {seconds:.0f} |",
                    flush=True,
                )
                harm += counts["silent"] + counts["foreign"]
    return int(harm > 0)


if __name__ == "__main__":
    sys.exit(main())
