"""Coding gives the images back, in the bits that log_prob claims, or says why not."""

from __future__ import annotations

import math
import re
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.model_kinds import COUPLING_FAMILIES, every_kind_and
from tests.support.optional import require
from tests.support.tiny_models import leaking, tiny_model

require("constriction")

from pixeltune.errors import CodecError, ConfigError, DataError, MissingPackageError
from pixeltune.models import NO_LABEL, DensityModel
from pixeltune.packages import install_command
from pixeltune.sampling import codec
from pixeltune.sampling.code_check import Verification, verify_bits
from pixeltune.sampling.codec import compress, decompress
from pixeltune.sampling.coded_file import Header, pack, unpack
from pixeltune.sampling.determinism import NumericEnvironment, model_hash


def coded_model(family: str = "gated", likelihood: str = "categorical", **changes: Any) -> DensityModel:
    plain = {"shape": (3, 4, 4), "levels": 17, "seed": 0} | changes
    return tiny_model(family, likelihood, **plain | ({"levels": 2} if likelihood == "bernoulli" else {})).float()


def random_images(model: DensityModel, count: int, seed: int = 0) -> np.ndarray:
    shape = (count, *model.form.shape)
    return np.random.default_rng(seed).integers(0, model.form.levels, shape, dtype=np.uint8)


def claimed_nats(model: DensityModel, images: np.ndarray, labels: np.ndarray | None = None) -> float:
    label_N = None if labels is None else torch.from_numpy(labels)
    with torch.no_grad():
        return -float(model.eval().log_prob(torch.from_numpy(images), label_N).double().sum())


def verified(model: DensityModel, images: np.ndarray, labels: np.ndarray | None = None, **how: Any) -> Verification:
    return verify_bits(model, images, labels, claimed_nats=claimed_nats(model, images, labels), **how)


def rewritten(content: bytes, **changes: Any) -> bytes:
    """The file with another header, whole again."""
    coded = unpack(content)
    return pack(Header.model_construct(**(dict(coded.header) | changes)), coded.streams)


@pytest.fixture
def coded() -> tuple[DensityModel, np.ndarray, bytes]:
    model = coded_model()
    images = random_images(model, 3)
    return model, images, compress(model, images, batch_size=2)


# --- Whole images, as many bits as claimed ----------------------------------------------------------------------------


@every_kind_and(split=[1, 2], method=codec.WALKS)
def test_images_come_back_in_the_bits_that_log_prob_claims(
    family: str, likelihood: str, colour_order: str, method: str, split: int
) -> None:
    model = coded_model(family, likelihood, colour_order=colour_order, split=split)
    if model.is_bound:
        pytest.skip("a bound is not coded")
    found = verified(model, random_images(model, 5), batch_size=2, method=method)
    assert found.is_identical
    assert found.is_within
    assert (found.streams, found.dims) == (3, 5 * 48)


@pytest.mark.parametrize("family", [family for family in COUPLING_FAMILIES if family != "pixelvae"])
@pytest.mark.parametrize("method", codec.WALKS)
def test_coupled_tiles_are_coded_by_their_joint_distribution(family: str, method: str) -> None:
    model = coded_model(family, "logistic_mixture", colour_order="likelihood", split=2, split_coupling="mixture")
    found = verified(model, random_images(model, 5), method=method)
    assert found.is_identical
    assert found.is_within


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("likelihood", ["categorical", "logistic_mixture"])
def test_a_long_stream_costs_a_thousandth_more(likelihood: str, dtype: torch.dtype) -> None:
    """Without the ends of streams; bytes that the model thinks all but impossible are among them."""
    model = coded_model("gated", likelihood, shape=(1, 6, 6), levels=256, colour_order="mask").to(dtype)
    found = verified(model, random_images(model, 100))
    assert found.is_identical
    assert found.coded_bits < 1.001 * found.claimed_bits + 32


def test_images_that_the_model_is_sure_of_cost_next_to_nothing() -> None:
    model = coded_model(likelihood="bernoulli", shape=(1, 8, 8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        [bias] = [p for name, p in model.network.named_parameters() if name.endswith("bias")][-1:]
        bias.fill_(-16.0)
    images = np.zeros((100, 1, 8, 8), dtype=np.uint8)
    found = verified(model, images)
    assert found.claimed_bits < 1
    assert found.coded_bits <= 64
    assert found.is_within


def test_both_sides_show_the_network_the_same_images_and_never_a_later_level() -> None:
    model, inputs = coded_model(shape=(3, 3, 3)), list[torch.Tensor]()
    model.network.register_forward_hook(lambda _module, args, _out: inputs.append(args[0].clone()))
    images = random_images(model, 2)
    content = compress(model, images, method="naive")
    decompress(content, model)
    calls = len(inputs) // 2
    assert calls == 27
    x_BCHW, order_CHW = model.scale(torch.from_numpy(images)), model.order()
    for call, (ours, theirs) in enumerate(zip(inputs[:calls], inputs[calls:], strict=True)):
        assert torch.equal(ours, theirs)
        assert torch.equal(ours, torch.where(order_CHW < call, x_BCHW, torch.tensor(-1.0)))


def test_both_walks_see_the_same_numbers_but_for_rounding() -> None:
    model = coded_model(shape=(3, 4, 4), split=2).double()
    images = random_images(model, 3)
    files = [unpack(compress(model, images, method=method)) for method in codec.WALKS]
    assert [file.header.method for file in files] == ["cached", "naive"]
    assert files[0].streams[0].tobytes() == files[1].streams[0].tobytes()


def test_a_network_that_cannot_be_stepped_is_passed_whole() -> None:
    model = coded_model(likelihood="bernoulli", shape=(1, 4, 4))
    images = random_images(model, 2)
    assert unpack(compress(model, images)).header.method == "cached"
    assert unpack(compress(leaking(model), images)).header.method == "naive"


@pytest.mark.parametrize("conditioning", ["bias", "map"])
def test_labels_travel_in_the_file(conditioning: str) -> None:
    model = coded_model(conditioning=conditioning)
    images, labels = random_images(model, 4), np.array([0, 2, 1, NO_LABEL])
    found = verified(model, images, labels, batch_size=3)
    assert found.is_identical
    assert found.is_within
    content = compress(model, images, labels)
    assert np.array_equal(decompress(content, model).labels_N, labels)
    assert unpack(compress(model, images)).header.labels == [NO_LABEL] * 4
    assert (
        unpack(compress(model, images, labels)).streams[0].tobytes()
        != unpack(compress(model, images, labels[::-1])).streams[0].tobytes()
    )


def test_all_numbers_of_images_and_batches(coded: tuple[DensityModel, np.ndarray, bytes]) -> None:
    model, images, content = coded
    assert len(unpack(content).streams) == 2
    assert decompress(content, model).labels_N is None
    for count, batch_size in ((1, 1), (3, 1), (3, 3), (3, 100)):
        some = images[:count]
        assert np.array_equal(decompress(compress(model, some, batch_size=batch_size), model).images_NCHW, some)
    assert compress(model, images, batch_size=2) == content


# --- Leaks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "leak"),
    [(1, {"columns": 0}), (1, {"columns": 1}), (2, {"columns": 0}), (2, {"columns": 1}), (2, {"tiles": 1})],
)
def test_a_model_that_looks_ahead_needs_more_bits_than_it_claims(split: int, leak: dict[str, int]) -> None:
    images = np.random.default_rng(0).integers(0, 2, (30, 1, 2, 2), dtype=np.uint8).repeat(4, 2).repeat(4, 3)
    if "tiles" in leak:
        images = np.tile(images[:, :, :4, :4], (1, 1, 2, 2))
    model = coded_model(likelihood="bernoulli", shape=(1, 8, 8), split=split)
    honest = verified(model, images)
    assert honest.is_within
    found = verified(leaking(model, **leak), images)
    assert found.is_identical
    assert found.claimed_bits < 0.7 * honest.claimed_bits
    assert found.coded_bits > 2 * found.claimed_bits
    assert not found.is_within


def test_a_log_prob_that_is_not_that_of_its_probabilities_does_not_pass() -> None:
    model = coded_model()
    images = random_images(model, 20)
    nats = claimed_nats(model, images)
    assert verify_bits(model, images, claimed_nats=nats).is_within
    for wrong in (0.95, 1.05):
        assert not verify_bits(model, images, claimed_nats=wrong * nats).is_within


# --- Files that are not whole -----------------------------------------------------------------------------------------


def test_a_changed_byte_is_an_error_wherever_it_is(coded: tuple[DensityModel, np.ndarray, bytes]) -> None:
    model, _, content = coded
    for place in [*range(60), *range(60, len(content), 41), len(content) - 1]:
        damaged = content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
        with pytest.raises(CodecError, match="compressed file must"):
            decompress(damaged, model)


def test_any_change_of_any_byte_before_the_streams_is_one_line(
    coded: tuple[DensityModel, np.ndarray, bytes],
) -> None:
    content = coded[2]
    start = len(content) - unpack(content).stream_bits // 8
    draw = np.random.default_rng(0)
    for place in range(start):
        for value in {0, 0x20, 0xFF, content[place] ^ 1, int(draw.integers(256))} - {content[place]}:
            damaged = bytearray(content)
            damaged[place] = value
            with pytest.raises(CodecError) as caught:
                unpack(bytes(damaged))
            assert str(caught.value).startswith("a compressed file must ")
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spaces", [1, 2, 4])
def test_a_header_that_runs_into_the_streams_is_damaged(
    coded: tuple[DensityModel, np.ndarray, bytes], spaces: int
) -> None:
    """Where a stream begins with bytes that JSON passes over."""
    header = unpack(coded[2]).header
    word = int.from_bytes(b"    ", "little")
    streams = [np.full(count, word, np.uint32) for count in header.stream_words]
    content = bytearray(pack(header, streams))
    content[12:16] = struct.pack("<I", struct.unpack("<I", content[12:16])[0] + spaces)
    with pytest.raises(CodecError, match="must hold the streams that its header names"):
        unpack(bytes(content))


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 0},
        {"count": 10**12},
        {"count": -1},
        {"batch_size": 0},
        {"batch_size": 10**9},
        {"stream_words": [-1, 1]},
        {"stream_words": []},
        {"stream_words": [10**9]},
    ],
    ids=str,
)
def test_a_header_of_other_streams_is_one_line(
    coded: tuple[DensityModel, np.ndarray, bytes], changes: dict[str, Any]
) -> None:
    with pytest.raises(CodecError, match="a compressed file must ") as caught:
        decompress(rewritten(coded[2], **changes), coded[0])
    assert "\n" not in str(caught.value)


def test_a_cut_file_is_an_error_wherever_it_is_cut(coded: tuple[DensityModel, np.ndarray, bytes]) -> None:
    model, _, content = coded
    for length in [*range(1, 60), *range(60, len(content), 41), len(content) - 1]:
        with pytest.raises(CodecError, match="cut short"):
            decompress(content[:length], model)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _: b"", "this is none"),
        (lambda content: b"\x89PNG\r\n\x1a\n" + content, "this is none"),
        (lambda content: content + b"\0", "damaged"),
        (lambda content: content[:8] + struct.pack("<I", 2) + content[12:], "must have format 1, but this one has 2"),
    ],
)
def test_a_foreign_file(
    coded: tuple[DensityModel, np.ndarray, bytes], change: Callable[[bytes], bytes], says: str
) -> None:
    with pytest.raises(CodecError, match=says):
        decompress(change(coded[2]), coded[0])


def test_a_header_that_this_version_does_not_know(coded: tuple[DensityModel, np.ndarray, bytes]) -> None:
    with pytest.raises(CodecError, match="method must be one of cached, naive, but got 'magic'"):
        decompress(rewritten(coded[2], method="magic"), coded[0])


# --- Other models and other numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [{"seed": 1}, {"channels": 12}, {"levels": 16}, {"shape": (3, 4, 5)}])
def test_another_model_is_refused_before_decoding(
    coded: tuple[DensityModel, np.ndarray, bytes], other: dict[str, Any]
) -> None:
    with pytest.raises(CodecError, match="must be read with the model that wrote it"):
        decompress(coded[2], coded_model(**other))


def test_a_hash_knows_every_weight_and_no_precision() -> None:
    model = coded_model()
    before = model_hash(model)
    assert model_hash(coded_model()) == model_hash(coded_model().double()) == before
    for parameter in model.parameters():
        kept = parameter.flatten()[-1].item()
        with torch.no_grad():
            parameter.view(-1)[-1] += 1e-3
            assert model_hash(model) != before
            parameter.view(-1)[-1] = kept


@pytest.mark.parametrize("name", ["pixeltune", "torch", "constriction", "device"])
def test_other_numbers_are_named_before_decoding(
    coded: tuple[DensityModel, np.ndarray, bytes], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, content = coded
    numbers = unpack(content).header.numbers
    monkeypatch.setitem(codec.WALKS, "cached", lambda *_: pytest.fail("it decodes"))
    elsewhere = numbers.model_copy(update={name: "elsewhere"})
    says = re.escape(f"but {name} was elsewhere, here {getattr(numbers, name)}")
    with pytest.raises(CodecError, match=says):
        decompress(rewritten(content, numbers=elsewhere), model)


def test_another_dtype_is_named_before_decoding(coded: tuple[DensityModel, np.ndarray, bytes]) -> None:
    with pytest.raises(CodecError, match="dtype was float32, here float64"):
        decompress(coded[2], coded[0].double())


def test_a_file_is_decoded_with_the_threads_that_wrote_it(coded: tuple[DensityModel, np.ndarray, bytes]) -> None:
    model, images, _ = coded
    before, seen = torch.get_num_threads(), []
    try:
        torch.set_num_threads(3)
        content = compress(model, images)
        torch.set_num_threads(2)
        model.network.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
        assert np.array_equal(decompress(content, model).images_NCHW, images)
        assert set(seen) == {3}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_numbers_that_differ_without_a_name_are_never_wrong_images(
    coded: tuple[DensityModel, np.ndarray, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """θ a little off, as by another choice of kernels; and images that came out as they should not."""
    model, _, content = coded
    whole = codec.WALKS["cached"]

    def off_by(step: float) -> Any:
        return lambda model, batch, s, answer: whole(model, batch, s, lambda sites, theta: answer(sites, theta * step))

    def with_another_last_image(*arguments: Any) -> torch.Tensor:
        x_BCHW = whole(*arguments).clone()
        x_BCHW[-1, 0, 0, 0] = (x_BCHW[-1, 0, 0, 0] + 1) % model.form.levels
        return x_BCHW

    for walk in (off_by(1.5), off_by(1 + 1e-4), with_another_last_image):
        monkeypatch.setitem(codec.WALKS, "cached", walk)
        with pytest.raises(CodecError, match="decode on the machine that compressed"):
            decompress(content, model)
    monkeypatch.setitem(codec.WALKS, "cached", whole)
    with pytest.raises(CodecError, match="checksum differs"):
        decompress(rewritten(content, images_checksum="0" * 16), model)


# --- What is refused --------------------------------------------------------------------------------------------------


def test_a_bound_says_why_it_is_not_coded() -> None:
    model = coded_model("pixelvae", shape=(1, 8, 8), latent_dim=2, encoder_channels=4)
    with pytest.raises(CodecError, match="only with bits-back coding"):
        compress(model, random_images(model, 1))


def test_half_precision_is_refused(coded: tuple[DensityModel, np.ndarray, bytes]) -> None:
    with pytest.raises(CodecError, match=r"float32 or float64 to be coded with, but this one is in torch.bfloat16"):
        compress(coded[0].bfloat16(), coded[1])


def test_a_missing_package_is_one_line(
    coded: tuple[DensityModel, np.ndarray, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    for attempt in (lambda: compress(coded[0], coded[1]), lambda: decompress(coded[2], coded[0])):
        with pytest.raises(MissingPackageError, match=re.escape(install_command(["constriction"]))):
            attempt()


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.zeros((0, 3, 4, 4), np.uint8), "at least 1, but got none"),
        (np.zeros((3, 4, 4), np.uint8), r"shape \(3, 4, 4\)"),
        (np.zeros((1, 3, 4, 4), np.float32), "got float32"),
        (np.zeros((1, 3, 4, 4), bool), "got bool"),
        (np.zeros((1, 3, 4, 5), np.uint8), r"of shape \(B, 3, 4, 4\), but got shape \(1, 3, 4, 5\)"),
        (np.full((1, 3, 4, 4), 17, np.uint8), "levels 0 to 16, but got 17 to 17"),
        (np.full((1, 3, 4, 4), -1, np.int64), "but got -1 to -1"),
        (np.full((1, 3, 4, 4), 256, np.int64), "but got 256 to 256"),
    ],
)
def test_images_that_are_not_the_models(images: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        compress(coded_model(), images)


def test_labels_that_are_not_the_models(coded: tuple[DensityModel, np.ndarray, bytes]) -> None:
    with pytest.raises(ConfigError, match="need a model with a"):
        compress(coded[0], coded[1], np.array([0, 1, 2]))


def test_probabilities_that_are_none(coded: tuple[DensityModel, np.ndarray, bytes]) -> None:
    model, images, _ = coded
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(CodecError, match="probabilities must be finite"):
        compress(model, images)


def test_settings_and_mode_are_left_as_they_were(coded: tuple[DensityModel, np.ndarray, bytes]) -> None:
    model, images, _ = coded

    def settings() -> tuple[Any, ...]:
        cudnn = torch.backends.cudnn
        deterministic = torch.are_deterministic_algorithms_enabled()
        return torch.get_num_threads(), cudnn.benchmark, cudnn.deterministic, deterministic, torch.is_grad_enabled()

    before = settings()
    decompress(compress(model.train(), images), model)
    assert settings() == before
    assert model.training
    with pytest.raises(DataError):
        compress(model, images + 17)
    assert settings() == before


def test_numbers_name_what_they_depend_on() -> None:
    numbers = NumericEnvironment.of(coded_model())
    assert numbers.torch == torch.__version__
    assert numbers.device == f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    assert (numbers.dtype, numbers.threads) == ("float32", torch.get_num_threads())
