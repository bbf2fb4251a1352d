"""`tidegate notify run`: events to messages, messages to people, and a heartbeat while the site lives."""

import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import apprise

from tidegate.config.notify_targets import Notify
from tidegate.hal.description import Description, decode
from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.api.messages import Message
from tidegate.runtime.export.listening import messages_until
from tidegate.runtime.notify.alarm_messages import AlarmMessages, Target
from tidegate.runtime.notify.message_queue import MessageQueue, Waiting
from tidegate.runtime.state.process_users import may_read_secret

RETRY_S, RETRY_S_MAX = 2.0, 60.0
LOOK_S = 0.25
HEARTBEAT_TIMEOUT_S = 10.0
AGAIN_S = 1.0

logger = logging.getLogger("tidegate.notify")
Send = Callable[[Target, str, str], bool]


class NotifyError(ValueError):
    """A target that cannot be used, with the way out."""


def targets_of(notify: Notify, folder: Path) -> list[Target]:
    """The targets with their addresses. Raises NotifyError; no message of it holds an address."""
    found = []
    for one in notify.to:
        path = folder / one.url_file
        try:
            url = path.read_text().strip()
            seen = path.stat()
        except (OSError, UnicodeDecodeError) as why:
            raise NotifyError(f"notify.to {one.name}: {path}: {why}; write one Apprise URL into it") from None
        if not may_read_secret(seen):
            mode = seen.st_mode & 0o777
            raise NotifyError(f"notify.to {one.name}: others may read {path} (mode {mode:o}); run: chmod 600 {path}")
        if "\n" in url or not apprise.Apprise().add(url):
            raise NotifyError(f"notify.to {one.name}: {path} holds no Apprise URL, such as mailto:// or ntfy://")
        found.append(Target(one.name, url, one.priority, one.role))
    return found


def send(target: Target, title: str, body: str) -> bool:
    """Send one message now; whether the other side took it."""
    service = apprise.Apprise()
    service.add(target.url)
    return bool(service.notify(title=title, body=body))


class Sender(threading.Thread):
    """Sends what waits for one target, oldest first; waits longer after each failure."""

    def __init__(self, queue: MessageQueue, lock: threading.Lock, target: Target, stop: threading.Event,
                 deliver: Send = send) -> None:  # fmt: skip
        super().__init__(daemon=True)
        self._queue, self._lock, self._target, self._stop_it, self._deliver = queue, lock, target, stop, deliver
        self.fresh = threading.Event()

    def run(self) -> None:
        """Send until `stop`."""
        retry_s = RETRY_S
        while not self._stop_it.is_set():
            with self._lock:
                waiting = self._queue.next(self._target.name)
            if waiting is None:
                self.fresh.wait(LOOK_S)
                self.fresh.clear()
                continue
            if self._try(waiting):
                retry_s = RETRY_S
                with self._lock:
                    self._queue.sent(waiting)
                continue
            logger.warning(
                "%s: a message of %d was not taken; again in %.0f s", self._target.name, waiting.utc_s, retry_s
            )
            self._stop_it.wait(retry_s)
            retry_s = min(RETRY_S_MAX, retry_s * 2)

    def _try(self, waiting: Waiting) -> bool:
        with self._lock:
            dropped = self._queue.take_dropped()
        lost = f"\n({dropped} older messages could not be kept)" if dropped else ""
        try:
            return self._deliver(self._target, waiting.title, waiting.body + lost)
        except Exception as why:  # a service's library may raise anything; the message stays, and the reason is logged
            logger.warning("%s: %s", self._target.name, type(why).__name__)
            return False


class Heartbeat(threading.Thread):
    """Asks a URL while the site lives: whoever watches it from outside notices when it stays away."""

    def __init__(self, url: str, every_s: float, lives: Callable[[], bool], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._url, self._every_s, self._lives, self._stop_it = url, every_s, lives, stop

    def run(self) -> None:
        """Beat until `stop`."""
        while not self._stop_it.is_set():
            if self._lives():
                try:
                    with urllib.request.urlopen(self._url, timeout=HEARTBEAT_TIMEOUT_S) as answer:
                        answer.read(64)
                except (OSError, urllib.error.URLError, ValueError) as why:
                    logger.warning("heartbeat: %s", why)
            self._stop_it.wait(self._every_s)


class Notifier:
    """Listens to one site and queues messages. monotonic: of silence; utc_s: of what it says about that."""

    def __init__(self, client: Client, notify: Notify, targets: Sequence[Target], queue: MessageQueue,
                 deliver: Send = send, monotonic: Callable[[], float] = time.monotonic) -> None:  # fmt: skip
        self._client, self._notify, self._targets, self._queue = client, notify, targets, queue
        self._deliver, self._monotonic = deliver, monotonic
        self._lock = threading.Lock()
        self._heard_s = monotonic()
        self.silent = False
        self._makes = AlarmMessages(Description(), targets, notify.quiet_s, queue.seen())

    def lives(self) -> bool:
        """Whether the site has spoken of late."""
        return self._monotonic() - self._heard_s < self._notify.silent_s

    def describe(self, site: Message) -> None:
        """Take over what the site is."""
        self._makes = AlarmMessages(decode(site, Description), self._targets, self._notify.quiet_s, self._makes.seen)

    def take(self, message: Message | None) -> None:
        """Take over what was heard; None: nothing, for a moment."""
        if message is not None and message["kind"] == "snapshot":
            self._heard_s = self._monotonic()
        self._look()
        if message is None or message["kind"] != "event":
            return
        fresh, seen = self._makes.of(message)
        if fresh and message["event"] == "fault_on" and self._shelved(message):
            fresh = []
        with self._lock:
            self._queue.take(fresh, (str(message["boot"]), int(message["seq"])), seen)

    def _shelved(self, message: Message) -> bool:
        """Whether the alarm is put aside; while nobody can say, people are told."""
        try:
            return self._makes.is_shelved(message, self._client.ask("alarms"))
        except ClientError:
            return False

    def _look(self) -> None:
        """Tell once that the site is silent, and once that it speaks again."""
        if self.lives() is not self.silent:
            return
        self.silent = not self.silent
        utc_s = time.time()
        fresh = self._makes.silence(self._notify.silent_s, utc_s) if self.silent else self._makes.speech(utc_s)
        with self._lock:
            self._queue.take(fresh, None)

    def run(self, stop: threading.Event) -> None:
        """Listen and send until `stop`; a site that is away is waited for."""
        threads: list[threading.Thread] = [
            Sender(self._queue, self._lock, target, stop, self._deliver) for target in self._targets
        ]
        if self._notify.heartbeat_url is not None:
            threads.append(Heartbeat(self._notify.heartbeat_url, self._notify.heartbeat_s, self.lives, stop))
        for thread in threads:
            thread.start()
        since: dict[str, tuple[str, int]] = {}
        while not stop.is_set():
            try:
                self.describe(self._client.describe())
                since["event"] = self._queue.position or self._newest()
                break
            except ClientError:
                self.take(None)
                stop.wait(AGAIN_S)
        if not stop.is_set():
            for message in messages_until(stop, self._client.subscribe("snapshot", "event", since=since)):
                self.take(message)
        for thread in threads:
            thread.join(RETRY_S)

    def _newest(self) -> tuple[str, int]:
        """Where the journal stands now: what was before the first start is nothing to wake anybody for."""
        answer = self._client.ask("health")
        return str(answer["boot"]), int(answer["health"]["gateway"]["durable"].get("event", -1))
