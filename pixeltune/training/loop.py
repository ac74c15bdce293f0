"""fit: a plain iterator of reports. No Ray here; a search, a test and a notebook run the same loop.

    training = fit(config)
    for report in training:              # trains up to the next report, then evaluates on validation
        print(report.valid_bits_per_dim)
        training.state.save(path)        # the caller saves, samples, stops

Objective and units: the loss of a step is the mean over the global batch of -log p(x) in nats per image.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Self

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from pixeltune.audit import NUM_CUTS, AuditReport, audit, check_trained
from pixeltune.config import TrialConfig, require_workers
from pixeltune.data import DataSet, resolve
from pixeltune.errors import AuditError, CheckpointError, DataError, DivergedError, PausedError
from pixeltune.models import DensityModel, build_model
from pixeltune.models.blocks import compile_blocks, recompute_blocks
from pixeltune.training.batches import Batch, Batches
from pixeltune.training.checkpoint import SinceReport, TrainState
from pixeltune.training.compiler import require_compiler
from pixeltune.training.epoch_report import EpochReport, TrainingProgress
from pixeltune.training.evaluation import Evaluation, evaluate
from pixeltune.training.memory import MemoryPlan, memory_limit, plan_memory
from pixeltune.training.micro_batches import exchanging, micro_batches
from pixeltune.training.optim import build_average, build_optimizer, learning_rate, load_optimizer
from pixeltune.training.precision import Numerics, autocast, choose_numerics, laid_out
from pixeltune.training.running_sums import Tally
from pixeltune.training.timers import Clock, Pace
from pixeltune.training.workers import Workers, best_device

_CHECKED_SHARE = 0.03
"""Cuts tried on the weights of record, as a share of the images trained on since the last report. A training step takes
about three passes, so this costs 1% of the time."""
_STEPS_TO_AGREE = 16
"""Steps between two exchanges of the workers on whether to pause; all workers must wait for each exchange."""


def fit(
    config: TrialConfig,
    *,
    state: TrainState | None = None,
    device: torch.device | str | None = None,
    gpu_share: float = 1.0,
    pause: Callable[[], bool] | None = None,
) -> Training:
    """Train `config`, from the start or from `state`, in this process or with the workers of torch.distributed.

    Args:
        config: What to train, on which images, for how long.
        state: A checkpoint to resume from, which leads to the same numbers as training without a stop.
        device: Where to train; the GPU if there is one, by default.
        gpu_share: The part of the GPU's memory that this training may use. A step that does not fit is done in several
            passes.
        pause: Is called before each step (with several workers before every 16th; one of them is enough). If it
            returns true, iterating raises PausedError, and `state` can resume and will produce the same next report.

    Returns:
        An iterator that trains up to the next report each time it is asked.

    Raises:
        AuditError: The model looks at pixels that it must not use. It is audited first, and its weights at every
            report that is the best so far.
        ConfigError: The configuration does not fit the data or the workers.
        MemoryShortError: The memory cannot hold the training.
        CheckpointError: `state` is of another configuration or of other data.
        DivergedError: While iterating: a step would not be finite. This and later steps are not taken, and the error
            is raised at the next report at the latest.
    """
    return Training(config, state=state, device=device, gpu_share=gpu_share, pause=pause)


class Training(Iterator[EpochReport]):
    """A running training; iterate over it for reports.

    config: with everything resolved. data: its images. model: the raw weights. model_of_record: the averaged weights
    if `optim.ema` > 0, else the raw ones. audit: its result. numerics: precision and layout of the network.
    memory: the images per pass, and the predicted peak. claim: the best evaluation of this process, and the
    images seen at it; None without one.
    """

    def __init__(
        self,
        config: TrialConfig,
        *,
        state: TrainState | None,
        device: torch.device | str | None,
        gpu_share: float,
        pause: Callable[[], bool] | None = None,
    ) -> None:
        # The data set values that the configuration leaves open.
        resolved = resolve(config)
        self.config: TrialConfig = resolved.config
        self.data: DataSet = resolved.data

        # One process, or one of several that share each batch.
        self.workers = Workers.current()
        require_workers(self.config, self.workers.world)
        self.device = torch.device(device) if device is not None else best_device(self.workers.rank)
        if self.config.train.compile:
            require_compiler(self.device.type)

        # The model, and the largest passes that memory holds; the precision is chosen only below.
        self.model: DensityModel = build_model(self.config, self.data.form).to(self.device)
        if self.config.train.checkpoint_activations:
            recompute_blocks(self.model)
        self._memory_limit = memory_limit(self.device, gpu_share=gpu_share)
        foreseen = state.precision if state else self.config.train.precision.replace("auto", "float32")
        self.memory: MemoryPlan = self._plan_memory(foreseen, state)

        # No training without an audit: a model that sees the pixel it predicts would report too few bits.
        self.audit: AuditReport = audit(self.model)
        self.model.train()

        # The first batch may set the initial weights, so it comes before the optimiser and the average copy them.
        self._batches = Batches(self.data, self.config, self.workers, self.device)
        if state is None and self.model.is_initialised_by_data:
            self._initialise()
        self.optimizer = build_optimizer(self.config.optim, self.model)
        self.average: AveragedModel | None = None
        if self.config.optim.ema:
            self.average = build_average(self.model, self.config.optim.ema)

        # Progress: from zero, or as the checkpoint has it.
        self.images_seen = 0
        self.step = 0
        self.reports: list[EpochReport] = []
        self.claim: tuple[Evaluation, int] | None = None
        self._pause = pause
        self._since_report: SinceReport | None = None
        self._clock = Clock()
        if state is not None:
            self._restore(state)

        # Precision and layout are measured once and kept on resume; another precision changes the passes.
        self.numerics = Numerics(state.precision, state.layout) if state else self._choose_numerics()
        if self.numerics.precision != foreseen:
            self.memory = self._plan_memory(self.numerics.precision, state)

        # What trains: images on the device if they fit, blocks compiled if asked for, gradients shared by workers.
        if self.memory.is_resident:
            self._batches.keep_on_device()
        self._loss = self._build_loss()

    @property
    def model_of_record(self) -> DensityModel:
        """Return the weights whose validation is the trial's number."""
        return self.model if self.average is None else self._averaged_model

    @property
    def _looks_at_every_step(self) -> bool:
        """Return whether reading a number costs nothing because it is already computed."""
        return self.device.type == "cpu"

    @property
    def _averaged_model(self) -> DensityModel:
        assert self.average is not None
        assert isinstance(self.average.module, DensityModel)
        return self.average.module

    @property
    def state(self) -> TrainState:
        """Return the state for resuming; it refers to the live weights, so save it before the next step."""
        return TrainState(
            config_key=self.config.key(),
            data_checksum=self.data.identity.checksum,
            images_seen=self.images_seen,
            step=self.step,
            precision=self.numerics.precision,
            layout=self.numerics.layout,
            micro_batch=self.memory.micro_batch,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            average=None if self.average is None else self.average.state_dict(),
            reports=list(self.reports),
            since_report=self._since_report,
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> EpochReport:
        for event in self.events():
            if isinstance(event, EpochReport):
                return event
        raise StopIteration

    def events(self, seconds: float = math.inf) -> Iterator[TrainingProgress | EpochReport]:
        """Train to the end, and yield every report, with the progress in between.

        All workers yield the same events. To stop between two reports, use `pause`: an iterator that is left there
        loses the sums since the last report.

        Args:
            seconds: At least as many between two events of progress; by default there are none.
        """
        while self.images_seen < self.config.train.end:
            yield from self._train_to_next_report(seconds)

    def _train_to_next_report(self, seconds: float) -> Iterator[TrainingProgress | EpochReport]:
        stop = next_report(self.config, self.images_seen)
        first, tally = self.reports[-1].images_seen if self.reports else 0, self._begin_tally()
        pace = Pace(self.images_seen)
        while self.images_seen < stop:
            if self._is_to_pause():
                self._halt(tally)
            self._train_step(tally)
            if self.images_seen < stop and self._is_due(pace, seconds):
                yield TrainingProgress(
                    images_seen=self.images_seen,
                    train_bits_per_dim=self._mean_nats(tally, first) * self._bits_per_nat,
                    images_per_second=pace.measure(self.images_seen),
                )
        with self._clock.waiting():
            tally.require_finite(self.config.train.batch_size)
        count = self.images_seen - first
        train_nats = self._mean_nats(tally, first)
        report = self._report(train_nats, tally.mean_norm(count // self.config.train.batch_size), count)
        self.reports.append(report)
        yield report

    def _is_due(self, pace: Pace, seconds: float) -> bool:
        """Return whether all workers tell their progress after this step."""
        if math.isinf(seconds) or (self.workers.world > 1 and self.step % _STEPS_TO_AGREE):
            return False
        return self.workers.any(pace.seconds >= seconds)

    def _mean_nats(self, tally: Tally, first: int) -> float:
        """Return the mean over the images of all workers that were trained on after the first `first` ones."""
        with self._clock.waiting():
            return self.workers.sum(tally.nats).item() / (self.images_seen - first)

    @property
    def _bits_per_nat(self) -> float:
        """Return the factor from nats per image to bits/dim."""
        return 1 / (self.data.form.dims * math.log(2))

    def evaluate(self, model: DensityModel, split: str = "valid") -> Evaluation:
        """Return exact per-image nats of `valid` or `test`, computed by all workers."""
        images = getattr(self.data, split)
        if images is None:
            raise DataError(f"the data must have a {split} split, but {self.data.identity.name} has none")
        return evaluate(model, images, batch_size=self.config.train.eval_batch_size, workers=self.workers)

    def evaluate_alone(self, model: DensityModel) -> Evaluation:
        """Return exact per-image nats of the validation images, computed by this worker alone."""
        assert self.data.valid is not None, "the caller has asked"
        return evaluate(model, self.data.valid, batch_size=self.config.train.eval_batch_size)

    def check(self, model: DensityModel, num_cuts: int) -> None:
        """Audit trained weights in eval mode; AuditError in all workers if one of them finds a leak."""
        found = None
        try:
            check_trained(model, batch_size=self.config.train.eval_batch_size, num_cuts=num_cuts, seed=self.images_seen)
        except AuditError as error:
            found = AuditError(f"after training on {self.images_seen:,} images: {error}")
        if self.workers.any(found is not None):
            raise found or AuditError("another worker found a leak in the trained weights; the model is rejected")

    def _begin_tally(self) -> Tally:
        """Return zeros, or the sums of a paused training; with another number of workers, the sums of all of them."""
        tally, since = Tally(self.device), self._since_report
        if since is not None:
            rank, is_same = self.workers.rank, len(since.nats) == self.workers.world
            nats = since.nats[rank] if is_same else 0.0 if rank else math.fsum(since.nats)
            tally.go_on_from(nats, since.norms)
            self._since_report = None
        return tally

    def _is_to_pause(self) -> bool:
        if self._pause is None or (self.workers.world > 1 and self.step % _STEPS_TO_AGREE):
            return False
        return self.workers.any(self._pause())

    def _halt(self, tally: Tally) -> None:
        """Complete `state` and raise PausedError."""
        with self._clock.waiting():
            tally.require_finite(self.config.train.batch_size)
        self._since_report = SinceReport(
            nats=self.workers.each(tally.nats),
            norms=tally.norms,
            steps=self._clock.steps,
            train_seconds=self._clock.train_seconds,
            eval_seconds=self._clock.eval_seconds,
            compile_seconds=self._clock.compile_seconds,
        )
        raise PausedError(f"training pauses after {self.images_seen:,} images")

    def _plan_memory(self, precision: str, state: TrainState | None) -> MemoryPlan:
        """Return the memory plan; a resumed training keeps its passes, because dropout draws pass after pass."""
        return plan_memory(
            self.model,
            self.config,
            precision=precision,
            workers=self.workers,
            limit=self._memory_limit,
            images=self.data.train.pixels_NCHW.nbytes if self.device.type == "cuda" else 0,
            at_most=state.micro_batch if state else None,
        )

    def _initialise(self) -> None:
        """Fit the weights to the first batch, with dropout; each worker takes all of it, so all get equal weights."""
        batch = self._batches.whole(0)
        torch.manual_seed(self.config.seed_for("initialise"))
        self.model.initialise(batch.x_BCHW, batch.label_B)

    def _train_step(self, tally: Tally) -> None:
        """Take one optimiser step and add it to the tally."""
        with self._clock.training(self.device):
            batch = self._batches.part(self.images_seen)
            self.model.train()
            rate = learning_rate(self.config.optim, self.config.train, self.step)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.zero_grad(set_to_none=True)
            if self.config.model.dropout or self.config.model.label_dropout:
                torch.manual_seed(self.config.seed_for("dropout", self.step, self.workers.rank))
            nats_B = self._add_gradients(batch)
            tally.add(nats_B, self._clip(), self.step)
            if self._looks_at_every_step:
                tally.require_finite(self.config.train.batch_size)
            self.optimizer.found_inf = tally.skip  # type: ignore[attr-defined]
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
            self.step += 1
            self.images_seen += self.config.train.batch_size

    def _add_gradients(self, batch: Batch) -> Tensor:
        """Add the gradient of this part's mean nats in passes of `micro_batch` images; return the nats (B,), detached.

        Dropout continues to draw from pass to pass, so its masks follow from (config, step, rank, micro_batch) alone.
        """
        nats = list[Tensor]()
        passes = list(micro_batches(len(batch), self.memory.micro_batch))
        for rows in passes:
            part = batch[rows]
            with exchanging(self._loss, rows is passes[-1]):
                with autocast(self.numerics.precision, self.device), laid_out(self.model, self.numerics.layout):
                    nats_b = self._loss(part.x_BCHW, part.label_B, self.step, part.position_B)
                (nats_b.sum() / len(batch)).backward()
            nats.append(nats_b.detach())
        return torch.cat(nats)

    def _clip(self) -> Tensor:
        """Clip the gradient and return its norm before clipping; the workers' gradients are already averaged."""
        limit, parameters = self.config.optim.clip, list(self.model.parameters())
        if limit is None:
            return torch.nn.utils.get_total_norm([weight.grad for weight in parameters if weight.grad is not None])
        return torch.nn.utils.clip_grad_norm_(parameters, limit)

    def _report(self, train_nats: float, grad_norm: float, count: int) -> EpochReport:
        raw = ema = None
        if self.data.valid is not None:
            with self._clock.evaluating():
                raw = self.evaluate(self.model)
                ema = None if self.average is None else self.evaluate(self._averaged_model)
        record = ema or raw
        if record is not None and not math.isfinite(record.nats):
            raise DivergedError(
                f"validation must be finite, but after {self.images_seen} images it is {record.nats} nats; "
                "lower `optim.lr` or set `optim.clip`"
            )
        self._check_record(record, count)
        return EpochReport(
            images_seen=self.images_seen,
            step=self.step,
            epoch=self.images_seen / len(self.data.train),
            train_bits_per_dim=train_nats * self._bits_per_nat,
            train_nats=train_nats,
            valid_bits_per_dim=record.bits_per_dim if record else None,
            valid_nats=record.nats if record else None,
            valid_bits_per_dim_raw=raw.bits_per_dim if raw else None,
            valid_nats_raw=raw.nats if raw else None,
            valid_bits_per_dim_ema=ema.bits_per_dim if ema else None,
            valid_nats_ema=ema.nats if ema else None,
            lr=learning_rate(self.config.optim, self.config.train, self.step - 1),
            grad_norm=grad_norm,
            train_seconds=self._clock.train_seconds,
            eval_seconds=self._clock.eval_seconds,
            compile_seconds=self._clock.compile_seconds,
            images_per_second=self._clock.speed_since_last_report(count, self.config.train.batch_size),
        )

    def _check_record(self, record: Evaluation | None, count: int) -> None:
        """Check the weights of a report that becomes the trial's number; without validation, those of the last report.

        This includes unfinished trainings: one that is stopped at this report is ranked by it too.
        """
        is_last = self.images_seen >= self.config.train.end
        best = min((report.valid_nats for report in self.reports if report.valid_nats is not None), default=math.inf)
        if record.nats >= best if record is not None else not is_last:
            return
        with self._clock.evaluating():
            self.check(self.model_of_record, max(NUM_CUTS, round(_CHECKED_SHARE * count)))
        if record is not None:
            self.claim = record, self.images_seen

    def _restore(self, state: TrainState) -> None:
        state.require(self.config.key(), self.data.identity.checksum)
        try:
            self.model.load_state_dict(state.model)
            load_optimizer(self.optimizer, state.optimizer)
            if self.average is not None and state.average is not None:
                self.average.load_state_dict(state.average)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise CheckpointError(f"a checkpoint must fit its configuration, but this one does not: {reason}") from None
        self.images_seen, self.step, self.reports = state.images_seen, state.step, list(state.reports)
        self._since_report = state.since_report
        self._clock.go_on_from(self.reports[-1] if self.reports else None, self._since_report)

    def _choose_numerics(self) -> Numerics:
        """Return the numerics that the first worker chooses, for all workers."""
        x_BCHW = self._batches.part(self.images_seen).x_BCHW
        choice = choose_numerics(self.config.train, self.model, x_BCHW[: self.memory.micro_batch])
        is_bfloat16 = self.workers.as_first(choice.precision == "bfloat16")
        is_channels_last = self.workers.as_first(choice.layout == "channels_last")
        return Numerics(
            "bfloat16" if is_bfloat16 else "float32", "channels_last" if is_channels_last else "channels_first"
        )

    def _build_loss(self) -> Callable[..., Tensor]:
        if self.config.train.compile:
            compile_blocks(self.model)
        if self.workers.world == 1:
            return self.model
        # A gradient with one number per channel has two names for one layout.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        return DistributedDataParallel(self.model, device_ids=[self.device] if self.device.type == "cuda" else None)


def next_report(config: TrialConfig, images_seen: int) -> int:
    """Return the next number of training images at which `fit` reports: multiples of report_every, and the end."""
    every = config.train.report_every
    assert every is not None, "resolve() fills train.report_every"
    return min(config.train.end, (images_seen // every + 1) * every)
