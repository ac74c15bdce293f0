"""bfloat16 only where it pays, and never in the number of record."""

from __future__ import annotations

import pytest
import torch

from pixeltune.training import precision
from pixeltune.training.loop import fit

from .conftest import tiny


def test_auto_takes_float32_without_hardware_for_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_has_fast_bfloat16", lambda _device: False)
    assert fit(tiny(), device="cpu").precision == "float32"


@pytest.mark.parametrize(("speedup", "chosen"), [(2.0, "bfloat16"), (1.0, "float32"), (0.5, "float32")])
def test_auto_follows_the_probe(monkeypatch: pytest.MonkeyPatch, speedup: float, chosen: str) -> None:
    monkeypatch.setattr(precision, "_has_fast_bfloat16", lambda _device: True)
    monkeypatch.setattr(precision, "_probe", lambda kind, *_: 1.0 if kind == "float32" else 1 / speedup)
    assert fit(tiny(), device="cpu").precision == chosen


def test_the_probe_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_has_fast_bfloat16", lambda _device: True)
    changes = {"model__family": "pixelcnn", "model__variant": "simple", "model__batch_norm": True}
    probed = fit(tiny(**changes), device="cpu").model
    plain = fit(tiny(train__precision="float32", **changes), device="cpu").model
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, probed.state_dict()[name]), name
    assert all(parameter.grad is None for parameter in probed.parameters())


def test_bfloat16_training_comes_near_float32() -> None:
    values = [
        list(fit(tiny(train__precision=kind, train__images=640, train__report_every=640), device="cpu"))[-1]
        for kind in ("float32", "bfloat16")
    ]
    assert values[1].valid_bits_per_dim == pytest.approx(values[0].valid_bits_per_dim, abs=0.02)
    assert values[1].valid_bits_per_dim != values[0].valid_bits_per_dim
