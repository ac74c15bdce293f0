"""Run a search: `python launch.py --search digits_quick`. The same command again resumes it. See --help."""

import sys

from pixeltune.cli.entry import run_checked


def main() -> int:
    """Run the command; the import needs the dependencies."""
    from pixeltune.cli.search import launch

    return launch()


if __name__ == "__main__":
    sys.exit(run_checked("launch.py", main))
