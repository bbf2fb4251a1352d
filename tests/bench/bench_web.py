"""Memory and CPU of the operator's page with ten viewers at 10 Hz over TLS, and the weight of what a browser loads.

    python tests/bench/bench_web.py [--seconds 60]

The simulated site runs beside it; the viewers are threads of this process. Prints each figure with the one that it
should keep.
"""

import http.client
import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import harness

from tidegate.runtime.web.login_codes import Pairing
from tidegate.runtime.web.static_files import StaticFiles

VIEWERS, HZ = 10, 10
RSS_MIB_MAX, CPU_MAX, WEIGHT_MAX = 64, 0.10, 250_000
OF_A_LOGIN = 5  # streams; a login may have six
PASSWORD = "tree lamp river nine"
FIGURES = []


def report(what, value, asked):
    """Print one figure beside the one asked for, and keep it for --out."""
    FIGURES.append({"figure": what, "measured": value, "asked": asked})
    print(f"{what:44} {value:30} {asked}", flush=True)


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def held_mib(pid, field):
    """VmRSS now, or VmHWM: the most so far."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(field)).split()[1]) / 1024


def login(context, port, state, user):
    """The cookie of a fresh login."""
    code = Pairing(state / "web").make("maintain")
    held = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=60)
    body = json.dumps({"code": code, "user": user, "password": PASSWORD})
    held.request("POST", "/session/pair", body, {"content-type": "application/json"})
    answer = held.getresponse()
    assert answer.status == 200, answer.read()
    cookie = answer.getheader("set-cookie").partition(";")[0]
    held.close()
    return cookie


def watch(context, port, cookie, end, counts):
    """One viewer: counts frames and bytes until the end."""
    held = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=60)
    held.request("GET", f"/live?hz={HZ}", headers={"cookie": cookie})
    answer = held.getresponse()
    frames = size = 0
    while not end.is_set():
        line = answer.readline()
        if not line:
            break  # cut off: fewer frames then show it
        size += len(line)
        frames += line.startswith(b"event: values")
    counts.append((frames, size))
    held.close()


def measured(folder, seconds):
    """(RSS in MiB, the most so far, CPU share, frames a second and viewer, bytes a second and viewer)."""
    env = {**os.environ, "TIDEGATE_RUNTIME_DIR": str(folder / "run"), "TIDEGATE_STATE_DIR": str(folder / "state"),
           "PYTHONUNBUFFERED": "1"}  # fmt: skip
    how = {"env": env, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "tidegate.runtime.cli"]
    with subprocess.Popen([*command, "run", "simulated", "--no-carbon"], **how) as site:
        assert " runs; core pid" in site.stdout.readline()
        with subprocess.Popen([*command, "web", "serve", "--port", "0"], **how) as page:
            port = int(page.stdout.readline().rpartition(":")[2])
            state = folder / "state" / "simulated"
            context = ssl.create_default_context(cafile=str(state / "web" / "ca.pem"))
            cookies = [login(context, port, state, f"anna{n}") for n in range(VIEWERS // OF_A_LOGIN)]
            end, counts = threading.Event(), []
            viewers = [
                threading.Thread(target=watch, args=(context, port, cookies[n // OF_A_LOGIN], end, counts))
                for n in range(VIEWERS)
            ]
            for one in viewers:
                one.start()
            time.sleep(min(10.0, seconds))  # logged in, everything sent once
            before, began = cpu_s(page.pid), time.monotonic()
            time.sleep(seconds)
            share = (cpu_s(page.pid) - before) / (time.monotonic() - began)
            rss_mib, peak_mib = held_mib(page.pid, "VmRSS"), held_mib(page.pid, "VmHWM")
            end.set()
            for one in viewers:
                one.join(60)
            page.terminate()
            page.wait(60)
        site.terminate()
        site.wait(60)
    whole_s = seconds + min(10.0, seconds)
    return rss_mib, peak_mib, share, *(sum(count[at] for count in counts) / len(counts) / whole_s for at in (0, 1))


def main():
    parser = harness.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    if args.smoke:
        args.seconds = 2.0
    with harness.conditions(args) as given, tempfile.TemporaryDirectory(prefix="tg") as name:
        given.peer("viewers", f"{VIEWERS} threads of this process, TLS on loopback, {HZ} Hz")
        rss_mib, peak_mib, share, frames, size = measured(Path(name), args.seconds)
    weight = sum(len(one.packed) for one in StaticFiles().held.values())
    report("memory, RSS with the viewers", f"{rss_mib:.0f} MiB", f"at most {RSS_MIB_MAX} MiB")
    report("the most so far, at a login (scrypt)", f"{peak_mib:.0f} MiB", "no figure")
    report(f"processor with {VIEWERS} viewers, of one core", f"{share:.1%}", f"at most {CPU_MAX:.0%}")
    report("frames a second and viewer", f"{frames:.1f}", f"{HZ}")
    report("bytes a second and viewer", f"{size:.0f}", "no figure")
    report("weight of the page, all languages, gzip", f"{weight} bytes", f"at most {WEIGHT_MAX}")
    harness.write(args, "web", FIGURES, given)
    good = rss_mib <= RSS_MIB_MAX and share <= CPU_MAX and weight <= WEIGHT_MAX and frames > 0
    return 0 if good or (args.smoke and frames > 0) else 1


if __name__ == "__main__":
    sys.exit(main())
