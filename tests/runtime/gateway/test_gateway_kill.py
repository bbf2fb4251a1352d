"""kill -9 of the gateway process at random moments: its clients lose no record and see none twice.

TIDEGATE_KILLS sets how often (default 12).
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time

from tidegate.runtime.api.blocking_client import Client

KILLS = int(os.environ.get("TIDEGATE_KILLS", "12"))


class GatewayProcess:
    """The gateway as the supervisor starts it, over a fake core's memory."""

    def __init__(self, core, folder):
        self.runtime, self.state = folder / "run", folder / "state"
        for path in (self.runtime, self.state):
            path.mkdir(exist_ok=True)
        self.program_fd = os.memfd_create("program")
        os.write(self.program_fd, core.blob)
        self.words = [
            *(sys.executable, "-m", "tidegate.runtime.gateway"),
            *("--program-fd", str(self.program_fd), "--shared-fd", str(core.fd)),
            *("--runtime-dir", str(self.runtime), "--state-dir", str(self.state)),
        ]
        self.fds = (self.program_fd, core.fd)
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.words, pass_fds=self.fds, stdout=subprocess.DEVNULL)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
        os.close(self.program_fd)


def test_kill_9_at_random_moments_loses_and_doubles_no_record_at_the_client(core, tmp_path):
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    core.step()
    gateway = GatewayProcess(core, tmp_path)
    boot = core.memory.boot_id.hex()
    got = {"meter": [], "event": []}
    end = threading.Event()

    def push():
        # Never more than the rings hold: what happens behind that is the ring's own test.
        while not end.wait(0.004):
            if core.memory.meter_head - len(got["meter"]) < 200:
                core.meter()
            if core.memory.event_head < 900 + len(got["event"]) // 2:
                core.event(code=0)
            core.step()

    pusher = threading.Thread(target=push)
    pusher.start()
    try:
        with Client(f"ipc://{gateway.runtime}", timeout_s=1.0) as site:
            heard = site.subscribe("meter", "event", since={"meter": (boot, -1), "event": (boot, -1)})

            def listen(seconds):
                until = time.monotonic() + seconds
                while (left := until - time.monotonic()) > 0:
                    message = heard.receive(left)
                    if message is not None:
                        got[message.get("stream", message["kind"])].append(message)

            for _ in range(KILLS):
                listen(dice.choice([0.01, 0.1, 0.3, 0.6]) * dice.random() * 2)
                gateway.kill()
                gateway.start()
            end.set()
            pusher.join()
            wanted = core.memory.meter_head
            until = time.monotonic() + 60
            while len(got["meter"]) < wanted and time.monotonic() < until:
                listen(0.2)
            listen(1.5)
    finally:
        end.set()
        pusher.join()
        gateway.close()
    assert [record["seq"] for record in got["meter"]] == list(range(wanted)), f"seed {seed}"
    seqs = [record["seq"] for record in got["event"]]
    assert seqs == list(range(len(seqs))), f"seed {seed}"
    faults = sum(record.get("event") == "fault_on" for record in got["event"])
    assert faults == core.memory.event_head, f"seed {seed}"
    assert wanted > KILLS, "too few records to show anything"
