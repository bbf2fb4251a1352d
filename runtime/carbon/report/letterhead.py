"""Who sends a report: operator, address and logo for the first page, from a TOML file.

```toml
operator = "Rechenwerk Nord GmbH"
address = ["Hafenstrasse 7", "20457 Hamburg"]
logo = "logo.png"                    # PNG or JPEG, beside this file
contact = "energy@rechenwerk.example"
```
"""

import base64
import io
import tomllib
from dataclasses import dataclass
from pathlib import Path

from fpdf import FPDF

LOGO_BYTES_MAX = 2_000_000
MARKS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}  # how the files begin
KEYS = ("operator", "address", "logo", "contact")
TEXT_MAX = 200
LINES_MAX = 8


@dataclass(frozen=True, slots=True)
class Letterhead:
    """What stands on the first page. logo : the picture's bytes, b"" = none; kind : png or jpeg."""

    operator: str
    address: tuple[str, ...] = ()
    contact: str = ""
    logo: bytes = b""
    kind: str = ""

    @property
    def logo_url(self) -> str:
        """The logo for a page that needs no other file."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.logo).decode()}" if self.logo else ""


def read_letterhead(path: Path) -> Letterhead:
    """Read the file. Raises ValueError that names file, key and remedy."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as TOML: {error}") from None
    unknown = sorted(set(found) - set(KEYS))
    if unknown:
        raise ValueError(f"{path}: {unknown[0]}: no such key; known: {', '.join(KEYS)}")
    address = found.get("address", [])
    if isinstance(address, str):
        address = address.splitlines()
    if not isinstance(address, list) or len(address) > LINES_MAX:
        raise ValueError(f"{path}: address: a list of at most {LINES_MAX} lines is expected")
    texts = {"operator": found.get("operator", ""), "contact": found.get("contact", "")}
    for key, text in (*texts.items(), *(("address", line) for line in address)):
        if not isinstance(text, str) or len(text) > TEXT_MAX:
            raise ValueError(f"{path}: {key}: text of at most {TEXT_MAX} letters is expected, not {text!r:.40}")
    if not texts["operator"].strip():
        raise ValueError(f'{path}: operator is missing; write operator = "name of who sends the report"')
    logo, kind = _logo(path, found.get("logo", ""))
    return Letterhead(texts["operator"], tuple(address), texts["contact"], logo, kind)


def _logo(path: Path, name: object) -> tuple[bytes, str]:
    if name == "":
        return b"", ""
    if not isinstance(name, str):
        raise ValueError(f"{path}: logo: the name of a PNG or JPEG file is expected, not {name!r:.40}")
    at = path.parent / name
    try:
        data = at.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: logo: {error}") from None
    if len(data) > LOGO_BYTES_MAX:
        raise ValueError(f"{at}: {len(data)} bytes; a logo has at most {LOGO_BYTES_MAX}")
    kind = next((kind for mark, kind in MARKS.items() if data.startswith(mark)), None)
    if kind is None:
        raise ValueError(f"{at}: a logo is a PNG or a JPEG; convert it")
    try:
        FPDF().preload_image(io.BytesIO(data))
    except Exception as error:  # whatever the decoder says of such bytes
        raise ValueError(f"{at}: a {kind.upper()} that cannot be read: {error}") from None
    return data, kind
