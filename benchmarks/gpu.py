"""All that waits for a GPU: `python benchmarks/gpu.py --part A|B|C [--device cuda|cpu] [--quick]`.

A: the same numbers as on the CPU, in float64; evaluation; the three ways of sampling; training again and resumed.
B: speed, memory and compile cost of training PixelCNN++ as published, beside what the card can do; with `--peer`, a
   smaller network beside a widely used port.
C: speed and memory of sampling, a short training, what feeding a network costs.

Each part ends within `--minutes` and prints one Markdown table, each row as soon as it is measured; what no time is
left for says so. Exit code 1 where a row misses its limit. pixeltune need not be installed, nor Ray, Optuna or rich:
torch, torchvision, numpy, pydantic, pandas, pyarrow and safetensors are enough. `--quick` runs all of it on toys, which
shows that it runs.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from pathlib import Path

PARTS = {"A": "parity", "B": "speed", "C": "drawing"}
NEEDED = ("torch", "torchvision", "numpy", "pydantic", "pandas", "pyarrow", "safetensors")


def main() -> int:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), help="[the GPU, where there is one]")
    parser.add_argument("--quick", action="store_true", help="toys in place of networks")
    parser.add_argument("--minutes", type=float, default=8.5, help="a part's time [8.5]")
    parser.add_argument("--peer", type=Path, metavar="FOLDER", help="the port of benchmarks/train.py, for part B")
    parser.add_argument("--data", type=Path, metavar="FILE.npz", help="images to train on, as of source array [drawn]")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # pixeltune of this checkout, installed or not
    if options.part == "A":  # before CUDA starts: products that add up in the same order each time
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        parser.error(f"{', '.join(missing)} must be installed")
    part = importlib.import_module(f"gpu_checks.{PARTS[options.part]}")
    report = importlib.import_module("gpu_checks.report").Report.begin(options)
    part.run(report, options)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
