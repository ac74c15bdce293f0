"""Each kind of planted leak is caught, and by the check that is meant to; sound networks that look alike pass."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pixeltune.audit import audit, check_trained
from pixeltune.data import ImageSet
from pixeltune.errors import AuditError
from pixeltune.likelihoods import Categorical
from pixeltune.models import DensityModel
from pixeltune.models.gated import GatedPixelCNN
from pixeltune.training.evaluation import evaluate
from tests.support import planted_leaks as planted
from tests.support.planted_leaks import EVAL_BATCH, Planted, ahead, behind, planted_model, trained
from tests.support.tiny_models import tiny_model


@pytest.fixture(autouse=True)
def _no_earlier_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["pixeltune.audit"], "_passed", {})
    monkeypatch.setattr(sys.modules["pixeltune.audit"], "_passed_narrow", set())


LEAKS = r"must not depend on|of its own image alone"


def check(model: DensityModel, **how: Any) -> None:
    check_trained(model, batch_size=EVAL_BATCH, **how)


# --- Caught before training -------------------------------------------------------------------------------------------

GATES = [
    planted.ReZero,
    planted.LayerScale,
    planted.BatchNormed,
    planted.GroupNormed,
    planted.ZeroConv,
    planted.ZeroWeightNorm,
    planted.Attention,
    planted.FarSigmoid,
]
CONDITIONS = [
    planted.OneSite,
    planted.Saturated,
    planted.SaturatedLow,
    planted.EvalOnly,
    planted.WithoutGradients,
    planted.BatchMean,
]
LABELS = [planted.OneClass, planted.LastClass, planted.WithoutLabel]


@pytest.mark.parametrize("network", [*GATES, *CONDITIONS])
def test_a_leak_that_starts_closed_or_acts_under_a_condition_is_caught_before_training(
    network: type[nn.Module],
) -> None:
    with pytest.raises(AuditError, match=LEAKS):
        audit(planted_model(network))


@pytest.mark.parametrize("network", LABELS)
def test_a_leak_for_one_label_is_caught_before_training(network: type[nn.Module]) -> None:
    with pytest.raises(AuditError, match="must not depend on"):
        audit(planted_model(network, conditioning="bias"))


@pytest.mark.parametrize("network", [gate for gate in GATES if gate is not planted.FarSigmoid])
def test_a_gate_of_one_instance_is_opened_too(network: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the narrow twin, the cuts of the real network find it: its zeros are opened as well."""
    monkeypatch.setattr(sys.modules["pixeltune.audit"], "check_jacobian", lambda _: None)
    with pytest.raises(AuditError, match="must not depend on"):
        audit(planted_model(network))


LIKELIHOODS = [
    (planted.MeanOverPixels, "log_prob of an image of 2×3 pixels"),
    (planted.Neighbour, "log_prob of an image of 2×3 pixels"),
    (planted.NeighbourInTable, "must follow from the pixel's own θ and its own earlier colours"),
    (planted.BatchMixing, "log_prob of an image of|log_prob of a pixel"),
    (planted.BatchInTable, "must follow from the pixel's own θ"),
    (planted.GenerousInFloat32, "log_prob of a pixel"),
    (planted.GenerousAtTheEnds, "log_prob of"),
    (planted.NegativeMass, "must sum to one, .* the least of them -"),
]


@pytest.mark.parametrize(("likelihood", "message"), LIKELIHOODS)
@pytest.mark.parametrize("colour_order", ["mask", "likelihood"])
def test_a_likelihood_that_is_wrong_on_images_or_batches_is_caught(
    likelihood: type[Categorical], message: str, colour_order: str
) -> None:
    with pytest.raises(AuditError, match=message):
        audit(planted_model(likelihood=likelihood, shape=(3, 7, 6), colour_order=colour_order))


# --- Caught with the weights of record --------------------------------------------------------------------------------

OPENED = [
    *[gate for gate in GATES if gate is not planted.FarSigmoid],
    planted.FilledBuffer,
    planted.EmaBuffer,
]
IN_EVALUATION = [
    *CONDITIONS,
    planted.Float32Only,
    planted.FullBatch,
    planted.OnePlace,
]


@pytest.mark.parametrize("network", [*OPENED, *IN_EVALUATION])
def test_the_weights_of_record_show_it(network: type[nn.Module]) -> None:
    model = trained(planted_model(network))
    with pytest.raises(AuditError, match=LEAKS):
        check(model, num_cuts=60)


@pytest.mark.parametrize("network", LABELS)
def test_the_weights_of_record_show_it_for_each_label(network: type[nn.Module]) -> None:
    with pytest.raises(AuditError, match="must not depend on"):
        check(trained(planted_model(network, conditioning="bias")))


@pytest.mark.parametrize(
    "network", [planted.Float32Only, planted.FullBatch, planted.FilledBuffer, planted.EmaBuffer, planted.NegativeGate]
)
def test_what_only_the_weights_of_record_can_show_passes_before_training(network: type[nn.Module]) -> None:
    """So that the test above does not hold for another reason."""
    audit(planted_model(network))


def test_a_gate_that_opens_below_zero_is_caught_once_it_is_open() -> None:
    model = planted_model(planted.NegativeGate)
    check(model)
    with torch.no_grad():
        model.network.gate.fill_(-0.1)
    with pytest.raises(AuditError, match="must not depend on"):
        check(model)


def test_a_leak_that_waits_for_many_calls_is_caught_once_they_are_made() -> None:
    model = planted_model(planted.AfterManyCalls)
    audit(model)
    check(model)
    model.network.calls = 1001
    with pytest.raises(AuditError, match="must not depend on"):
        check(model)


def test_a_leak_at_one_far_site_is_caught_where_all_cuts_are_tried() -> None:
    model = planted_model(planted.FarSite, shape=(1, 12, 5))
    with pytest.raises(AuditError, match=r"θ at \(row 9, col 2, colour 0\)"):
        check(model, num_cuts=60)


def test_a_leak_through_the_latent_is_caught() -> None:
    model = tiny_model("pixelvae", colour_order="likelihood", shape=(1, 7, 6), levels=4, channels=12).float()
    model.network.register_forward_hook(
        lambda _, inputs, theta: theta + inputs[1].mean(1, keepdim=True) * ahead(inputs[0])
    )
    with pytest.raises(AuditError, match="must not depend on"):
        audit(model)
    with pytest.raises(AuditError, match="must not depend on"):
        check(model)


def test_a_likelihood_that_is_generous_in_float32_is_caught_with_the_weights_of_record() -> None:
    with pytest.raises(AuditError, match="must be its nats in float64"):
        check(planted_model(likelihood=planted.GenerousInFloat32))


def test_a_check_leaves_the_model_as_it_was() -> None:
    model = trained(planted_model(planted.PastBatchNormed)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    check(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training


# --- Caught by a code -------------------------------------------------------------------------------------------------


def images_of(count: int) -> ImageSet:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(4, (count, 1, 7, 6), generator=generator, dtype=torch.uint8)
    return ImageSet(pixels.numpy())


def claim_of(model: DensityModel, images: ImageSet) -> np.ndarray:
    return evaluate(model, images, batch_size=EVAL_BATCH).nats_N


@pytest.mark.needs("constriction")
def test_a_leak_that_acts_during_the_evaluation_alone_is_caught_by_the_code() -> None:
    from pixeltune.sampling.code_check import check_claim

    model, images = planted_model(planted.Window), images_of(EVAL_BATCH)
    audit(model)
    check(trained(model))
    honest = claim_of(model, images)
    model.network.window = range(model.network.calls + 1, model.network.calls + 2)
    claimed = claim_of(model, images)
    assert not np.allclose(claimed, honest)
    check(model)
    assert check_claim(model, images, honest, seconds=600).is_confirmed
    found = check_claim(model, images, claimed, seconds=600)
    assert found.is_confirmed is False
    assert found.images == EVAL_BATCH
    assert f"{EVAL_BATCH} images take" in (found.why_not or "")


@pytest.mark.needs("constriction")
@pytest.mark.parametrize("likelihood", [planted.MeanOverPixels, planted.Neighbour, planted.GenerousInFloat32])
def test_a_wrong_likelihood_is_caught_by_the_code_too(likelihood: type[Categorical]) -> None:
    from pixeltune.sampling.code_check import check_claim

    model, images = trained(planted_model(likelihood=likelihood)), images_of(EVAL_BATCH)
    assert check_claim(model, images, claim_of(model, images), seconds=600).is_confirmed is False


# --- Sound counterparts -----------------------------------------------------------------------------------------------

SOUND = [
    GatedPixelCNN,
    planted.ZeroHead,
    planted.PastReZero,
    planted.PastBatchNormed,
    planted.PastZeroWeightNorm,
    planted.CausalAttention,
    planted.MaskedByBuffer,
    planted.Dropping,
    planted.ChannelNormed,
]


@pytest.mark.parametrize("network", SOUND)
def test_a_sound_network_passes_before_and_after_training(network: type[nn.Module]) -> None:
    model = planted_model(network)
    assert audit(model).max_change <= 1e-11
    check(trained(model), num_cuts=60)


@pytest.mark.parametrize("network", SOUND[:4])
def test_a_sound_conditional_network_passes(network: type[nn.Module]) -> None:
    model = planted_model(network, conditioning="bias")
    audit(model)
    check(trained(model))


def test_a_network_that_leaks_in_training_mode_alone_is_measured_without_it() -> None:
    """Its training loss flatters it; no number of record does."""

    class TrainOnly(Planted):
        def extra(self, x: Tensor) -> Tensor:
            return ahead(x) if self.training else torch.zeros_like(x[:, :1])

    model = planted_model(TrainOnly)
    audit(model)
    check(trained(model))
    plain = planted_model(GatedPixelCNN)
    plain.load_state_dict(model.state_dict())
    assert np.array_equal(claim_of(model, images_of(5)), claim_of(plain, images_of(5)))


# --- What was audited before ------------------------------------------------------------------------------------------

STATE: dict[str, Any] = {"looks": behind}
FLAGS = SimpleNamespace(leaks=False)


def helper(x: Tensor) -> Tensor:
    return behind(x)


class Configured(Planted):
    """Looks where its attributes, its class, its globals or a buffer say."""

    offsets_of_class: Any = (1,)

    def plant(self) -> None:
        self.in_list: list[int] = [1]
        self.in_dict: dict[str, Any] = {"row": {"shift": 1}}
        self.in_array = np.array([1])
        self.in_object = SimpleNamespace(shift=1)
        self.in_set = {1}
        self.function: Callable[[Tensor], Tensor] = behind
        self.register_buffer("shift", torch.ones((), dtype=torch.int64))

    def extra(self, x: Tensor) -> Tensor:
        shifts = [
            *self.in_list,
            self.in_dict["row"]["shift"],
            int(self.in_array[0]),
            self.in_object.shift,
            *self.in_set,
            *self.offsets_of_class,
            int(self.shift),
            -1 if FLAGS.leaks else 1,
        ]
        return self.function(x) + STATE["looks"](x) + helper(x) + (ahead(x) if min(shifts) < 0 else behind(x))


def closure_over(look: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: look(x)


def _set(name: str, value: Any) -> Callable[[Any, pytest.MonkeyPatch], None]:
    return lambda network, _: setattr(network, name, value)


def _patched(owner: Any, name: str, value: Any) -> Callable[[Any, pytest.MonkeyPatch], None]:
    return lambda _, monkeypatch: monkeypatch.setattr(owner, name, value)


CHANGES: dict[str, Callable[[Any, pytest.MonkeyPatch], None]] = {
    "list": _set("in_list", [-1]),
    "nested dict": _set("in_dict", {"row": {"shift": -1}}),
    "array": _set("in_array", np.array([-1])),
    "object": _set("in_object", SimpleNamespace(shift=-1)),
    "set": _set("in_set", {-1}),
    "function": _set("function", ahead),
    "closure": _set("function", closure_over(ahead)),
    "buffer": lambda network, _: network.shift.fill_(-1),
    "method of the class": _patched(Configured, "extra", lambda _self, x: ahead(x)),
    "attribute of the class": _patched(Configured, "offsets_of_class", [-1]),
    "inherited method": _patched(
        Planted, "forward", lambda self, x, s=None: GatedPixelCNN.forward(self, x, s) + ahead(x)
    ),
    "method of a layer": _patched(
        nn.ReLU, "forward", lambda _self, x: nn.functional.relu(x) + 0.1 * x.roll(-1, dims=3)
    ),
    "global": lambda _, monkeypatch: monkeypatch.setitem(STATE, "looks", ahead),
    "global object": _patched(FLAGS, "leaks", True),
    "helper": _patched(sys.modules[__name__], "helper", lambda x: ahead(x)),
    "forward hook": lambda network, _: network.register_forward_hook(
        lambda _m, inputs, theta: theta + ahead(inputs[0])
    ),
    "pre-hook": lambda network, _: network.register_forward_pre_hook(lambda _m, inputs: (inputs[0].roll(-1, 3),)),
    "hook of a layer": lambda network, _: network.head.register_forward_hook(
        lambda _m, _inputs, theta: theta.roll(-1, dims=3)
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_after_an_audit_is_audited_again(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    audit(planted_model(Configured))
    assert audit(planted_model(Configured)).cached
    model = planted_model(Configured)
    CHANGES[change](model.network, monkeypatch)
    with pytest.raises(AuditError):
        audit(model)


def test_what_cannot_be_read_is_audited_each_time() -> None:
    model = planted_model(Configured)
    model.network.hidden = torch.Generator()
    assert not audit(model).cached
    assert not audit(model).cached
