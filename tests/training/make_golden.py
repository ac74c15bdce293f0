"""Add the curves that golden.json lacks: `python -m tests.training.make_golden [NAME ...]`.

Those named are written anew: only for a change that is meant to move them.
"""

from __future__ import annotations

import json
import sys

import torch

from pixeltune.training.loop import fit
from tests.support.tiny_trainings import GOLDEN, GOLDEN_CONFIGS, numbers, tiny

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    known = json.loads(GOLDEN.read_text(encoding="utf-8"))
    kept = {name: known[name] for name in GOLDEN_CONFIGS if name in known and name not in sys.argv[1:]}
    curves = {
        name: kept.get(name) or [numbers(report) for report in fit(tiny(**changes))]
        for name, changes in GOLDEN_CONFIGS.items()
    }
    GOLDEN.write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
