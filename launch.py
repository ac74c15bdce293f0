"""Run a search: `python launch.py --search digits_quick`. The same command again resumes it. See --help."""

import sys

from pixeltune.cli.search import launch

if __name__ == "__main__":
    sys.exit(launch())
