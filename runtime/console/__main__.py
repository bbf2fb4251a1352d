"""The console process: `python -m tidegate.runtime.console`, started and kept by the supervisor, or by hand.

With --port it serves a serial line for ever; without, the terminal it runs in.
"""

import argparse
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.console.commands import grammar
from tidegate.runtime.console.flow import Place
from tidegate.runtime.console.session import Session
from tidegate.runtime.console.transport import (
    SerialTransport,
    TerminalTransport,
    Transport,
    TransportError,
    open_serial,
)
from tidegate.runtime.console.users import LoginLock, Users
from tidegate.runtime.findings.site_state import Plant
from tidegate.runtime.state.beat import Beat
from tidegate.runtime.state.enclosure import enclose
from tidegate.runtime.state.halt import halt
from tidegate.runtime.state.paths import private_folder
from tidegate.runtime.state.stop_pipe import NAME as PIPE
from tidegate.runtime.state.syscalls import STOP_SIGNALS

TURN_S = 0.1
AGAIN_S = 2.0  # a port that is not there is looked for again
EXIT_RESTART = 85  # asks the supervisor to start the whole site anew
EXIT_ANOTHER_PORT = 75  # EX_TEMPFAIL: asks it to start this process anew


class Console:
    """Serves one line after the other until it is asked to stop."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.folder = private_folder(args.state_dir / "console", 0o700)
        self.stopping = False
        self.restart = False
        self.port_node: tuple[int, int] | None = None  # the serial port that this process may open: device and inode
        if args.port:
            self.confine()
        self.client = Client(args.endpoint)
        self.plant = Plant(self.client, time.monotonic)
        self.lock = LoginLock(self.folder, time.monotonic())
        self.users = Users(self.folder)
        self.beat = Beat()

    def confine(self) -> None:
        """Give up all but our folder, the site file's, and this one port. Signal, pipe: the stop that needs nobody."""
        written = [self.folder, *([self.args.site.resolve().parent] if self.args.site is not None else [])]
        runtime = Path(self.args.endpoint.removeprefix("ipc://"))
        read = [self.args.state_dir, runtime.parent]
        self.port_node = node_of(self.args.port)
        enclose("console", written, read, devices=[Path(self.args.port), runtime / PIPE], signals=STOP_SIGNALS)

    def ask_to_stop(self) -> None:
        self.stopping = True

    def ask_to_restart(self) -> bool:
        self.restart = self.stopping = True
        return True

    def session(self, line: Transport) -> Session:
        place = Place(
            line.name.removeprefix("/dev/"),
            self.folder,
            site=self.args.site,
            carrier=line.carrier,
            baud=self.args.baud,
            restart=self.ask_to_restart if self.args.supervised else None,
            halt=lambda: halt(self.args.endpoint),
        )
        if isinstance(line, TerminalTransport):
            place.terminal, place.probes = line.terminal(), False
        return Session(self.plant, self.users, self.lock, grammar(), line.write, place)

    def serve(self, line: Transport) -> None:
        """One line, until it is gone or we are asked to stop."""
        session = self.session(line)
        if isinstance(line, TerminalTransport):
            line.on_resize(lambda: setattr(session, "terminal", line.terminal()))
        there = line.carrier() is not False
        self.plant.poll()
        if there:
            session.open()
        why = "the console ends"
        while not self.stopping and not session.ended:
            if not line.flush():
                why = "the line is gone"
                break
            self.beat.give()
            line.wait(TURN_S)
            data = line.read()
            if data is None:
                why = "the line is gone"
                break
            carrier = line.carrier() is not False
            if there and not carrier:
                session.hang_up("the cable was pulled")
            elif carrier and not there:
                session.open()
            there = carrier
            if data and there:
                session.feed(data)
            session.tick()
        line.flush()
        session.hang_up(why)
        with contextlib.suppress(OSError):
            line.flush()

    def run_serial(self) -> None:
        """Serve the port; one that is away or in use is said once and tried again."""
        said = ""
        while not self.stopping:
            try:
                line: SerialTransport = open_serial(self.args.port, self.args.baud)
            except TransportError as why:
                if node_of(self.args.port) not in (None, self.port_node):
                    raise AnotherPortError(f"{self.args.port} is another device than at the start") from None
                if why.strerror != said:
                    said = str(why.strerror)
                    print(f"console: {said}; trying again every {AGAIN_S:.0f} s", file=sys.stderr, flush=True)
                    print("console: waiting", flush=True)
                self._pause()
                continue
            said = ""
            print(f"console: ready on {self.args.port} at {self.args.baud} baud", flush=True)
            try:
                self.serve(line)
            finally:
                line.close()
            if not self.stopping:
                print(f"console: {self.args.port} hung up", file=sys.stderr, flush=True)
                self._pause(0.2)

    def _pause(self, time_s: float = AGAIN_S) -> None:
        until_s = time.monotonic() + time_s
        while not self.stopping and time.monotonic() < until_s:
            time.sleep(0.05)
            self.beat.give()
            self.plant.poll()


class AnotherPortError(OSError):
    """A port came, or came back: only a new process gets the right to open it."""


def node_of(port: str) -> tuple[int, int] | None:
    """What a name in the file system leads to now, None if to nothing."""
    try:
        found = os.stat(port)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tidegate.runtime.console", description=__doc__)
    parser.add_argument("--endpoint", required=True, help="where the gateway listens")
    parser.add_argument(
        "--state-dir", type=Path, required=True, help="folder of the site's state; users lie in console/"
    )
    parser.add_argument("--site", type=Path, help="the site file, for config")
    parser.add_argument("--port", help="serial port, such as /dev/ttyS0; left out: this terminal")
    parser.add_argument("--baud", type=int, default=9600)
    parser.add_argument("--supervised", action="store_true", help="exit code 85 restarts the site")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    args = arguments(words)
    try:
        console = Console(args)
    except OSError as why:
        print(f"console: {why}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: console.ask_to_stop())
    try:
        if args.port:
            try:
                console.run_serial()
            except AnotherPortError as why:
                print(f"console: {why}; a new process opens it", file=sys.stderr, flush=True)
                return EXIT_ANOTHER_PORT
        else:
            line = TerminalTransport()
            try:
                console.serve(line)
            finally:
                line.close()
                print()
    finally:
        console.client.close()
    return EXIT_RESTART if console.restart else 0


if __name__ == "__main__":
    sys.exit(main())
