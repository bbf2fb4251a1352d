"""A GPIO chip for tests: one input whose level is what was written last into the pipe at TIDEGATE_TEST_GPIO."""

import os
import time
from types import SimpleNamespace
from typing import Any


class LineSettings:
    def __init__(self, **given: Any) -> None:
        self.given = given


class Chip:
    """What a look at the chip finds."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get_line_info(self, offset: int) -> Any:
        return SimpleNamespace(used=False, consumer="")

    def get_info(self) -> Any:
        return SimpleNamespace(num_lines=32)

    def close(self) -> None:
        pass


class Edge:
    """One edge, as libgpiod tells it."""

    class Type:
        RISING_EDGE = "rising"
        FALLING_EDGE = "falling"

    def __init__(self, offset: int, active: bool, number: int) -> None:
        self.line_offset, self.line_seqno = offset, number
        self.event_type = self.Type.RISING_EDGE if active else self.Type.FALLING_EDGE
        self.timestamp_ns = time.monotonic_ns()


class Request:
    def __init__(self, offset: int) -> None:
        self.fd = os.open(os.environ["TIDEGATE_TEST_GPIO"], os.O_RDWR | os.O_NONBLOCK)
        self.offset, self.active, self.number = offset, False, 0

    def read_edge_events(self) -> list[Edge]:
        try:
            levels = os.read(self.fd, 64)
        except BlockingIOError:
            return []
        found = []
        for level in levels:
            self.active = level == ord("1")
            self.number += 1
            found.append(Edge(self.offset, self.active, self.number))
        return found

    def get_value(self, offset: int) -> Any:
        return SimpleNamespace(value=int(self.active))

    def set_value(self, offset: int, value: Any) -> None:
        pass

    def release(self) -> None:
        os.close(self.fd)


def request_lines(path: str, config: dict[Any, Any], consumer: str) -> Request:
    return Request(next(iter(config)))
