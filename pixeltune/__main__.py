"""`python -m pixeltune`, as torchrun needs it."""

import sys

from pixeltune.cli import main

if __name__ == "__main__":
    sys.exit(main())
