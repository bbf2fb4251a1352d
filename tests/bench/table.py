"""All figures of `make bench` in one table and one JSON, and held against the ones that are committed.

    python tests/bench/table.py gather --from build/bench  all.json and all.md there, of what the benches left
    python tests/bench/table.py check --from build/bench   ratios and counts beside tests/bench/measured.json
    python tests/bench/table.py take --from build/bench    that becomes tests/bench/measured.json, and the page's tables
    python tests/bench/table.py page                       the tables of docs/performance.md, of what is committed

A row: ours, the peer in the same run, ours / peer, what is asked of that ratio, the limit that physics or the kernel
sets, the machine, and the command that measures it again. `check` takes instruction counts anew; a count may rise by 2
%, a ratio may be worse by the part that its row allows (a shared machine moves them), and a row that is gone is a
failure too.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MEASURED = HERE / "measured.json"
PAGE = ROOT / "docs" / "performance.md"
INSTRUCTIONS_SHARE = 0.02
INSTRUCTIONS_RERUN = "python tests/bench/instructions.py"


@dataclass(frozen=True)
class Ratio:
    """Ours beside a peer: where the two stand in a bench's figures, and what is asked of ours / peer.

    ours, theirs : keys from the top of `figures`. at_most, at_least : of ours / peer; None = nothing is asked.
    worse : so many times worse than the committed ratio is still no finding. limit : nothing can be better than it.
    """

    key: str
    what: str
    unit: str
    bench: str
    ours: tuple[str | int, ...]
    peer: str
    theirs: tuple[str | int, ...]
    at_most: float | None = None
    at_least: float | None = None
    worse: float = 2.0
    limit: str = ""

    @property
    def less_is_better(self) -> bool:
        return self.at_least is None

    @property
    def asked(self) -> str:
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return f">= {self.at_least:g}" if self.at_least is not None else ""


def _late(who: str, which: str) -> tuple[str, str, str]:
    return "lateness_us", who, which


RATIOS = [
    Ratio(
        "wake-p50",
        "wake-up at 1 kHz, p50",
        "us",
        "loop",
        _late("loop", "p50"),
        "cyclictest",
        _late("cyclictest", "p50"),
        at_most=1.2,
        limit="the kernel's timer: cyclictest",
    ),
    Ratio(
        "wake-p99",
        "wake-up at 1 kHz, p99",
        "us",
        "loop",
        _late("loop", "p99"),
        "cyclictest",
        _late("cyclictest", "p99"),
        at_most=1.0,
        limit="cyclictest",
    ),
    Ratio(
        "wake-p99.9",
        "wake-up at 1 kHz, p99.9",
        "us",
        "loop",
        _late("loop", "p99.9"),
        "cyclictest",
        _late("cyclictest", "p99.9"),
        at_most=1.2,
        worse=4.0,
        limit="cyclictest",
    ),
    Ratio(
        "wake-asyncio",
        "wake-up at 1 kHz, p99",
        "us",
        "loop",
        _late("loop", "p99"),
        "asyncio, same FIFO priority",
        _late("asyncio", "p99"),
        at_most=0.1,
    ),
    Ratio(
        "can-python",
        "CAN receive and decode, a frame",
        "ns",
        "can",
        ("ours_cpu_ns_per_frame",),
        "python-can + cantools",
        ("python_can_cantools_cpu_ns_per_frame",),
        at_most=1 / 13,
        limit="recvmmsg alone",
    ),
    Ratio(
        "can-bare",
        "CAN receive and decode, a frame",
        "ns",
        "can",
        ("ours_ns_per_frame",),
        "recvmmsg, no decoding",
        ("recvmmsg_alone_ns_per_frame",),
        at_most=1.5,
        worse=1.3,
        limit="1",
    ),
    Ratio(
        "rtu-libmodbus",
        "Modbus RTU, 60 registers, processor a transaction",
        "us",
        "rtu",
        ("peers", "60", "ours", "cpu_us"),
        "libmodbus",
        ("peers", "60", "libmodbus", "cpu_us"),
        at_most=0.5,
    ),
    Ratio(
        "rtu-pymodbus",
        "Modbus RTU, 60 registers, processor a transaction",
        "us",
        "rtu",
        ("peers", "60", "ours", "cpu_us"),
        "pymodbus",
        ("peers", "60", "pymodbus", "cpu_us"),
        at_most=0.1,
    ),
    Ratio(
        "rtu-line",
        "Modbus RTU, 60 registers, share of the line with its silence kept",
        "",
        "rtu",
        ("peers", "60", "ours", "share"),
        "pymodbus",
        ("peers", "60", "pymodbus", "share"),
        at_least=1.0,
        worse=1.2,
        limit="1 = the silence of the standard and no more",
    ),
    Ratio(
        "tcp1-libmodbus",
        "Modbus TCP, 1 connection, processor a transaction",
        "us",
        "tcp",
        ("peers", "1", "ours", "cpu_us"),
        "libmodbus",
        ("peers", "1", "libmodbus", "cpu_us"),
        at_most=0.5,
    ),
    Ratio(
        "tcp1-pymodbus",
        "Modbus TCP, 1 connection, processor a transaction",
        "us",
        "tcp",
        ("peers", "1", "ours", "cpu_us"),
        "pymodbus",
        ("peers", "1", "pymodbus", "cpu_us"),
        at_most=0.1,
    ),
    Ratio(
        "tcp32-libmodbus",
        "Modbus TCP, 32 connections, processor a transaction",
        "us",
        "tcp",
        ("peers", "32", "ours", "cpu_us"),
        "libmodbus, a thread each",
        ("peers", "32", "libmodbus", "cpu_us"),
        at_most=0.5,
    ),
    Ratio(
        "tcp32-pymodbus",
        "Modbus TCP, 32 connections, processor a transaction",
        "us",
        "tcp",
        ("peers", "32", "ours", "cpu_us"),
        "pymodbus",
        ("peers", "32", "pymodbus", "cpu_us"),
        at_most=0.1,
    ),
]


@dataclass(frozen=True)
class Alone:
    """A figure without a peer. asked : words."""

    what: str
    unit: str
    bench: str
    place: tuple[str | int, ...]
    asked: str = ""


ALONE = [
    Alone("the loop's work in a cycle, one unit, no bus, p99", "us", "loop", ("lateness_us", "loop work", "p99")),
    Alone("the loop's share of one core", "", "loop", ("cpu_share",), "<= 0.03"),
    Alone("safety of one unit in a cycle, quiet", "ns", "gate", ("quiet", "sum_ns")),
    Alone("safety of one unit in a cycle, derated", "ns", "gate", ("derated", "sum_ns")),
    Alone("self-tests in a cycle", "ns", "selftest", ("all_ns",)),
    Alone("recorder, a cycle", "ns", "recorder", ("cost_ns_a_cycle",)),
    Alone("recorder, memory for ten minutes", "MiB", "recorder", ("mib_for_ten_minutes",)),
    Alone("virtual time, whole site", "cycles/s", "world", ("cycles_per_cpu_s",), ">= 1000000"),
    Alone(
        "alarm on the bus to setpoint 0 on the wire, worst",
        "ms",
        "world",
        ("alarm_to_zero_on_wire_ms_max",),
        "<= the site's own bound",
    ),
]


def at(figures: Any, place: Sequence[str | int]) -> Any:
    """What stands at a place; None where it does not, as where a peer is not installed."""
    for key in place:
        try:
            figures = figures[key]
        except (KeyError, IndexError, TypeError):
            return None
    return figures


def rerun(bench: str) -> str:
    return f"python tests/bench/bench_{bench}.py"


def gather(folder: Path, instructions: dict[str, Any] | None = None) -> dict[str, Any]:
    """One whole of what the benches left in a folder. Raises FileNotFoundError if they left nothing."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json")) if path.stem != "all"}
    counted = found.pop("instructions", None) if instructions is None else instructions
    if not found:
        raise FileNotFoundError(f"{folder}: no bench has left its figures there; run `make bench`")
    rows, missing = [], []
    for one in RATIOS:
        ours, theirs = (at(found.get(one.bench, {}).get("figures"), place) for place in (one.ours, one.theirs))
        if ours is None or not theirs:
            missing.append(
                f"{one.what} beside {one.peer}: "
                + (
                    "the bench left no figure"
                    if one.bench not in found
                    else "no figure of ours"
                    if ours is None
                    else "no figure of the peer: not installed, or it failed"
                )
            )
            continue
        ratio = ours / theirs
        met = (
            None if not one.asked else ratio <= one.at_most if one.at_most is not None else ratio >= (one.at_least or 0)
        )
        rows.append(
            {
                "key": one.key,
                "what": one.what,
                "unit": one.unit,
                "bench": one.bench,
                "ours": ours,
                "peer": one.peer,
                "theirs": theirs,
                "ratio": round(ratio, 4),
                "asked": one.asked,
                "met": met,
                "limit": one.limit,
                "rerun": rerun(one.bench),
            }
        )
    alone = []
    for figure in ALONE:
        value = at(found.get(figure.bench, {}).get("figures"), figure.place)
        if value is None:
            missing.append(f"{figure.what}: the bench left no figure")
        else:
            alone.append(
                {
                    "what": figure.what,
                    "ours": value,
                    "unit": figure.unit,
                    "asked": figure.asked,
                    "bench": figure.bench,
                    "rerun": rerun(figure.bench),
                }
            )
    for bench, whole in found.items():
        if isinstance(whole["figures"], list):
            alone += [
                {
                    "what": row["figure"],
                    "ours": row["measured"],
                    "unit": "",
                    "asked": row.get("asked", ""),
                    "bench": bench,
                    "rerun": rerun(bench),
                }
                for row in whole["figures"]
                if isinstance(row.get("measured"), (str, int, float))
            ]
    return {
        "conditions": {bench: whole["conditions"] for bench, whole in found.items()},
        "rows": rows,
        "alone": alone,
        "missing": missing,
        "instructions": counted,
    }


# ---- the table ----


def shown(value: Any) -> str:
    """A figure with three digits that count."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if value and abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:,.0f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


def machines(conditions: dict[str, Any]) -> list[str]:
    """One line for each bench: where, and how busy it was."""
    rows = []
    for bench, one in sorted(conditions.items()):
        steal = "not known" if one["steal_share"] is None else f"{one['steal_share']:.1%}"
        smoke = ", **a smoke run: counts for nothing**" if one["smoke"] else ""
        rows.append(
            (
                f"{bench}{smoke}",
                f"{one['cpus']} x {one['cpu']}",
                f"{one['kernel']}, {one['preemption']}",
                f"{one['load_average']:.1f}",
                steal,
                one["cpu_dma_latency"],
            )
        )
    return table(("bench", "processors", "kernel", "load at its start", "steal", "cpu_dma_latency"), rows)


def markdown(whole: dict[str, Any]) -> str:
    """The tables of a whole, as Markdown."""
    met = {True: "met", False: "**missed**", None: ""}
    lines = table(
        ("what", "ours", "peer", "the peer's", "ours / peer", "asked", "", "limit", "again with"),
        (
            (
                row["what"],
                f"{shown(row['ours'])} {row['unit']}".strip(),
                row["peer"],
                f"{shown(row['theirs'])} {row['unit']}".strip(),
                f"{row['ratio']:.3g}",
                row["asked"],
                met[row["met"]],
                row["limit"],
                f"`{row['rerun']}`",
            )
            for row in whole["rows"]
        ),
    )
    if whole["alone"]:
        lines += [
            "",
            *table(
                ("without a peer", "measured", "asked", "again with"),
                (
                    (row["what"], f"{shown(row['ours'])} {row['unit']}".strip(), str(row["asked"]), f"`{row['rerun']}`")
                    for row in whole["alone"]
                ),
            ),
        ]
    if whole["instructions"]:
        lines += [
            "",
            *table(
                ("hot path", "instructions", "again with"),
                (
                    (row["what"], f"{row['instructions']:,.0f}", f"`{INSTRUCTIONS_RERUN}`")
                    for row in whole["instructions"].values()
                ),
            ),
        ]
    if whole["missing"]:
        lines += ["", "Not in this run:", "", *(f"- {line}" for line in whole["missing"])]
    return "\n".join([*lines, "", *machines(whole["conditions"])]) + "\n"


# ---- the page ----

BEGIN, END = "<!-- begin: python tests/bench/table.py page -->\n", "<!-- end -->\n"


def page_text(page: str, whole: dict[str, Any]) -> str:
    """A page with its tables made anew. Raises ValueError without the marks."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no place for the tables")
    return head + begin + "\n" + markdown(whole) + "\n" + end + tail


# ---- the check ----


def regressions(now: dict[str, Any], then: dict[str, Any], *, ratios: bool, instructions: bool) -> list[str]:
    """Rows that are worse than the committed ones, or gone; each says by how much."""
    found: list[str] = []
    if ratios:
        rows = {row["key"]: row for row in now["rows"]}
        allowed = {one.key: one for one in RATIOS}
        for row in then["rows"]:
            one, mine = allowed.get(row["key"]), rows.get(row["key"])
            if one is None:
                found.append(
                    f"{row['key']}: the committed row is of no bench any more; `table.py take` makes them anew"
                )
            elif mine is None:
                found.append(f"{row['key']}: {row['what']} beside {row['peer']} was not measured")
            elif (
                (mine["ratio"] > row["ratio"] * one.worse)
                if one.less_is_better
                else mine["ratio"] < row["ratio"] / one.worse
            ):
                found.append(
                    f"{row['key']}: {row['what']} beside {row['peer']}: ratio {mine['ratio']:.3g}, "
                    f"committed {row['ratio']:.3g}, {one.worse:g} times worse is allowed"
                )
    if instructions:
        counted = now["instructions"] or {}
        for key, row in (then["instructions"] or {}).items():
            if key not in counted:
                found.append(f"{key}: {row['what']}: its instructions were not counted")
                continue
            more = counted[key]["instructions"] / row["instructions"] - 1.0
            if more > INSTRUCTIONS_SHARE:
                found.append(
                    f"{key}: {row['what']}: {counted[key]['instructions']:,.0f} instructions, committed "
                    f"{row['instructions']:,.0f}, {more:+.1%} (allowed {INSTRUCTIONS_SHARE:+.0%})"
                )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("gather", "check", "take", "page"))
    parser.add_argument("--from", dest="folder", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--only", choices=("ratios", "instructions"), help="of check: one of the two")
    args = parser.parse_args()
    try:
        return DO[args.do](args)
    except (FileNotFoundError, ValueError) as why:
        print(f"table: {why}", file=sys.stderr)
        return 1


def do_gather(args: argparse.Namespace) -> int:
    whole = gather(args.folder)
    (args.folder / "all.json").write_text(json.dumps(whole, indent=1) + "\n")
    (args.folder / "all.md").write_text(markdown(whole))
    print(markdown(whole))
    print(f"{args.folder}/all.json, {args.folder}/all.md")
    return 0


def do_check(args: argparse.Namespace) -> int:
    ratios, counts = args.only != "instructions", args.only != "ratios"
    then = json.loads(MEASURED.read_text())
    now = gather(args.folder) if ratios else {"rows": [], "instructions": None}
    if counts:
        import instructions

        try:
            now["instructions"] = instructions.count(list(then["instructions"] or {}))
        except instructions.Missing as why:
            print(f"bench-check: {why}", file=sys.stderr)
            return 77
    found = regressions(now, then, ratios=ratios, instructions=counts)
    for line in found:
        print(f"bench-check: WORSE {line}")
    if not found:
        held = [f"{len(then['rows'])} ratios"] * ratios + [
            f"{len(then['instructions'] or {})} instruction counts"
        ] * counts
        print(f"bench-check: {' and '.join(held)} as committed")
    return 1 if found else 0


def do_take(args: argparse.Namespace) -> int:
    whole = gather(args.folder)
    smoke = [bench for bench, one in whole["conditions"].items() if one["smoke"]]
    if smoke:
        raise ValueError(f"{', '.join(smoke)}: from a smoke run, which counts for nothing; run `make bench`")
    if not whole["instructions"]:
        raise ValueError(f"no instruction counts in {args.folder}; `{INSTRUCTIONS_RERUN} --out {args.folder}`")
    MEASURED.write_text(json.dumps(whole, indent=1) + "\n")
    print(f"{MEASURED.relative_to(ROOT)}: taken anew; say in the commit why")
    return do_page(args)


def do_page(args: argparse.Namespace) -> int:
    PAGE.write_text(page_text(PAGE.read_text(), json.loads(MEASURED.read_text())))
    print(f"{PAGE.relative_to(ROOT)}: tables made anew")
    return 0


DO = {"gather": do_gather, "check": do_check, "take": do_take, "page": do_page}

if __name__ == "__main__":
    sys.exit(main())
