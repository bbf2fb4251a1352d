"""The wire contract: what is refused, and that documents and schema say what the code does."""

import json
import math
import re
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.runtime.api import messages
from tidegate.runtime.gateway import api_pages, ops

ROOT = Path(__file__).parents[3]
API = ROOT / "docs" / "api.md"
in_checkout = pytest.mark.skipif(not API.exists(), reason="docs are not installed")
GET = {"v": 1, "id": "a", "op": "get"}
SETPOINT = {"v": 1, "id": "a", "op": "setpoint", "lease": "0" * 32, "seq": 0, "setpoint_w": 1.0, "for_ms": 1}


def code(data):
    with pytest.raises(messages.Refused) as refused:
        ops.parse(data)
    return refused.value.code


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "malformed"),
        (b"\xc1", "malformed"),
        (b"\x91" * 5000, "malformed"),
        (b"\xdd\xff\xff\xff\xff", "malformed"),
        (b"\xdf\xff\xff\xff\xff", "malformed"),
        (msgpack.packb([GET]), "malformed"),
        (msgpack.packb(GET) + b"\x00", "malformed"),
        (b"\x82\xa1v\x01\xa1v\x01", "malformed"),
        (msgpack.packb({**GET, "x": math.nan}), "malformed"),
        (msgpack.packb({**GET, "x": -math.inf}), "malformed"),
        (msgpack.packb({**GET, "x": 2**53 + 1}), "malformed"),
        (msgpack.packb({**GET, "x": b"binary"}), "malformed"),
        (msgpack.packb({**GET, "x": msgpack.ExtType(5, b"x")}), "malformed"),
        (msgpack.packb({**GET, "x": msgpack.Timestamp(1, 1)}), "malformed"),
        (msgpack.packb({**GET, b"x": 1}), "malformed"),
        (msgpack.packb({**GET, 7: 1}), "malformed"),
        (msgpack.packb({**GET, "x": "y" * 257}), "malformed"),
        (msgpack.packb({**GET, "x": [[[[[[[1]]]]]]]}), "malformed"),
        (b"\xa1" + b"\xff", "malformed"),
        (msgpack.packb({**GET, "x": ["y" * 200] * 50}), "too-large"),
        (msgpack.packb({**GET, "v": 3}), "version"),
        (msgpack.packb({**GET, "v": True}), "version"),
        (msgpack.packb({**GET, "v": 1.0}), "version"),
        (msgpack.packb({"id": "a", "op": "get"}), "version"),
        (msgpack.packb({**GET, "op": "rm"}), "unknown-op"),
        (msgpack.packb({"v": 1, "id": "a"}), "unknown-op"),
        (msgpack.packb({"v": 1, "op": "get"}), "invalid-field"),
        (msgpack.packb({**GET, "id": ""}), "invalid-field"),
        (msgpack.packb({**GET, "id": "x" * 65}), "invalid-field"),
        (msgpack.packb({**GET, "points": "site.grid_w"}), "invalid-field"),
        (msgpack.packb({**SETPOINT, "extra": 1}), "invalid-field"),
        (msgpack.packb({**SETPOINT, "setpoint_w": "1"}), "invalid-field"),
        (msgpack.packb({**SETPOINT, "setpoint_w": 1e308}), "invalid-field"),
        (msgpack.packb({**SETPOINT, "setpoint_w": True}), "invalid-field"),
        (msgpack.packb({**SETPOINT, "for_ms": 0}), "invalid-field"),
        (msgpack.packb({**SETPOINT, "for_ms": 86_400_001}), "invalid-field"),
        (msgpack.packb({**SETPOINT, "seq": -1}), "invalid-field"),
        (msgpack.packb({**SETPOINT, "lease": "Z" * 32}), "invalid-field"),
        (msgpack.packb({"v": 1, "id": "a", "op": "lease", "action": "steal"}), "invalid-field"),
        (msgpack.packb({"v": 1, "id": "a", "op": "lease", "action": "acquire", "period_ms": 3334}), "invalid-field"),
        (msgpack.packb({"v": 1, "id": "a", "op": "limit", "import_w_max": -1.0, "for_ms": 1}), "invalid-field"),
    ],
)
def test_each_kind_of_bad_request_has_its_code(data, expected):
    assert code(data) == expected


def test_unknown_fields_are_ignored_in_reads_only():
    assert ops.parse(msgpack.packb({**GET, "later": 1})).points == []
    assert code(msgpack.packb({**SETPOINT, "later": 1})) == "invalid-field"


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(data):
    try:
        ops.parse(data)
    except messages.Refused as why:
        assert why.code in messages.CODES


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from([*SETPOINT, "other"]), values, max_size=8))
def test_a_setpoint_that_is_accepted_is_finite_and_bounded(changes):
    try:
        request = ops.parse(msgpack.packb({**SETPOINT, **changes}))
    except (messages.Refused, ValueError):
        return
    if isinstance(request, ops.Setpoint):
        assert math.isfinite(request.setpoint_w) and abs(request.setpoint_w) <= 1e9
        assert 1 <= request.for_ms <= messages.FOR_MS_MAX


@in_checkout
def test_the_schema_in_docs_is_made_from_the_code():
    shipped = (ROOT / "docs" / "api.schema.json").read_text()
    made = json.dumps(api_pages.schema(), indent=1, sort_keys=True) + "\n"
    assert shipped == made, "run: python -m tidegate.runtime.gateway.api_pages docs"


@in_checkout
def test_the_documented_bytes_are_the_documented_requests():
    found = re.findall(r"```hex\n([0-9a-f]+)\n```\n```json\n(.*?)\n```", API.read_text(), re.S)
    assert len(found) >= 3
    for raw, text in found:
        assert msgpack.unpackb(bytes.fromhex(raw)) == json.loads(text)
        assert type(ops.parse(bytes.fromhex(raw))).__name__.lower() == json.loads(text)["op"]


@in_checkout
def test_the_c_example_sends_the_documented_bytes():
    literal = re.search(r"get\[\] = (.*);", API.read_text())
    assert literal is not None
    text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literal.group(1)))
    sent = re.sub(r"\\x([0-9a-f]{2})", lambda m: chr(int(m.group(1), 16)), text).encode("latin-1")
    documented = re.search(r"```hex\n([0-9a-f]+)\n```", API.read_text())
    assert documented is not None and sent == bytes.fromhex(documented.group(1))


@in_checkout
def test_every_code_role_and_request_is_documented():
    text = API.read_text()
    for name, meaning in messages.CODES.items():
        assert f"| `{name}` | {meaning} |" in text
    assert api_pages.TABLE_BEGINS + api_pages.table() + api_pages.TABLE_ENDS in text, (
        "run: python -m tidegate.runtime.gateway.api_pages docs"
    )
    assert api_pages.NAMES_BEGIN + api_pages.renamed() + api_pages.NAMES_END in text, (
        "run: python -m tidegate.runtime.gateway.api_pages docs"
    )
    for topic in messages.TOPICS:
        assert f"| `{topic}` |" in text


def test_every_code_that_is_raised_is_listed():
    source = "".join(path.read_text() for path in (ROOT / "runtime" / "gateway").glob("*.py"))
    raised = set(re.findall(r'Refused\(\s*"([a-z-]+)"', source + Path(messages.__file__).read_text()))
    assert raised <= set(messages.CODES) and len(raised) > 10


@in_checkout
def test_the_javascript_example_sends_the_documented_bytes():
    literal = re.search(r"encode\((\{.*?\})\)", API.read_text())
    assert literal is not None
    body = json.loads(re.sub(r"(\w+):", r'"\1":', literal.group(1)))  # a JS object literal with plain keys
    documented = re.search(r"```hex\n([0-9a-f]+)\n```", API.read_text())
    assert documented is not None and msgpack.packb(body) == bytes.fromhex(documented.group(1))
