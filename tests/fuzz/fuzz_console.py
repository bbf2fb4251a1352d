"""Lines of every kind against the console's session: nothing may raise, nothing but plain text may come out, and
`stop` must answer after each batch.

    python tests/fuzz/fuzz_console.py --lines 10000000
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.runtime.console.console_rig import NAME, PASSWORD, USER, Desk  # noqa: E402

BATCH = 1000
PLAIN = bytes([*range(0x20, 0x7F), 0x0D, 0x0A, 0x08])
ENDS = [b"\r", b"\n", b"\r\n"]
ESCAPES = [
    b"\x1b[A",
    b"\x1b[B",
    b"\x1b[C",
    b"\x1b[D",
    b"\x1b[H",
    b"\x1b[3~",
    b"\x1b[0n",
    b"\x1b[24;80R",
    b"\x1b[9999;1R",
    b"\x1b[",
]
WORDS = [
    *(USER, NAME, PASSWORD, "5kW", "-2.5kW", "1e308W", "nanW", "30s", "5min", "-1s", "site.grid_w", "bms1", "*", "["),
    *("?", "%s", "{0}", "$(reboot)", "`id`", "../../etc/passwd", "off", "on", "80x24", "import", "export", "for"),
]


def line_of(dice: random.Random, verbs: list[str]) -> bytes:
    """One line: noise, words, a command, or a command with something wrong in it."""
    kind = dice.random()
    if kind < 0.15:
        return dice.randbytes(dice.randrange(1, 60))
    if kind < 0.2:
        return b"x" * dice.randrange(200, 600)
    words = [dice.choice(verbs) if dice.random() < 0.8 else dice.choice(WORDS)]
    words += [dice.choice(WORDS) for _ in range(dice.randrange(0, 4))]
    line = " ".join(words).encode()
    if kind < 0.4:
        at = dice.randrange(len(line))
        line = line[:at] + dice.choice([dice.randbytes(2), dice.choice(ESCAPES), b"\t", b"\x03", b"\x7f"]) + line[at:]
    return line


def run(lines: int, seed: int, folder: Path) -> dict[str, int]:
    """Feed so many lines; counts of what happened. Raises AssertionError for what must not."""
    dice = random.Random(seed)
    desk = Desk(folder)
    verbs = [
        form.text.replace("[", "").replace("]", "") for form in desk.session.grammar.forms if "user" not in form.text
    ]
    verbs = [verb for verb in verbs if not verb.startswith(("passwd", "exit"))]
    counts = {"lines": 0, "stops": 0, "bytes out": 0, "logins": 0}
    while counts["lines"] < lines:
        if counts["stops"] % 2:  # every other batch by somebody who is logged in
            desk.now_s += 3601
            desk.session.feed(f"\r\x03logout\r\x03login {USER}\r{PASSWORD}\r".encode())
            counts["logins"] += desk.session.user is not None
        for _ in range(min(BATCH, lines - counts["lines"])):
            line = line_of(dice, verbs)
            desk.session.feed(line + dice.choice(ENDS))
            desk.now_s += (len(line) + 1) * 10 / 9600
            counts["lines"] += 1
            if counts["lines"] % 16 == 0:
                desk.session.tick()
        out = bytes(desk.sent)
        desk.sent.clear()
        # Only these sequences are ever sent, and only to a terminal that has answered.
        for known in (b"\x1b[5n", b"\x1b7\x1b[999;999H\x1b[6n\x1b8", b"\x1b[2J", b"\x1b[H", b"\x1b[K"):
            out = out.replace(known, b"")
        left = out.translate(None, PLAIN)
        assert set(left) <= {0x1B}, f"seed {seed}, before line {counts['lines']}: {left[:40]!r}"
        counts["bytes out"] += len(out)
        desk.gateway.calls.clear()
        desk.session.feed(b"\r\x03stop\r")
        assert any(op == "mode" and fields["mode"] == "stop" for op, fields in desk.gateway.calls), (
            f"seed {seed}: no stop after line {counts['lines']}"
        )
        counts["stops"] += 1
        desk.sent.clear()
        desk.gateway.calls.clear()
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = run(args.lines, args.seed, Path(folder))
    took_s = time.monotonic() - began_s
    print(f"console: {counts}, seed {args.seed}, {took_s:.0f} s, 0 crashes")


if __name__ == "__main__":
    main()
