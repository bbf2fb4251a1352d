"""`tidegate run`: one site until a signal, its end, or a restart; a changed site file that does not start gives way."""

import contextlib
import os
import signal
import sys
from pathlib import Path

from tidegate.config.site import SiteError
from tidegate.runtime.supervisor.supervisor import WAIT_S, StartError, Supervisor
from tidegate.runtime.supervisor.watchdogs import Notify

RESTART_S = 120.0  # an end and a start, each child at its slowest


def run(path: str, *, state: Path | None = None, sidecar: bool = True, core_words: list[str] | None = None) -> int:
    """`tidegate run`: supervise until a signal or the end of the core. Gives the exit code."""
    notify = Notify.from_environment(os.environ)
    if notify.error:
        print(f"tidegate: {notify.error}", file=sys.stderr, flush=True)
    pending: list[int] = []
    supervisor: Supervisor | None = None

    def on_signal(number: int, frame: object) -> None:
        pending.append(number)
        if supervisor is not None:
            supervisor.ask_to_stop()

    stops: list[int] = []

    def on_stop(number: int, frame: object) -> None:
        stops.append(number)
        if supervisor is not None:
            supervisor.order_stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    signal.signal(signal.SIGUSR1, on_stop)
    restarts: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: restarts.append(number))
    changed = False
    while True:
        try:
            supervisor = Supervisor(path, state=state, sidecar=sidecar, core_words=core_words, notify=notify)
            if pending:
                return 128 + pending[0]
            if stops:
                supervisor.order_stop()
            supervisor.start()
        except (SiteError, StartError) as why:
            if pending:
                return 128 + pending[0]
            if not changed or not _take_back(Path(path)):
                raise
            print(f"tidegate: {why}; the changed site file does not start, going back", file=sys.stderr, flush=True)
            changed = False
            continue
        for lack in supervisor.core_said.get("lacks", []):
            print(f"core runs without {lack}", file=sys.stderr, flush=True)
        pid = supervisor.children["core"].pid
        print(f"tidegate: site {supervisor.name} runs; core pid {pid}, API {supervisor.endpoint}", flush=True)
        notify.ready(f"site {supervisor.name} runs, core pid {pid}")
        while not supervisor.wait(WAIT_S):
            if restarts:
                restarts.clear()
                supervisor.ask_to_restart()
        if supervisor.restart and not pending:
            notify.patience(RESTART_S)
        else:
            notify.stopping()
        code = supervisor.stop()
        if supervisor.failure:
            print(f"tidegate: {supervisor.failure}", file=sys.stderr, flush=True)
            return code or 1
        print("tidegate: ended with setpoint 0" if code == 0 else f"tidegate: ended, core code {code}", flush=True)
        if not supervisor.restart or pending:
            return code
        changed = True


def _take_back(path: Path) -> bool:
    """Put the site file before the last change in its place, the refused one beside it; false if there is none."""
    before = path.with_name(f"{path.name}.previous")
    if not before.exists():
        return False
    refused = path.with_name(f"{path.name}.refused")
    with contextlib.suppress(OSError):
        refused.unlink()
    os.link(path, refused)
    os.rename(before, path)
    return True
