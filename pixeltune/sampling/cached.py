"""Ancestral sampling that computes each feature of each pixel once, for any network that can be stepped through.

Legend of shapes: B batch, C colours, N noise numbers a pixel, H×W the image, h×w the network's grid, which is the image
or a tile of it, t tiles an axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pixeltune.config import Causality
from pixeltune.models import DensityModel
from pixeltune.sampling.stepping import Stepper


def cached(model: DensityModel, noise_BNhw: Tensor, s: Tensor | None = None) -> Tensor:
    """The images of `naive`, but for the order in which sums are added up."""
    rows = RowSampler(model, noise_BNhw, s)
    for row in range(rows.height):
        rows.draw(row)
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
        """Memory of the caches."""
        return self.network.memory.nbytes

    def enter(self, row: int) -> None:
        """See `Stepper.enter`."""
        self.network.enter(row)

    def begin(self) -> None:
        """See `Stepper.begin`."""
        self.network.begin()

    def parameters(self, col: int) -> Tensor:
        """θ in the likelihood's shape, of images of t×t pixels, one a tile."""
        theta = self.network.parameters(col)[..., None, None]
        return self.model.split.place(theta, self.model.likelihood.num_params)

    def put(self, col: int, x_BCtt: Tensor) -> None:
        """The levels of those pixels; colours that are not drawn yet do not matter."""
        self.network.put(col, self.model.split.stack(self.model.scale(x_BCtt))[..., 0, 0])


class RowSampler:
    """Images under way: `draw` fills one row after another of `x_BCHW`, in tiles that row of each tile.

    On a GPU a row of pixels is thousands of small kernels, so it is captured as a graph when it comes a second time.
    """

    def __init__(self, model: DensityModel, noise_BNhw: Tensor, s: Tensor | None = None) -> None:
        self.stepper = ModelStepper(model, len(noise_BNhw), s)
        self.height = self.stepper.height
        self.noise_BNhw = noise_BNhw
        self.x_BCHW = noise_BNhw.new_zeros((len(noise_BNhw), *model.form.shape), dtype=torch.int64)
        self._noise_BNtW = torch.empty_like(noise_BNhw[:, :, :: self.height])
        self._x_BCtW = torch.empty_like(self.x_BCHW[:, :, :: self.height])
        self._graphs: dict[int, torch.cuda.CUDAGraph | None] = {}

    def draw(self, row: int) -> None:
        """Draw a row; rows are drawn in order."""
        self._noise_BNtW.copy_(self.noise_BNhw[:, :, row :: self.height])
        self.stepper.enter(row)
        self._run(self.stepper.network.phase)
        self.x_BCHW[:, :, row :: self.height] = self._x_BCtW

    def _run(self, phase: int) -> None:
        if self.noise_BNhw.device.type != "cuda" or phase not in self._graphs:
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
        """From the noise of the row to its levels."""
        stepper = self.stepper
        stepper.begin()
        for col in range(stepper.width):
            noise_BNtt = self._noise_BNtW[..., col :: stepper.width]
            x_BCtt = self._x_BCtW[..., col :: stepper.width]
            for colour in range(stepper.calls):
                drawn = stepper.model.draw(stepper.parameters(col), noise_BNtt)
                now = slice(colour, colour + 1) if stepper.calls > 1 else slice(None)
                x_BCtt[:, now] = drawn[:, now]
                stepper.put(col, x_BCtt)
