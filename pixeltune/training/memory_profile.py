"""How many bytes of tensors are alive at each operation, counted rather than asked of an allocator."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SMALL_BATCHES = (1, 2)
"""Images in the two passes that a profile is made of."""


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make within it until they are freed; each once, however many views it has.

    known: tensors from before, which are not counted. now: bytes alive. line: bytes alive after each operation on
    tensors. What an operation takes and gives back before it ends, such as a workspace, is not seen.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = 0
        self.line: list[int] = []
        self._sizes: dict[weakref.ref[UntypedStorage], int] = {}
        for tensor in known:
            self._sizes[weakref.ref(tensor.untyped_storage(), self._forget)] = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: skipping it would import the whole compiler first."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation, and count what it made."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        if any(isinstance(value, Tensor) for value in tree_leaves((args, kwargs))):
            self.line.append(self.now)  # others, such as the noise of each image, are as many as there are images
        return result

    def _count(self, storage: UntypedStorage) -> None:
        reference = weakref.ref(storage, self._forget)
        if reference not in self._sizes:
            self._sizes[reference] = storage.nbytes()
            self.now += storage.nbytes()

    def _forget(self, reference: weakref.ref[UntypedStorage]) -> None:
        self.now -= self._sizes.pop(reference)


@dataclass(frozen=True)
class Profile:
    """Bytes alive after each operation of a pass, for each of SMALL_BATCHES.

    Every storage is a fixed size plus so much an image, so that those of any batch follow, and with them its peak. A
    peak alone would not do: it is at the weights' gradients for few images, and at the activations for many.
    """

    smaller: tuple[int, ...]
    larger: tuple[int, ...]

    def peak(self, images: int) -> int:
        """Return the most bytes alive at any operation of a pass of so many images."""
        first, second = SMALL_BATCHES
        pairs = zip(self.smaller, self.larger, strict=True)
        return max((few + (more - few) * (images - first) // (second - first) for few, more in pairs), default=0)
