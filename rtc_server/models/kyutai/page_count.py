"""How many pages of attention's memory there are, where that is left to the memory that a device has free.

Pure arithmetic: knows no tensors and no device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RESERVE_BYTES: Final = 2**30
"""What a model takes beside weights, states and what its attention reads into: its libraries' own working memory,
graphs, intermediate results. An allowance, not measured."""
RESERVE_OF_A_SLOT_BYTES: Final = 16 * 2**20
"""The part of it that grows with the rows of a step: Mimi's intermediate results, and the logits, of the whole batch's
graphs and of smaller ones'. As much as a row's state in Mimi; not measured either."""


@dataclass(frozen=True, slots=True)
class PagedNeeds:
    """Of a model whose ``slots`` share pages of ``page_bytes`` each, of which one slot can fill ``pages_a_slot``.
    ``weights_bytes`` are there once; ``rest_bytes``: all that is there besides and is not a conversation's page."""

    slots: int
    pages_a_slot: int
    page_bytes: int
    weights_bytes: int
    rest_bytes: int


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Of a device, all processes included. ``total_bytes``: None where it is not known."""

    free_bytes: int
    total_bytes: int | None = None


def reserve_bytes(slots: int) -> int:
    """What is left free for all that cannot be counted."""
    return RESERVE_BYTES + slots * RESERVE_OF_A_SLOT_BYTES


def room_for_pages(needs: PagedNeeds, free_bytes: int) -> int:
    """How many ``free_bytes`` have room for, beside what else is to come into them when the weights are there."""
    return max(0, free_bytes - needs.rest_bytes - reserve_bytes(needs.slots)) // needs.page_bytes


def pages_that_fit(needs: PagedNeeds, free_bytes: int) -> int:
    """The same, but each slot has one at least, and there are no more than all slots can fill."""
    return max(needs.slots, min(needs.slots * needs.pages_a_slot, room_for_pages(needs, free_bytes)))


def left_by_others(needs: PagedNeeds, device: DeviceMemory, others_bytes: int) -> int:
    """What is free to a model whose weights are there, beside others that want ``others_bytes`` of the same device:
    each of them may have been loaded, or may yet have to be."""
    if device.total_bytes is None:
        return device.free_bytes - others_bytes
    return min(device.free_bytes, device.total_bytes - others_bytes - needs.weights_bytes)
