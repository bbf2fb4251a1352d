"""The headers of `ext/abi/` under gcc's thread sanitizer: each border with a writer and a reader in two threads.

Usage: borders.py [ROUNDS]. The headers are copied with the payload of every seqlock turned into relaxed atomics, by the
list below, in which every line must occur: a header that says it otherwise stops the run. PLANTS are faults, one at
least for each border; the sanitizer, or the copy itself, must find each.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
HARNESS = Path(__file__).parent / "tsan" / "borders.c"
BORDERS = ("order", "plan", "image", "picture", "event", "buses", "command", "answer")
RACE, TORN = 66, 3

PAYLOAD = {
    "abi/shared.h": {
        "    s->buses_size = size;": "    BORDER_SET(s->buses_size, size);",
        "    memcpy(s->buses, json, size);": "    border_copy(s->buses, json, size);",
        "    uint32_t size = s->buses_size;": "    uint32_t size; BORDER_GET(size, s->buses_size);",
        "    memcpy(json, s->buses, size);": "    border_copy(json, s->buses, size);",
        "    memcpy(points, s->image, ": "    border_copy(points, s->image, ",
        "    *cycle = s->cycle;": "    BORDER_GET(*cycle, s->cycle);",
        "    *t_ns = s->t_ns;": "    BORDER_GET(*t_ns, s->t_ns);",
        "    slot->cycle = cycle;": "    BORDER_SET(slot->cycle, cycle);",
        "    slot->t_ns = t_ns;": "    BORDER_SET(slot->t_ns, t_ns);",
        "    memcpy(slot->points, points, ": "    border_copy(slot->points, points, ",
        "    out->cycle = slot->cycle;": "    BORDER_GET(out->cycle, slot->cycle);",
        "    out->t_ns = slot->t_ns;": "    BORDER_GET(out->t_ns, slot->t_ns);",
        "    memcpy(out->points, slot->points, ": "    border_copy(out->points, slot->points, ",
        "    *slot = *event;": "    border_copy((char *)slot + 8, (const char *)event + 8, sizeof *slot - 8);",
        "    *out = *slot;": "    border_copy(out, slot, sizeof *out);",
        "    memcpy(out, slot, sizeof(*out));": "    border_copy(out, slot, sizeof(*out));",
        "    slot->value = value;": "    BORDER_SET(slot->value, value);",
        "    slot->expires_t_ns = expires_t_ns;": "    BORDER_SET(slot->expires_t_ns, expires_t_ns);",
        "    slot->request = request;": "    BORDER_SET(slot->request, request);",
        "    memcpy((char *)slot + ": "    border_copy((char *)slot + ",
    },
    "abi/port_mail.h": {
        "    s->t_ns = t_ns;": "    BORDER_SET(s->t_ns, t_ns);",
        "    s->valid = valid;": "    BORDER_SET(s->valid, valid);",
        "    s->urgent = urgent;": "    BORDER_SET(s->urgent, urgent);",
        "        s->regs[i] = regs[i];": "        BORDER_SET(s->regs[i], regs[i]);",
        "    *out = *s;": "    border_copy(out, s, sizeof *out);",
    },
}


class Plant(NamedTuple):
    """A fault for one border: what stands in the copied header, and what in its place."""

    border: str
    header: str
    right: str
    wrong: str


# What a header does with an atomic, and the same without one or with a weaker one.
STORES = (
    ("order", "abi/shared.h", "__atomic_store_n(&slot->seq, odd + 1u, __ATOMIC_RELEASE);", "slot->seq = odd + 1u;"),
    ("plan", "abi/shared.h", "__atomic_store_n(&slot->seq, odd + 1u, __ATOMIC_RELEASE);", "slot->seq = odd + 1u;"),
    ("image", "abi/shared.h", "{ __atomic_store_n(&s->image_seq, s->image_seq + 1u, __ATOMIC_RELEASE); }", "{ s->image_seq++; }"),  # noqa: E501
    ("picture", "abi/shared.h", "__atomic_store_n(head, *head + 1u, __ATOMIC_RELEASE);", "*head = *head + 1u;"),
    ("event", "abi/shared.h", "__atomic_store_n(&s->event_head, number + 1u, __ATOMIC_RELEASE);", "s->event_head = number + 1u;"),  # noqa: E501
    ("buses", "abi/shared.h", "__atomic_store_n(&s->buses_seq, odd + 1u, __ATOMIC_RELEASE);", "s->buses_seq = odd + 1u;"),  # noqa: E501
    ("command", "abi/port_mail.h", "__atomic_store_n(&s->seq, seq + 2u, __ATOMIC_RELEASE);", "s->seq = seq + 2u;"),
    ("answer", "abi/port_mail.h", "m->done_head + 1u, __ATOMIC_RELEASE)", "m->done_head + 1u, __ATOMIC_RELAXED)"),
    ("answer", "abi/port_mail.h", "m->done_tail + 1u, __ATOMIC_RELEASE)", "m->done_tail + 1u, __ATOMIC_RELAXED)"),
)  # fmt: skip
PLANTS = tuple(Plant(*store) for store in STORES)


def build(folder: Path, plant: Plant | None = None) -> Path:
    """Compile the harness against the copied headers. Raises ValueError for a line that no header has any more."""
    shutil.copytree(
        ROOT / "ext", folder / "ext", ignore=lambda _, names: [n for n in names if "." in n and n[-2:] != ".h"]
    )
    for name, lines in PAYLOAD.items():
        header = folder / "ext" / name
        text = header.read_text()
        for plain, atomic in lines.items():
            if plain not in text:
                raise ValueError(
                    f"{name} has no line {plain.strip()!r} any more: say in {Path(__file__).name} what it copies"
                )
            text = text.replace(plain, atomic)
        if plant is not None and plant.header == name:
            if plant.right not in text:
                raise ValueError(f"{name} has no {plant.right.strip()!r}: nowhere to plant the fault of {plant.border}")
            text = text.replace(plant.right, plant.wrong)
        header.write_text(text)
    program = folder / "borders"
    words = [
        "gcc",
        "-O1",
        "-g",
        "-w",
        "-std=gnu11",
        "-fsanitize=thread",
        f"-I{folder / 'ext'}",
        "-o",
        str(program),
        str(HARNESS),
    ]
    subprocess.run([*words, "-lpthread"], check=True)
    return program


def run(program: Path, border: str, rounds: int) -> int:
    """0: whole and without a race; RACE; TORN; anything else is a harness that does not work."""
    environment = {"TSAN_OPTIONS": f"exitcode={RACE} halt_on_error=1"}
    done = subprocess.run([program, border, str(rounds)], env=environment, capture_output=True, text=True)
    if done.returncode not in (0, RACE, TORN):
        raise RuntimeError(f"{border}: exit {done.returncode}\n{done.stdout}{done.stderr[-2000:]}")
    if done.returncode:
        print(done.stderr[:1500], file=sys.stderr)
    return done.returncode


def main(rounds: int) -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder) / "whole")
        for border in BORDERS:
            code = run(program, border, rounds)
            failed += code != 0
            print(f"{border:8} {'good' if code == 0 else 'RACE' if code == RACE else 'TORN'}")
        for number, plant in enumerate(PLANTS):
            code = run(build(Path(folder) / str(number), plant), plant.border, rounds)
            failed += code == 0
            print(f"{plant.border:8} planted {plant.wrong.strip()!r}: {'found' if code else 'NOT FOUND'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000))
