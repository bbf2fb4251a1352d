"""CAN signals out of DBC files, through cantools."""

from importlib.resources.abc import Traversable

import cantools
from cantools.database.can import Database

from tidegate.hal.map_schema import Table


def load_dbc(where: str, path: Traversable, problems: list[str]) -> Database | None:
    """The DBC file, or None with a line in `problems` (unreadable, or a signal longer than its frame)."""
    try:
        return cantools.database.load_string(path.read_text(encoding="utf-8"), "dbc")  # type: ignore[return-value]
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"map {where}: DBC file {path.name}: {error}")
    except Exception as error:  # cantools raises its own and its parser's; either way the text says what is wrong
        problems.append(f"map {where}: DBC file {path.name}: {error}")
    return None


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
    for row in frame.get("signal", []):
        if not row.get("dbc"):
            continue
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
        if signal.multiplexer_ids:
            multiplexer = by_name[signal.multiplexer_signal] if signal.multiplexer_signal else None
            row["mux"] = signal.multiplexer_ids[0]
            if multiplexer is not None:
                frame["mux_start"], frame["mux_length"] = multiplexer.start, multiplexer.length
                frame["mux_big_endian"] = multiplexer.byte_order != "little_endian"
