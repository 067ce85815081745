# SPDX-License-Identifier: MIT
"""A question with its answer."""
from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Turn:
    """`then` is a question that only makes sense right after this one."""

    prompt: str
    answer: str
    long: bool = False
    then: Optional["Turn"] = None


def long_turn(prompt, answer):
    return Turn(prompt, answer, long=True)
