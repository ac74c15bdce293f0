"""Write golden.json anew: `python -m tests.training.make_golden`.

Only for a change that is meant to move the curves.
"""

from __future__ import annotations

import json

import torch

from pixeltune.training.loop import fit

from .conftest import tiny
from .test_loop import GOLDEN, GOLDEN_CONFIGS, numbers

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    curves = {name: [numbers(report) for report in fit(tiny(**changes))] for name, changes in GOLDEN_CONFIGS.items()}
    GOLDEN.write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
