"""Live figures out to the gateway, in pages that fit a request. Nothing that goes wrong here stops the booking."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgpack

from tidegate.runtime.api.blocking_client import ClientError, NoAnswer
from tidegate.runtime.api.messages import COMMAND_BYTES_MAX
from tidegate.runtime.carbon.live.live_account import LiveAccount, Rows

EVERY_S = 5.0
PAGE_BYTES = COMMAND_BYTES_MAX - 512  # the head of a request has its place too
PAGE_ROWS = 32


class Asks(Protocol):
    """Who takes requests: the gateway's client."""

    def ask(self, op: str, **fields: object) -> object:
        """Ask and give the answer."""


def pages(rows: Rows) -> Iterator[Rows]:
    """Rows in pages that fit; at least one page, so that no rows is said too."""
    page: Rows = []
    size = 0
    for row in rows:
        length = len(msgpack.packb(row))
        if page and (size + length > PAGE_BYTES or len(page) == PAGE_ROWS):
            yield page
            page, size = [], 0
        page.append(row)
        size += length
    yield page


class LivePages:
    """Looks every few seconds and shows what it finds. now : the machine's clock, s."""

    def __init__(self, live: LiveAccount, client: Asks, now: Callable[[], float] = time.time,
                 every_s: float = EVERY_S) -> None:  # fmt: skip
        self._live = live
        self._client = client
        self._now = now
        self._every_s = every_s
        self._due_s = 0.0
        self._reported = ""
        self.looks = 0

    def step(self, more: Callable[[], dict[str, Rows]] | None = None) -> bool:
        """Show what is known now if that is due. Raises NoAnswer; other trouble is printed once and shown by age."""
        if time.monotonic() < self._due_s and not self._live.closing:
            return False
        try:
            now = self._now()
            found = self._live.look(now)
            for of, rows in {**found, **(more() if more is not None and found else {})}.items():
                self._show(of, int(now), rows)
            self._reported = ""
            self.looks += 1
        except NoAnswer:
            raise
        except Exception as error:  # the account is worth more than its picture
            trouble = f"live figures are not shown: {type(error).__name__}: {error}"
            if trouble != self._reported:
                self._reported = trouble
                print(f"carbon: {trouble}", file=sys.stderr, flush=True)
        self._due_s = time.monotonic() + self._every_s
        return True

    def _show(self, of: str, utc_s: int, rows: Rows) -> None:
        made: Sequence[Rows] = list(pages(rows))
        for number, page in enumerate(made):
            fields = {"of": of, "utc_s": utc_s, "page": number, "pages": len(made), "rows": page}
            for again in (True, False):
                try:
                    self._client.ask("show_carbon", **fields)
                    break
                except ClientError as error:
                    if error.code != "busy" or not again:
                        raise
                    time.sleep(0.1)
