"""The JSON Schema of all messages and the tables of docs/api.md, made from the definitions that enforce them.

`python -m tidegate.runtime.gateway.api_pages docs` writes docs/api.schema.json and both tables of docs/api.md.
"""

import json
import sys
import types
import typing
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from tidegate.hal.description import RENAMED_NODE_FIELDS, RENAMED_POINTS, Description
from tidegate.runtime.api import messages
from tidegate.runtime.api.messages import Count
from tidegate.runtime.gateway import carbon_shown
from tidegate.runtime.gateway.ops import OPERATIONS, OPS, Command


def _reply() -> type[msgspec.Struct]:
    """Every answer: the head, and what any operation adds."""
    known = set(messages.ReplyHead.__struct_fields__)
    added = {
        field.name: (field.name, field.type | None, None)
        for kind in OPERATIONS.values()
        for field in msgspec.structs.fields(kind.Answer)
        if field.name not in known
    }
    return msgspec.defstruct(
        "Reply",
        list(added.values()),
        bases=(messages.ReplyHead,),
        namespace={"__doc__": messages.ReplyHead.__doc__},
        kw_only=True,
        omit_defaults=True,
    )


Reply = _reply()


class CarbonPublished(messages.Published, kw_only=True):
    """A page of the sidecar's live figures, as `show_carbon` brought it. Live and lossy."""

    kind: Literal["carbon"]
    of: carbon_shown.Of
    utc_s: Count
    page: int
    pages: int
    rows: list[carbon_shown.CarbonRow]


def _any_value(kind: type) -> dict[str, object]:
    """The schema of `object`: whatever JSON has."""
    if kind is object:
        return {"description": "any value"}
    raise NotImplementedError(kind)


def schema() -> dict[str, object]:
    """Give the JSON Schema of all messages, from the definitions that enforce them."""
    published = (messages.Meter, messages.Snapshot, messages.Event, messages.Head, CarbonPublished)
    kinds = (*OPERATIONS.values(), Reply, *published)
    components: dict[str, dict[str, dict[str, object]]]
    _, components = msgspec.json.schema_components(kinds, schema_hook=_any_value, ref_template="#/$defs/{name}")
    for old, new in RENAMED_NODE_FIELDS.items():
        node = components["Node"]["properties"]
        node[old] = {"deprecated": True, "description": f"the name of {new} in version 1"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tidegate ZeroMQ API",
        "description": "MessagePack maps. Requests: DEALER or REQ to the api socket, one frame. Topics: SUB to the "
        "stream socket, two frames, topic and payload.",
        "x-version": messages.WIRE_VERSION,
        "x-versions-read": list(messages.VERSIONS),
        "x-renamed-points": RENAMED_POINTS,
        "x-codes": messages.CODES,
        "x-roles": OPS,
        "x-topics": {
            "snapshot": "#/$defs/Snapshot",
            "meter": "#/$defs/Meter",
            "event": "#/$defs/Event",
            "head": "#/$defs/Head",
            "carbon": "#/$defs/CarbonPublished",
        },
        "x-strict": {
            "request_bytes_max": messages.COMMAND_BYTES_MAX,
            "reply_bytes_max": messages.REPLY_BYTES_MAX,
            "depth_max": messages.DEPTH_MAX,
            "text_max": messages.TEXT_MAX,
            "items_max": messages.ITEMS_MAX,
            "integer_max": messages.INTEGER_MAX,
        },
        "$defs": components,
    }


def _parts(kind: object) -> tuple[str, type[msgspec.Struct] | None]:
    """(what people should know of a type, the struct in it if there is one)."""
    if typing.get_origin(kind) is Annotated:
        inner, *metas = typing.get_args(kind)
        said, struct = _parts(inner)
        told = next((m.description for m in metas if isinstance(m, msgspec.Meta) and m.description), "")
        return (told or said), struct
    if typing.get_origin(kind) is Literal:
        return ", ".join(map(str, typing.get_args(kind))), None
    if typing.get_origin(kind) in (list, dict, typing.Union, types.UnionType):
        found = [_parts(inner) for inner in typing.get_args(kind) if inner is not type(None)]
        return next((said for said, _ in found if said), ""), next((struct for _, struct in found if struct), None)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return "", kind
    return "", None


def _columns(kind: type[msgspec.Struct], left_out: tuple[str, ...]) -> str:
    shown = []
    for field in msgspec.structs.fields(kind):
        if field.name in left_out:
            continue
        said, struct = _parts(field.type)
        if struct is not None and not issubclass(struct, Description) and not said:
            said = "each " + ", ".join(f"`{name}`" for name in struct.__struct_fields__)
        shown.append(f"`{field.name}`" + (f" ({said})" if said else ""))
    return "; ".join(shown)


def table() -> str:
    """The operations for people, as docs/api.md has them."""
    lines = ["| op | role | what it does | fields | answer |", "|---|---|---|---|---|"]
    for op, kind in OPERATIONS.items():
        what = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
        fields = _columns(kind, ("v", "id", *Command.__struct_fields__))
        lines.append(f"| `{op}` | {kind.role} | {what} | {fields} | {_columns(kind.Answer, ())} |")
    return "\n".join(lines) + "\n"


def renamed() -> str:
    """The names of version 1 that go, as docs/api.md has them."""
    lines = ["| of | version 1, deprecated | version 2 |", "|---|---|---|"]
    lines += [f"| points | `{old}` | `{new}` |" for old, new in RENAMED_POINTS.items()]
    lines += [f"| `nodes` in `describe` | `{old}` | `{new}` |" for old, new in RENAMED_NODE_FIELDS.items()]
    return "\n".join(lines) + "\n"


TABLE_BEGINS, TABLE_ENDS = (
    "<!-- operations: made by tidegate.runtime.gateway.api_pages -->\n",
    "<!-- operations end -->\n",
)
NAMES_BEGIN, NAMES_END = "<!-- names: made by tidegate.runtime.gateway.api_pages -->\n", "<!-- names end -->\n"


def write(docs: Path) -> None:
    """Bring docs/api.schema.json and the table of docs/api.md up to date."""
    (docs / "api.schema.json").write_text(json.dumps(schema(), indent=1, sort_keys=True) + "\n")
    text = (docs / "api.md").read_text()
    for begins, made, ends in ((TABLE_BEGINS, table(), TABLE_ENDS), (NAMES_BEGIN, renamed(), NAMES_END)):
        before, rest = text.split(begins)
        text = before + begins + made + ends + rest.split(ends)[1]
    (docs / "api.md").write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
