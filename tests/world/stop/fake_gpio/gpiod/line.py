"""The words of libgpiod that gpio_lines.py uses."""

from enum import Enum


class Bias(Enum):
    AS_IS = 1
    DISABLED = 2
    PULL_UP = 3
    PULL_DOWN = 4


class Clock(Enum):
    MONOTONIC = 1


class Direction(Enum):
    INPUT = 1
    OUTPUT = 2


class Edge(Enum):
    RISING = 1
    BOTH = 2


class Value(Enum):
    INACTIVE = 0
    ACTIVE = 1
