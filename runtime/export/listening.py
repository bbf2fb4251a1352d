"""What every exporter does: listen to a site until it is told to stop, and notice when it says nothing any more."""

import threading
from collections.abc import Iterator

from tidegate.runtime.api.blocking_client import ClientError, Subscription
from tidegate.runtime.api.messages import Message

SILENT_S = 1.5  # without a snapshot for so long a site is not believed to be there
SNAPSHOTS_MISSED = 3.0
LOOK_S = 0.25


def silent_after_s(snapshot_hz: float) -> float:
    """How long after its last snapshot a site counts as silent; longer where it speaks less than twice a second."""
    return max(SILENT_S, SNAPSHOTS_MISSED / snapshot_hz)


def messages_until(stop: threading.Event | None, heard: Subscription) -> Iterator[Message | None]:
    """The messages of a subscription as they come, None each quarter second without one. stop: None = for ever.

    A gateway that is away is waited for.
    """
    while stop is None or not stop.is_set():
        try:
            yield heard.receive(LOOK_S)
        except ClientError:
            yield None
