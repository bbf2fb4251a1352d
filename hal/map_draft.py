"""A first device map out of a manual's register table, or out of what a live device answers: `tidegate devices new`.

What the table says is taken as it is; what it leaves open (sign, word order, limits) stands in the draft as a question.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tidegate.hal.decode import decode_registers
from tidegate.hal.map_schema import WORDS, Point
from tidegate.hal.vocabulary import required, signals, unit_of

# What a column may be called -> what it is here. Compared in lower case, without blanks and dots.
COLUMNS: dict[str, tuple[str, ...]] = {
    "name": ("signal", "point", "tidegate"),
    "register": (
        "register", "name", "description", "parameter", "quantity", "variable", "bezeichnung", "label", "details",
        "datalabel", "metric", "measurement", "designation", "beschreibung", "messgröße", "registername", "signal",
    ),
    "address": (
        "address", "addr", "adresse", "registeraddress", "modbusaddress", "registeradresse", "startaddress",
        "startingaddress", "startadresse", "startregister", "registernumber", "registerno", "registernr",
        "modbusregister", "inputregister", "holdingregister", "offset", "start", "reg", "dec", "hex", "no",
    ),
    "type": ("type", "datatype", "format", "datentyp", "encoding", "dataformat", "datenformat"),
    "unit": ("unit", "units", "einheit", "notesunits"),
    "scale": ("scale", "factor", "gain", "resolution", "multiplier", "scaling", "faktor", "scalefactor"),
    "count": ("count", "length", "size", "words", "registers", "#ofreg", "#ofregs", "noofregisters", "länge", "anzahl"),
    "note": ("note", "notes", "remark", "remarks", "comment", "range", "access"),
    "regs": ("regs", "raw", "exampleraw", "examplehex"),
    "value": ("value", "example", "examplevalue", "reading"),
}  # fmt: skip
TYPES = {
    "u16": "u16 uint16 unsigned16 word ushort uint unsignedshort unsigned 16bitunsigned uword 16bituint",
    "s16": "s16 int16 i16 signed16 short int signed 16bitsigned sword 16bitint",
    "u32": "u32 uint32 unsigned32 dword ulong udint unsignedlong 32bitunsigned acc32 udword 32bituint",
    "s32": "s32 int32 i32 signed32 long dint 32bitsigned sdword 32bitint",
    "u64": "u64 uint64 unsigned64 qword acc64 uqword 64bituint",
    "s64": "s64 int64 i64 signed64 sqword 64bitint",
    "f32": "f32 float float32 real single ieee754 32bitfloat floating fp32",
    "f64": "f64 double float64 lreal",
}
# How a type may end -> the order of its words. By the bytes: A is the highest of four.
ORDERS = {"be": "high-first", "abcd": "high-first", "bigendian": "high-first", "msw": "high-first",
          "le": "low-first", "cdab": "low-first", "littleendian": "low-first", "lsw": "low-first"}  # fmt: skip
# What the words of a row mean where the table has no unit; the first that fits.
MEANT = (
    (r"power factor|\bcos|leistungsfaktor", "1"), (r"frequen", "Hz"),
    (r"(reactive|blind).*(energy|energie|arbeit|counter)", "varh"), (r"energy|energie|arbeit", "Wh"),
    (r"reactive|blindleistung", "var"), (r"apparent|scheinleistung", "VA"), (r"temperatur", "degC"),
    (r"power|leistung", "W"), (r"voltage|spannung|\b(volts?|rms) l\d", "V"), (r"current|strom", "A"),
)  # fmt: skip
# Unit of the table -> (our unit, what one of theirs is in ours).
UNITS = {
    "w": ("W", 1.0), "kw": ("W", 1e3), "mw": ("W", 1e6), "v": ("V", 1.0), "kv": ("V", 1e3), "mv": ("V", 1e-3),
    "a": ("A", 1.0), "ma": ("A", 1e-3), "ka": ("A", 1e3), "wh": ("Wh", 1.0), "kwh": ("Wh", 1e3), "mwh": ("Wh", 1e6),
    "va": ("VA", 1.0), "kva": ("VA", 1e3), "var": ("var", 1.0), "kvar": ("var", 1e3), "hz": ("Hz", 1.0),
    "varh": ("varh", 1.0), "kvarh": ("varh", 1e3), "°c": ("degC", 1.0), "degc": ("degC", 1.0), "c": ("degC", 1.0),
    "%": ("%", 1.0), "s": ("s", 1.0), "ah": ("Ah", 1.0),
    "vac": ("V", 1.0), "v ac": ("V", 1.0), "vdc": ("V", 1.0), "aac": ("A", 1.0), "a ac": ("A", 1.0), "adc": ("A", 1.0),
}  # fmt: skip
ENDINGS = {"W": "w", "V": "v", "A": "a", "Wh": "wh", "VA": "va", "var": "var", "varh": "varh", "Hz": "hz", "degC": "c"}
ENDINGS |= {"%": "pct", "s": "s", "Ah": "ah", "1": "pf", "enum": "id"}
RANGES = {"W": (-1e6, 1e6), "V": (0.0, 2000.0), "A": (-5000.0, 5000.0), "Wh": (0.0, 1e13), "Hz": (40.0, 70.0)}
POSITIVE = {"meter": "import", "pcs": "discharge", "bms": "discharge"}
LIVE_POINTS = 64
GAP_REGS = 8  # as `gap_regs_max` of a map that says nothing
SPARE_REGS = 4


class DraftError(ValueError):
    """A table that no map can be made of; `problems` lists everything that is wrong with it."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass
class Row:
    """One register of the table, or of the device."""

    name: str
    register: str
    address: int
    type: str
    unit: str
    scale: float = 1.0
    note: str = ""
    regs: tuple[int, ...] = ()
    value: float | None = None
    questions: list[str] = field(default_factory=list)


def _plain(text: str) -> str:
    return re.sub(r"[\s._\-()\[\]/]+", "", text.strip().lower())


def _number(text: str) -> float | None:
    text = text.strip().replace(",", ".") if text.count(",") == 1 and "." not in text else text.strip()
    text = re.sub(r"^(?:/|\u00f7|:)\s*(?=[\d.])", "1/", text)
    ratio = re.fullmatch(r"([\d.]+)\s*/\s*([\d.]+)", text)
    try:
        if ratio and float(ratio[2]):
            return float(ratio[1]) / float(ratio[2])
        number = float(text.lstrip("x*\u00d7 "))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _address(text: str, base: int = 10) -> int | None:
    """An address as manuals write it: 12, 0x0C, 0Ch, 12-13 (the first counts). base: of one without a mark."""
    return next(iter(_addresses(text, base)), None)


def _addresses(text: str, base: int = 10) -> list[int]:
    """The addresses of a cell; empty where the first is none."""
    found: list[int] = []
    text = text.strip()
    groups = re.fullmatch(r"(\d{1,3})(?:[.,'\u2019\u00a0 ]\d{3})+", text)
    if groups and not re.fullmatch(rf"{groups[1]},{int(groups[1]) + 1}", text):  # 40,001 is one number, 100,101 are two
        return [int(re.sub(r"\D", "", text))]
    text = re.sub(r"^(\d+)[.,]0+$", r"\1", text)  # a spreadsheet's number
    for part in re.split(r"\s*(?:-|\u2013|~|\.\.|\u2026|/|to|bis|,|\+)\s*", text):
        try:
            if re.fullmatch(r"0[xX][0-9a-fA-F]+", part):
                found.append(int(part, 16))
            elif re.fullmatch(r"[0-9a-fA-F]+[hH]", part):
                found.append(int(part[:-1], 16))
            else:
                found.append(int(part, base))
        except ValueError:
            break
    return found


def _words(text: str) -> tuple[int, ...]:
    found = [_address(part) for part in re.split(r"[\s;]+", text.strip()) if part]
    return tuple(word for word in found if word is not None and 0 <= word <= 65535)


def signal_name(register: str, unit: str, taken: Iterable[str]) -> str:
    """A name whose ending promises the unit: the standard one where the words leave no doubt, else the words."""
    words = register.lower().translate({ord("ä"): "ae", ord("ö"): "oe", ord("ü"): "ue", ord("ß"): "ss"})
    words = re.sub(r"[^a-z0-9]+", "_", words).strip("_")
    letter = {"V": "l|u|v", "A": "l|i"}.get(unit, "l|p")  # U1, I1, P1 beside L1
    phase = re.search(rf"(?:^|_)(?:{letter}|phase_?|ph_?)([123abc])(?:_|$)", words)
    number = {"a": "1", "b": "2", "c": "3"}.get(phase[1], phase[1]) if phase else ""
    name = ""
    other = re.search(r"apparent|reactive|max|min|demand|limit|peak|pv|rated|fundamental", words)
    if unit == "W" and re.search("power|leistung", words) and not other:
        whole = re.search(r"total|sum|sys|active|gesamt", words) and not re.search(
            r"(?:^|_)(?:ct|ch|channel)_?\d", words
        )
        name = f"power_l{number}_w" if number else "power_w" if whole else ""
    elif (
        unit == "V"
        and number
        and not re.search(
            r"l1_?(to_?)?l2|l2_?(to_?)?l3|l3_?(to_?)?l1|l1_?(to_?)?l3|line_to_line|_ll|[ab]_?[bc](_|$)|ca(_|$)", words
        )
    ):
        name = f"voltage_l{number}_v"
    elif unit == "A" and number:
        name = f"current_l{number}_a"
    elif unit == "Wh" and not number and not re.search(r"reactive|tariff|_t\d|partial|daily|today", words):
        if re.search(r"import|forward|consum|positive|buy|bezug", words):
            name = "import_wh"
        elif re.search(r"export|reverse|feed|negative|sell|deliver|lieferung|einspeis", words):
            name = "export_wh"
    elif unit == "Hz":
        name = "frequency_hz"
    elif unit == "1" and re.search(r"soc|state_of_charge", words):
        name = "soc"
    if name and name not in taken:
        return name
    ending = ENDINGS.get(unit, "id")
    base = (words if re.match(r"[a-z]", words) else f"r_{words}")[: 29 - len(ending)].rstrip("_")
    base = base.removesuffix(f"_{ending}")
    name, again = f"{base}_{ending}", 2
    while name in taken:
        name, again = f"{base[: 27 - len(ending)]}{again}_{ending}", again + 1
    return name


def read_table(text: str, offset: int = 0) -> tuple[list[Row], list[str]]:
    """(rows, remarks) of a CSV table with a heading. offset: added to each address (-1 where the manual counts from 1).

    Raises DraftError when there is no heading or no row that can be used.
    """
    sample = text[:4096]
    delimiter = max(";\t,", key=lambda one: sample.splitlines()[0].count(one) if sample.strip() else 0)
    lines = [line for line in csv.reader(io.StringIO(text), delimiter=delimiter) if any(cell.strip() for cell in line)]
    if not lines:
        raise DraftError(["the table is empty"])
    first, heading, found = _heading(lines)
    rows: list[Row] = []
    remarks: list[str] = []
    if offset == 0 and re.search(r"\b(1-based|from 1|ab 1)\b", heading[found["address"]].lower()):
        offset = -1
        remarks.append("line 1: its addresses count from 1, it says: 1 is taken off each")
    base, why = _base(
        heading[found["address"]], [line[found["address"]] for line in lines[first:] if _has(line, found)]
    )
    for number, line in enumerate(lines[first:], first + 1):
        cells = {column: line[at].strip().strip("`") if at < len(line) else "" for column, at in found.items()}
        row, wrong = _row(cells, offset, [one.name for one in rows], base)
        if row is None:
            remarks.append(f"line {number}: {' | '.join(cell.strip() for cell in line)}: {wrong}")
        else:
            rows.append(row)
    if not rows:
        raise DraftError(["no line of the table could be used:", *remarks])
    rows[0].questions += [why] if why else []
    _ask_numbering(rows, offset)
    return rows, remarks


HEADING_LINES = 10  # a title and group headings may stand before the table


def _heading(lines: Sequence[Sequence[str]]) -> tuple[int, list[str], dict[str, int]]:
    """(index of the first line behind it, its cells, column -> place) of the heading, which may be of two lines.

    Raises DraftError with the columns that no line has.
    """
    for first in range(min(HEADING_LINES, len(lines))):
        for span in (1, 2):
            group = lines[first : first + span]
            width = max(len(line) for line in group)
            cells = [" ".join(line[at].strip() for line in group if at < len(line)).strip() for at in range(width)]
            found = _columns(cells)
            if "register" not in found and "name" in found:
                found["register"] = found["name"]  # a table that has one word for each row
            rest = lines[first + span :]
            if "address" not in found and "register" in found:
                _by_content(cells, found, rest)
            if "address" in found and "register" in found and rest:
                return first + span, cells, found
    found = _columns(lines[0])
    missing = [
        one for one in ("address", "register") if one not in found and not (one == "register" and "name" in found)
    ]
    known = "; ".join(f"{column}: {', '.join(COLUMNS[column][:6])}" for column in missing)
    raise DraftError([f"line 1: no column for {' and '.join(missing)}; one of these headings is looked for: {known}"])


def _by_content(cells: Sequence[str], found: dict[str, int], rest: Sequence[Sequence[str]]) -> None:
    """`register` heads the numbers in some tables and the words in others: where it has numbers, it is the address."""
    at = found["register"]
    numbers = [bool(_addresses(line[at])) for line in rest if at < len(line) and line[at].strip()]
    others = [i for i, cell in enumerate(cells) if i != at and _plain(cell) in COLUMNS["register"]]
    if numbers and all(numbers) and others:
        found["address"], found["register"] = at, others[0]


def _has(line: Sequence[str], found: Mapping[str, int]) -> bool:
    return found["address"] < len(line)


def _base(heading: str, cells: Sequence[str]) -> tuple[int, str]:
    """(base of addresses without a mark, remark): 16 where the heading says so, or where one of them has letters."""
    if re.search(r"\bhex", heading.lower()) and not re.search(r"\bdec|\bdez", heading.lower()):
        return 16, f"addresses are hexadecimal, as the heading {heading!r} says"
    bare = [part for cell in cells for part in re.split(r"[\s,+\-\u2013]+", cell.strip()) if part]
    lettered = [
        part for part in bare if re.fullmatch(r"[0-9a-fA-F]*[a-fA-F][0-9a-fA-F]*", part) and re.search(r"\d", part)
    ]
    if lettered:
        return 16, f"addresses are taken as hexadecimal, all of them, because {lettered[0]} stands among them"
    return 10, ""


def _ask_numbering(rows: Sequence[Row], offset: int) -> None:
    """Numbers such as 30001 or 40001 may be the manual's and not the wire's: asked, since some devices have both."""
    for first, function in ((30001, 4), (40001, 3), (300001, 4), (400001, 3)):
        if offset == 0 and rows and all(first <= row.address < first + 9999 for row in rows):
            rows[0].questions.append(
                f"all addresses are {first} and more: where the manual numbers so what is {rows[0].address - first} on "
                f"the wire, begin again with --offset -{first} --function {function}"
            )


def _columns(heading: Sequence[str]) -> dict[str, int]:
    """Column -> its place; what stands in brackets after a heading does not matter to which column it is.

    Of several for the address the plainest word counts: beside `Address`, `No` is the number of the row.
    """
    found: dict[str, int] = {}
    for at, cell in enumerate(heading):
        for column, names in COLUMNS.items():
            if column not in found and (_plain(cell) in names or _plain(re.sub(r"[(\[].*", "", cell)) in names):
                found[column] = at
    words = [{_plain(cell), _plain(re.sub(r"[(\[].*", "", cell))} for cell in heading]
    for name in COLUMNS["address"]:
        at_best = next((at for at, said in enumerate(words) if name in said), None)
        if at_best is not None:
            found["address"] = at_best
            break
    return found


def _type(text: str) -> tuple[str, str]:
    """(type, order of words that it names or "") of a table's word for it; ("", "") when it is not known."""
    plain = _plain(text)
    for ending, order in ORDERS.items():
        if plain.endswith(ending) and (kind := _type(plain.removesuffix(ending))[0]):
            return kind, order
    return next(((ours, "") for ours, names in TYPES.items() if plain in names.split()), ("", ""))


def _unit_and_type(text: str) -> tuple[str, str]:
    """A unit, and the type that some tables have in the same cell ("Units : VAC Uint 16")."""
    text = re.sub(r"^units?\s*[:=]\s*", "", text.strip(), flags=re.I)
    both = re.fullmatch(r"(.*?)\s*\b((?:u?int|float)\s*\d+)", text, re.I)
    return (both[1], both[2]) if both else (text, "")


def _unit_of_words(register: str) -> str:
    """The unit that the words of a row mean, in base units; "" where they do not say."""
    words = re.sub(r"[^a-z0-9]+", " ", register.lower())
    return next((unit for pattern, unit in MEANT if re.search(pattern, words)), "")


def _row(cells: Mapping[str, str], offset: int, taken: Sequence[str], base: int = 10) -> tuple[Row | None, str]:
    span = _addresses(cells.get("address", ""), base)
    address = span[0] if span else None
    if address is None or not 0 <= address + offset <= 65535:
        return None, f"address {cells.get('address', '')!r} is no number of a register"
    if not cells["register"].strip():
        return None, "it has no description; where cells are merged, write it in each row"
    questions = []
    told_unit, typed = _unit_and_type(cells.get("unit", ""))
    word = cells.get("type", "") or typed
    kind, order = _type(word)
    count = _number(cells.get("count", "")) or (span[-1] - address + 1 if len(span) > 1 else 0)
    if not kind:
        kind = {2: "u32", 4: "u64"}.get(int(count), "u16")
        questions.append(f"type {word!r} is not known: {kind} taken")
    elif count and count != WORDS.get(kind, 1):
        questions.append(f"{count:g} registers by the table, but its type {word!r} has {WORDS.get(kind, 1)}")
    elif order == "low-first":
        questions.append(f"type {word!r} means low word first: --low-word-first, or word_order of the point")
    told = re.match(r"\s*([\d.,/]+)?\s*([^\d\s].*)?$", told_unit)
    factor = _number(told[1]) if told and told[1] else 1.0  # such as "0.1 V"
    unit, worth = UNITS.get((told[2] or "").strip().lower() if told else "", ("", 1.0))
    scale = _number(cells["scale"]) if cells.get("scale") else 1.0
    if scale is None or scale == 0.0 or factor is None:
        questions.append(f"scale {cells.get('scale') or told_unit!r} is no number: 1 taken")
        scale, factor = scale or 1.0, factor or 1.0
    elif scale >= 10 and kind not in ("f32", "f64"):
        questions.append(f"scale {scale:g}: taken as value = raw x {scale:g}; many manuals mean raw / {scale:g}")
    register = cells["register"]
    if unit == "%" and re.search(r"soc|state of charge|soh", register, re.I):
        unit, worth = "1", 0.01
    if not unit:
        if told_unit:
            questions.append(f"unit {told_unit!r} is not known")
        unit = _unit_of_words(register)
        if unit and unit != "1":
            questions.append("no unit in the table, taken by the words: compare with the display, k may be missing")
        unit = unit or "enum"
    elif (meant := _unit_of_words(register)) and {unit, meant} in ({"W", "Wh"}, {"var", "varh"}):
        questions.append(f"unit {told_unit!r} of what the words call {'an energy' if 'h' in meant else 'a power'}")
    if unit not in ("enum", "1") and kind not in ("f32", "f64") and not cells.get("scale") and not (told and told[1]):
        questions.append("no scale in the table, 1 taken: compare with the display, many devices count tenths")
    name = cells.get("name", "")
    if not name or unit_of(name) is None or name in taken:
        name = signal_name(register, unit, taken)
    value = _number(cells["value"]) if cells.get("value") else None
    regs = _words(cells.get("regs", ""))
    return Row(
        name, register, address + offset, kind, unit_of(name) or unit, round(scale * factor * worth, 12),
        cells.get("note", ""), regs, None if value is None else round(value * worth, 9), questions,
    ), ""  # fmt: skip


def live_rows(function: int, words: Mapping[int, int]) -> list[Row]:
    """Rows for registers that a device answered with, in the order of their addresses: one word each, to be named."""
    return [
        Row(f"register_{address}_id", f"function {function}, register {address}", address, "u16", "enum", regs=(word,),
            questions=[_readings(words, address)])
        for address, word in sorted(words.items())[:LIVE_POINTS]
    ]  # fmt: skip


def _readings(words: Mapping[int, int], address: int) -> str:
    """What a register, and the pair that it begins, may mean."""
    shown = [f"u16 {words[address]}"]
    if words[address] >= 0x8000:
        shown.append(f"s16 {words[address] - 0x10000}")
    if address + 1 in words:
        pair = (words[address], words[address + 1])
        for order in ("high-first", "low-first"):
            for kind in ("s32", "f32"):
                point = Point.model_validate({"name": "x_id", "unit": "enum", "type": kind, "word_order": order})
                value = decode_registers(point, pair)
                if value is not None and (kind == "s32" or 1e-3 <= abs(value) < 1e9):
                    shown.append(f"{kind} {order} {value:g}")
    return "may be " + ", ".join(shown)


def _text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _readable(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Ranges (first, last) of the registers, with the gaps that a read goes over anyway and some behind each."""
    ranges: list[tuple[int, int]] = []
    for row in sorted(rows, key=lambda one: one.address):
        last = row.address + WORDS.get(row.type, 1) - 1
        if ranges and row.address - ranges[-1][1] - 1 <= GAP_REGS:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], last))
        else:
            ranges.append((row.address, last))
    return [(first, min(last + SPARE_REGS, 65535)) for first, last in ranges]


def draft(
    name: str, kind: str, rows: Sequence[Row], *, title: str = "", source: str = "", function: int = 3,
    word_order: str = "high-first", remarks: Sequence[str] = (), baud: int = 9600,
) -> str:  # fmt: skip
    """The TOML of a map with these rows, commented: open questions as doubts, and for each row a vector to fill in."""
    needed = [signal for signal in required(kind) if signal not in {row.name for row in rows}]
    lines = [
        f"# {title or name}: a draft by `tidegate devices new`. Each doubt is a question: answer it, then take it out.",
        "# Keys: docs/device-maps.md. Then: tidegate devices show FILE; tidegate read FILE --serial PORT --unit ID",
        "schema = 1", "", "[map]", f"name = {_text(name)}", 'protocol = "modbus"', f"kind = {_text(kind)}",
        f"title = {_text(title or name)}", f"source = {_text(source or 'to be said: manual, version, page')}",
        *(['unchecked = ["counter", "frozen"]'] if kind == "bms" else []),
        "doubts = [",
    ]  # fmt: skip
    signed = [row.name for row in rows if (one := signals().get(row.name)) is not None and one.signed]
    if signed:
        lines.append(f"    {_text('sign of ' + ', '.join(signed) + f': + {POSITIVE[kind]} is assumed')},")
    if any(row.type in WORDS for row in rows):
        lines.append(f"    {_text(f'word order of numbers of 32 bits and more: {word_order} is assumed')},")
    lines += [
        f"    {_text(f'no row gives {signal}, which a {kind} must have: name the row that is it')},"
        for signal in needed
    ]
    asked: dict[str, list[str]] = {}  # the same question once, with all that it is about
    for row in rows:
        for text in row.questions:
            asked.setdefault(text, []).append(row.name)
    lines += [f"    {_text(', '.join(names) + ': ' + text)}," for text, names in asked.items()]
    ranges = _readable(rows)
    if len(ranges) > 1:
        spare = f"up to {SPARE_REGS} registers behind those listed are taken as readable: no two replies of one length"
        lines.append(f"    {_text(spare)},")
    lines += [
        "]", "", "[modbus]", f"function = {function}  # 3 holding, 4 input registers",
        f"word_order = {_text(word_order)}",
        f"baud = {baud}", "# regs_max = 60  # registers that one read may have, if the manual says so",
    ]  # fmt: skip
    if len(ranges) > 1:
        lines.append(f"readable = {[list(one) for one in ranges]}  # ranges that one read may span, gaps included")
    else:
        lines.append("# readable = [[0, 40]]  # ranges that one read may span, gaps included")
    for row in rows:
        lines += ["", "[[point]]", f"name = {_text(row.name)}", f"register = {_text(row.register)}"]
        lines += [f"address = {row.address}", f"type = {_text(row.type)}", f"unit = {_text(row.unit)}"]
        if row.scale != 1.0:
            lines.append(f"scale = {row.scale!r}")
        standard = signals().get(row.name)
        if standard is not None and standard.signed:
            lines.append(f"positive = {_text(POSITIVE[kind])}  # as the manual says")
        if row.unit in RANGES:
            lines.append(f"range = {list(RANGES[row.unit])}  # what the device can show at most")
        if row.name in ("power_w", "state"):
            lines.append('poll = "fast"')
        if row.unit == "W" and row.type in ("u16", "s16") and not row.name.endswith(("_max", "_min")):
            lines.append(f"signed_source = {_text(f'doubt: {row.type} by the table; compare while power flows back')}")
        if row.note:
            lines.append(f"note = {_text(row.note)}")
    for row in rows:
        width = WORDS.get(row.type, 1)
        lines.append("")
        if len(row.regs) == width and row.value is not None:
            words = ", ".join(f"0x{word:04X}" for word in row.regs)
            lines += ["[[vector]]", f"source = {_text(source or 'the table')}", f"point = {_text(row.name)}"]
            lines += [f"regs = [{words}]", f"value = {row.value!r}"]
        else:
            words = ", ".join(f"0x{word:04X}" for word in row.regs) or ", ".join(["0x0000"] * width)
            lines += [
                "# [[vector]]",
                f"# point = {_text(row.name)}",
                '# source = "where these words and this value stand together"',
            ]
            lines += [f"# regs = [{words}]", "# value = 0.0"]
    if remarks:
        lines += ["", "# Lines of the table that no point was made of:", *[f"#   {text}" for text in remarks]]
    return "\n".join(lines) + "\n"
