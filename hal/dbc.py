"""CAN signals out of DBC files, through cantools."""

from importlib.resources.abc import Traversable

import cantools
from cantools.database.can import Database
from cantools.database.can.signal import Signal

from tidegate.hal.map_schema import Table

NUMBERS_MAX = 64  # of a multiplexer that let one signal through


def load_dbc(where: str, path: Traversable, problems: list[str]) -> Database | None:
    """The DBC file, or None with a line in `problems` (unreadable, or a signal longer than its frame)."""
    try:
        return cantools.database.load_string(dbc_text(path.read_bytes()), "dbc")  # type: ignore[return-value]
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"map {where}: DBC file {path.name}: {error}")
    except Exception as error:  # cantools raises its own and its parser's; either way the text says what is wrong
        problems.append(f"map {where}: DBC file {path.name}: {error}")
    return None


def dbc_text(raw: bytes) -> str:
    """The text of a DBC file. Most are written in cp1252, which the format's own tools use; some in UTF-8."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252")


def fill_frame(where: str, frame: Table, database: Database, problems: list[str]) -> None:
    """Fill id, length and signal places of a frame row from the message that it names.

    A row's own scale and offset come on top: value = (raw * dbc scale + dbc offset) * scale + offset.
    """
    try:
        message = database.get_message_by_name(frame["message"])
    except KeyError:
        problems.append(f"map {where}: the DBC file has no message {frame['message']!r}")
        return
    frame.setdefault("id", message.frame_id)
    frame.setdefault("name", message.name)
    frame.setdefault("extended", message.is_extended_frame)
    frame.setdefault("len", [message.length, message.length])
    by_name = {signal.name: signal for signal in message.signals}
    rows = [row for row in frame.get("signal", []) if row.get("dbc")]
    root = _root(by_name, [by_name[row["dbc"]] for row in rows if row["dbc"] in by_name])
    if root is not None:
        frame["mux_start"], frame["mux_length"] = root.start, root.length
        frame["mux_big_endian"] = root.byte_order != "little_endian"
    for row in rows:
        signal = by_name.get(row["dbc"])
        if signal is None:
            problems.append(f"map {where}: message {message.name} has no signal {row['dbc']!r}")
            continue
        scale, offset = float(row.get("scale", 1.0)), float(row.get("offset", 0.0))
        row["start"] = signal.start
        row["length"] = signal.length
        row["byte_order"] = "little" if signal.byte_order == "little_endian" else "big"
        row["signed"] = signal.is_signed
        row["is_float"] = signal.is_float
        row["scale"] = signal.scale * scale
        row["offset"] = signal.offset * scale + offset
        row.setdefault("register", f"{message.name}.{signal.name}")
        problem = _fill_selectors(row, _selectors(by_name, signal), root)
        if problem:
            problems.append(f"map {where}: message {message.name}, signal {signal.name}: {problem}")
            continue
        if signal.is_float and signal.length not in (32, 64):
            problems.append(
                f"map {where}: message {message.name}, signal {signal.name}: a float of {signal.length} bits; 32 and "
                f"64 can be read"
            )
    if message.length > 8:
        frame.setdefault("fd", True)


def _selectors(by_name: dict[str, Signal], signal: Signal) -> list[tuple[Signal, list[int]]]:
    """Every multiplexer that a signal is behind with its numbers that let it through, the outermost first."""
    found: list[tuple[Signal, list[int]]] = []
    while signal.multiplexer_ids and signal.multiplexer_signal in by_name:
        selector = by_name[signal.multiplexer_signal]
        found.insert(0, (selector, sorted(signal.multiplexer_ids)))
        signal = selector
    return found


def _root(by_name: dict[str, Signal], signals: list[Signal]) -> Signal | None:
    """The multiplexer that becomes the frame's: the outer one of nested signals, else the first in use."""
    chains = sorted((_selectors(by_name, one) for one in signals), key=len, reverse=True)
    return chains[0][0][0] if chains and chains[0] else None


def _fill_selectors(row: Table, chain: list[tuple[Signal, list[int]]], root: Signal | None) -> str:
    """Put the numbers of a signal's multiplexers into its row. What cannot be read, in words; empty when all can."""
    inner = [one for one in chain if one[0] is not root]
    if len(inner) > 1:
        names = ", ".join(selector.name for selector, _ in chain)
        return f"behind the multiplexers {names}; the frame's and one more can be read, so leave the signal out"
    numbers = next((ids for selector, ids in chain if selector is root), [])
    if max(len(numbers), 1) * max((len(ids) for _, ids in inner), default=1) > NUMBERS_MAX:
        names = ", ".join(selector.name for selector, _ in chain)
        return f"more numbers of {names} let it through than can be told apart, at most {NUMBERS_MAX}"
    if numbers:
        row["mux"], row["mux_more"] = numbers[0], numbers[1:]
    for selector, ids in inner:
        row["mux2"], row["mux2_start"], row["mux2_length"] = ids, selector.start, selector.length
        row["mux2_big_endian"] = selector.byte_order != "little_endian"
    return ""
