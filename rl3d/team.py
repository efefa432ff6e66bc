"""The processes that work together, and what they tell each other."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor


class Team:
    """The processes that teach together; one alone is a team too. Started by ``accelerate launch`` or ``torchrun``."""

    def __init__(self, device: str = "cpu"):
        self.number, self.size, self._together = 0, 1, False
        self.device: torch.device = torch.device(device)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            state = PartialState(cpu=self.device.type == "cpu")
            self.number, self.size, self._together = state.process_index, state.num_processes, True
            self.device = state.device or self.device

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.number == 0

    def sum(self, x: Tensor) -> Tensor:
        """Over processes."""
        if not self._together:
            return x
        from accelerate.utils import reduce

        total = reduce(x, "sum")
        assert isinstance(total, Tensor)
        return total

    def gather(self, values: list) -> list:
        """The items of all processes' lists."""
        if not self._together:
            return values
        from accelerate.utils import gather_object

        return gather_object(values)

    def told(self, value: Any) -> Any:
        """What the first process has."""
        if not self._together:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]
