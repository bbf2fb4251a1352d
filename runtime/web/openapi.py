"""The REST API as OpenAPI 3.1, from the classes that the gateway decodes requests with."""

import importlib.metadata
import json
from collections.abc import Mapping

import msgspec

from tidegate.runtime.api import messages
from tidegate.runtime.gateway.ops import OPERATIONS

# Of the wire, or put in by the page itself: nobody may name the person on whose behalf it asks.
OWN_FIELDS = ("v", "id", "op", "user", "for_remote")
LEFT_OUT = ("show_carbon", "account", "logins")  # the sidecar's, console's and page's own, on this machine only
SERVED = {op: kind for op, kind in OPERATIONS.items() if op not in LEFT_OUT}
STATUS = {
    "malformed": 400,
    "too-large": 413,
    "invalid-field": 400,
    "unknown-point": 400,
    "unknown-op": 404,
    "not-allowed": 403,
    "busy": 429,
    "locked": 429,
    "core-down": 503,
    "no-answer": 503,
    "unavailable": 503,
    "not-applied": 503,
    "unknown": 503,
    "internal": 500,
    "version": 500,
}
"""HTTP status of a refusal; every other one is 409, since it lies in what the site is doing."""
Schema = dict[str, object]


def http_status(code: str) -> int:
    """The HTTP status of a refusal's code."""
    return STATUS.get(code, 409)


def _any_value(kind: type) -> Schema:
    if kind is object:
        return {"description": "any value"}
    raise NotImplementedError(kind)


def _without_own(schema: Mapping[str, object]) -> Schema:
    """The schema of a request's body: without what the wire or the page puts in."""
    properties = schema.get("properties")
    required = schema.get("required")
    assert isinstance(properties, dict) and isinstance(required, list)
    made = {**schema, "properties": {name: one for name, one in properties.items() if name not in OWN_FIELDS}}
    made["required"] = [name for name in required if name not in OWN_FIELDS]
    return made


def _query(schema: Mapping[str, object]) -> list[Schema]:
    """The fields of a read as parameters of its address; a list is its name several times."""
    properties, required = schema["properties"], schema["required"]
    assert isinstance(properties, dict) and isinstance(required, list)
    return [
        {"name": name, "in": "query", "required": name in required, "schema": one} for name, one in properties.items()
    ]


def _answers(answer: object) -> Schema:
    refs = [{"$ref": "#/components/schemas/ReplyHead"}, answer]
    good = {"description": "done, or what was asked for", "content": {"application/json": {"schema": {"allOf": refs}}}}
    refusal: Schema = {"$ref": "#/components/responses/Refused"}
    codes = sorted({*STATUS.values(), 401, 409})
    return {"200": good, **{str(code): refusal for code in codes}}


def _close_by_length(node: object) -> None:
    """A pair has its length as a bound; `items: false`, which says it again, ends some generators of clients."""
    if isinstance(node, dict):
        if "prefixItems" in node and node.get("items") is False and "maxItems" in node:
            del node["items"]
        for one in node.values():
            _close_by_length(one)
    elif isinstance(node, list):
        for one in node:
            _close_by_length(one)


def document(server: str = "/") -> Schema:
    """The whole document. server: the address that paths are relative to."""
    template = "#/components/schemas/{name}"
    answers = [kind.Answer for kind in SERVED.values()]
    components: dict[str, Schema]
    refs, components = msgspec.json.schema_components(
        [*SERVED.values(), *answers, messages.ReplyHead], schema_hook=_any_value, ref_template=template
    )
    _close_by_length(components)
    paths: Schema = {}
    for (op, kind), ref, answer in zip(SERVED.items(), refs[: len(SERVED)], refs[len(SERVED) : -1], strict=True):
        name = str(ref["$ref"]).rpartition("/")[2]
        components[name] = _without_own(components[name])
        words = " ".join((kind.__doc__ or "").split())
        common: Schema = {"summary": words.split(". ")[0], "description": words, "x-role": kind.role,
                          "responses": _answers(answer)}  # fmt: skip
        schema = {"$ref": template.format(name=name)}
        body: Schema = {"required": True, "content": {"application/json": {"schema": schema}}}
        methods: Schema = {"post": {**common, "operationId": op, "requestBody": body}}
        if kind.role == "read":
            methods["get"] = {**common, "operationId": f"{op}_by_query", "parameters": _query(components[name])}
        paths[f"/api/v1/{op}"] = methods
    refused = {"description": "Refused: `code` for programs, `text` for people.",
               "content": {"application/json": {"schema": {"$ref": template.format(name="ReplyHead")}}}}  # fmt: skip
    made: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate REST API",
            "version": importlib.metadata.version("tidegate"),
            "description": "The operations of the ZeroMQ API (docs/api.md) with the same roles and refusals. "
            "A GET reads; whatever changes something is a POST.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {"Refused": refused},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
    for answer in refs[len(SERVED) : -1]:  # a field that was not asked for, such as ages, is left out
        components[str(answer["$ref"]).rpartition("/")[2]].pop("required", None)
    text = json.dumps(made)  # makes lists of the tuples among the defaults
    for op, kind in SERVED.items():
        text = text.replace(f"{kind.__module__}.{kind.__qualname__}.Answer", f"{op}.Answer")
    plain: Schema = json.loads(text)
    return plain
