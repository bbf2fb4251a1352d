"""What every exporter does: listen to a site until it is told to stop."""

import threading
from collections.abc import Iterator

from tidegate.runtime.api.blocking_client import ClientError, Subscription
from tidegate.runtime.api.messages import Message


def messages_until(stop: threading.Event | None, heard: Subscription) -> Iterator[Message]:
    """The messages of a subscription as they come; a gateway that is away is waited for. stop: None = for ever."""
    while stop is None or not stop.is_set():
        try:
            message = heard.receive(0.5)
        except ClientError:
            continue
        if message is not None:
            yield message
