"""The operations of the API over HTTPS: the same names, roles and refusals, for programs with a token."""

import logging
from collections.abc import Mapping

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from tidegate.runtime.api.async_client import AsyncClient
from tidegate.runtime.api.connection import ClientError
from tidegate.runtime.api.messages import Refused, Role
from tidegate.runtime.gateway.ops import OPS
from tidegate.runtime.web.access_tokens import Holder
from tidegate.runtime.web.openapi import OWN_FIELDS, SERVED, http_status
from tidegate.runtime.web.web_sessions import Session

logger = logging.getLogger("tidegate.web")


def json_answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer as JSON."""
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def refused(why: Refused | ClientError) -> Response:
    """A refusal: the API's own code and sentence."""
    body = {"status": "refused", "code": why.code, "text": why.text}
    return json_answer(body, http_status(why.code), {"retry-after": "1"} if http_status(why.code) == 429 else None)


def fields_of_query(query: QueryParams) -> dict[str, object]:
    """Fields of a read from its address: a name that stands several times is a list, and so is one with commas."""
    found: dict[str, object] = {}
    for name in dict.fromkeys(key for key, _ in query.multi_items()):
        values = [part for value in query.getlist(name) for part in value.split(",") if part]
        found[name] = values if name == "points" else values[-1] if values else ""
    return found


def checked(op: str, fields: Mapping[str, object], *, strict: bool) -> dict[str, object]:
    """Fields of an operation, of the types that its class has. strict: false for an address, where all is text.

    Raises Refused. Own fields of the wire are refused: on whose behalf something is asked is not the asker's to name.
    """
    kind = SERVED.get(op)
    if kind is None:
        raise Refused("unknown-op", f"no operation {op[:32]!r}; there are: {', '.join(SERVED)}")
    own = [name for name in OWN_FIELDS if name in fields]
    if own:
        raise Refused("invalid-field", f"{own[0]}: is set by the unit itself; leave it out")
    known = {field.encode_name for field in msgspec.structs.fields(kind)}
    foreign = [name for name in fields if name not in known]
    if foreign:
        raise Refused("invalid-field", f"{foreign[0][:32]}: {op} has no such field; it has "
                      f"{', '.join(sorted(known - set(OWN_FIELDS))) or 'none'}")  # fmt: skip
    try:
        msgspec.convert({"op": op, "v": 2, "id": "1", **fields}, type=kind, strict=True)
        return dict(fields)
    except msgspec.ValidationError as why:
        if strict:
            raise Refused("invalid-field", str(why)[:200]) from None
    try:
        made = msgspec.convert({"op": op, "v": 2, "id": "1", **fields}, type=kind, strict=False)
    except msgspec.ValidationError as why:
        raise Refused("invalid-field", str(why)[:200]) from None
    return {name: value for name, value in msgspec.to_builtins(made).items() if name in fields}


async def body_of(request: Request) -> dict[str, object]:
    """The JSON map of a POST; an empty body is an empty map. Raises Refused."""
    raw = await request.body()
    if not raw:
        return {}
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused("malformed", "the body must be JSON, with content-type application/json")
    try:
        return msgspec.json.decode(raw, type=dict[str, object])
    except msgspec.DecodeError as why:
        raise Refused("malformed", f"the body is no JSON map: {why}") from None


async def ask(
    client: AsyncClient, op: str, fields: Mapping[str, object], who: Holder | Session, *, orders: bool
) -> Response:
    """Ask the gateway on somebody's behalf. orders: false where only reads may be asked."""
    role: Role | None = OPS.get(op)
    if role is not None and (not who.may(role) or (role != "read" and not orders)):
        have = f"has {who.role}" if not who.may(role) else "reads here, and orders at the page itself or with a token"
        return refused(Refused("not-allowed", f"{op} needs the role {role}; {_name(who)} {have}"))
    try:
        answer = await client.ask(op, **fields, **({} if role == "read" else {"user": _name(who)}))
    except ClientError as why:
        return refused(why)
    return json_answer(answer)


def _name(who: Holder | Session) -> str:
    return who.name if isinstance(who, Holder) else who.user
