"""Ancestral sampling that computes each feature of each pixel once, for any network that can be stepped through.

Legend of shapes: B batch, C colours, N noise numbers a pixel, H×W the image, h×w the network's grid, which is the image
or a tile of it, t tiles an axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pixeltune.config import Causality
from pixeltune.models import DensityModel
from pixeltune.sampling.request import Observed, SampleRequest
from pixeltune.sampling.stepping import Stepper


def cached(model: DensityModel, drawing: SampleRequest) -> Tensor:
    """Draw the images of `naive`, but for the order in which sums are added up."""
    rows = RowSampler(model, drawing)
    for row in range(rows.height):
        rows.draw(row)
        drawing.advance(rows.calls)
    return rows.x_BCHW


class ModelStepper:
    """The model's θ at one pixel after another; where it is split, at one offset of all tiles.

    s: features of label and latent. calls: how often θ of a pixel is asked for: once for each colour that the network
    orders, or once.
    """

    def __init__(self, model: DensityModel, batch: int, s: Tensor | None = None) -> None:
        self.model = model
        self.calls = model.form.channels if model.causality is Causality.SUBPIXEL else 1
        x_BChw = model.split.stack(next(model.parameters()).new_zeros(batch, *model.form.shape))
        self.height, self.width = x_BChw.shape[-2:]
        self.network = Stepper(model.network, x_BChw, s, colours=self.calls)

    @property
    def nbytes(self) -> int:
        """Return the memory of the caches, in bytes."""
        return self.network.memory.nbytes

    def enter(self, row: int) -> None:
        """Enter a row; see `Stepper.enter`."""
        self.network.enter(row)

    def begin(self) -> None:
        """Begin the row; see `Stepper.begin`."""
        self.network.begin()

    def parameters(self, col: int) -> Tensor:
        """Return θ in the likelihood's shape, of images of t×t pixels, one a tile."""
        theta = self.network.parameters(col)[..., None, None]
        return self.model.split.place(theta, self.model.likelihood.num_params)

    def put(self, col: int, x_BCtt: Tensor) -> None:
        """Put the levels of those pixels; colours that are not drawn yet do not matter."""
        self.network.put(col, self.model.split.stack(self.model.scale(x_BCtt))[..., 0, 0])


class RowSampler:
    """Images under way: `draw` fills one row after another of `x_BCHW`, in tiles that row of each tile.

    On a GPU a row of pixels is thousands of small kernels, so it is captured as a graph when it comes a second time.
    """

    def __init__(self, model: DensityModel, drawing: SampleRequest) -> None:
        self.stepper = ModelStepper(model, len(drawing), drawing.s)
        self.height = self.stepper.height
        self.drawing = drawing
        shape = (len(drawing), *model.form.shape)
        self.x_BCHW = drawing.noise_BNhw.new_zeros(shape, dtype=torch.int64)
        # The current row, in memory that stays where it is, because graphs read and write there.
        self._noise_BNtW = self._row_of(drawing.noise_BNhw, 0).clone()
        self._x_BCtW = self._row_of(self.x_BCHW, 0).clone()
        self._given = None if drawing.given is None else self._given_in(0)
        self._graphs: dict[int, torch.cuda.CUDAGraph | None] = {}

    @property
    def calls(self) -> int:
        """Return the number of network calls of a row."""
        return self.stepper.width * self.stepper.calls

    @torch.no_grad()
    def draw(self, row: int) -> None:
        """Draw a row; rows are drawn in order."""
        self._noise_BNtW.copy_(self._row_of(self.drawing.noise_BNhw, row))
        if self._given is not None:
            given = self._given_in(row)
            self._given.x_BCHW.copy_(given.x_BCHW)
            self._given.known_CHW.copy_(given.known_CHW)
        self.stepper.enter(row)
        self._run(self.stepper.network.phase)
        self._row_of(self.x_BCHW, row).copy_(self._x_BCtW)

    def _row_of(self, image: Tensor, row: int) -> Tensor:
        """Return (…, t, W): that row of each tile."""
        return image[..., row :: self.height, :]

    def _given_in(self, row: int) -> Observed:
        assert self.drawing.given is not None
        x_BCHW, known_CHW = self.drawing.given.x_BCHW, self.drawing.given.known_CHW
        return Observed(self._row_of(x_BCHW, row).clone(), self._row_of(known_CHW, row).clone())

    def _run(self, phase: int) -> None:
        if self.x_BCHW.device.type != "cuda" or phase not in self._graphs:
            self._draw_pixels()
            self._graphs[phase] = None
            return
        graph = self._graphs[phase]
        if graph is None:
            self._graphs[phase] = graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._draw_pixels()
        graph.replay()

    def _draw_pixels(self) -> None:
        """Draw the levels of the row from its noise."""
        stepper, temperature = self.stepper, self.drawing.temperature
        stepper.begin()
        for col in range(stepper.width):
            here = (..., slice(col, None, stepper.width))
            x_BCtt = self._x_BCtW[here]
            for colour in range(stepper.calls):
                drawn = stepper.model.draw(stepper.parameters(col), self._noise_BNtW[here], temperature)
                if self._given is not None:
                    drawn = Observed(self._given.x_BCHW[here], self._given.known_CHW[here]).put_into(drawn)
                now = slice(colour, colour + 1) if stepper.calls > 1 else slice(None)
                x_BCtt[:, now] = drawn[:, now]
                stepper.put(col, x_BCtt)
