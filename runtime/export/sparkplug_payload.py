"""Payloads of Sparkplug B: the messages of its schema that we need, made with protobuf itself.

Source: Eclipse Sparkplug 3.0.0, chapter 6.4 and sparkplug_b.proto: names, numbers and kinds of the fields.
"""

from dataclasses import dataclass
from typing import cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# DataType of the specification, table 6.4.16.
INT64, UINT64, DOUBLE, BOOLEAN, STRING = 4, 8, 10, 11, 12
_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "tidegate.sparkplug"  # a name of our own: another package may have the original's in the same process

# Message -> (field, number, kind, repeated, whether it is of the oneof `value`).
_FIELDS: dict[str, tuple[tuple[str, int, str, bool, bool], ...]] = {
    "PropertyValue": (
        ("type", 1, "uint32", False, False), ("is_null", 2, "bool", False, False), ("string_value", 8, "string", False,
        True),
    ),
    "PropertySet": (("keys", 1, "string", True, False), ("values", 2, "PropertyValue", True, False)),
    "Metric": (
        ("name", 1, "string", False, False), ("alias", 2, "uint64", False, False), ("timestamp", 3, "uint64", False,
        False), ("datatype", 4, "uint32", False, False), ("is_null", 7, "bool", False, False),
        ("properties", 9, "PropertySet", False, False), ("int_value", 10, "uint32", False, True),
        ("long_value", 11, "uint64", False, True), ("double_value", 13, "double", False, True),
        ("boolean_value", 14, "bool", False, True), ("string_value", 15, "string", False, True),
    ),
    "Payload": (
        ("timestamp", 1, "uint64", False, False), ("metrics", 2, "Metric", True, False), ("seq", 3, "uint64", False,
        False),
    ),
}  # fmt: skip
_KINDS = {"uint32": _FIELD.TYPE_UINT32, "uint64": _FIELD.TYPE_UINT64, "bool": _FIELD.TYPE_BOOL,
          "double": _FIELD.TYPE_DOUBLE, "string": _FIELD.TYPE_STRING}  # fmt: skip
_VALUE_FIELD = {INT64: "long_value", UINT64: "long_value", DOUBLE: "double_value", BOOLEAN: "boolean_value",
                STRING: "string_value"}  # fmt: skip


class BadPayload(ValueError):
    """Bytes that are no payload."""


@dataclass(frozen=True)
class Metric:
    """One value. name: "" where only the alias is sent. value: None = is_null. unit: told in a birth."""

    name: str
    datatype: int
    value: float | int | bool | str | None
    alias: int | None = None
    unit: str = ""


def _made() -> type:
    file = descriptor_pb2.FileDescriptorProto(name="tidegate_sparkplug.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        if any(of_value for *_, of_value in fields):
            message.oneof_decl.add(name="value")
        for field, number, kind, repeated, of_value in fields:
            row = message.field.add(name=field, number=number)
            row.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            row.type = _KINDS.get(kind, _FIELD.TYPE_MESSAGE)
            if kind not in _KINDS:
                row.type_name = f".{_PACKAGE}.{kind}"
            if of_value:
                row.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return cast(type, message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Payload")))


_PAYLOAD = _made()


def encoded(metrics: list[Metric], utc_ms: int, seq: int | None, *, birth: bool = False) -> bytes:
    """A payload. seq: None in an NDEATH, which has none. birth: with names, types and units."""
    payload = _PAYLOAD(timestamp=utc_ms)
    if seq is not None:
        payload.seq = seq
    for one in metrics:
        row = payload.metrics.add(timestamp=utc_ms, datatype=one.datatype)
        if one.alias is not None:
            row.alias = one.alias
        if one.name:
            row.name = one.name
        if one.value is None:
            row.is_null = True
        else:
            number = one.value
            if one.datatype == INT64:
                number = int(number) & 0xFFFF_FFFF_FFFF_FFFF  # a signed number travels in an unsigned field
            setattr(row, _VALUE_FIELD[one.datatype], number)
        if birth and one.unit:
            row.properties.keys.append("engUnit")
            row.properties.values.add(type=STRING, string_value=one.unit)
    return cast(bytes, payload.SerializeToString())


def asked(raw: bytes) -> dict[str, bool]:
    """The commands of an NCMD that are true or false. Raises BadPayload."""
    payload = _PAYLOAD()
    try:
        payload.MergeFromString(raw)
    except Exception as why:  # protobuf's own kinds of error differ from release to release
        raise BadPayload(str(why)) from None
    return {row.name: row.boolean_value for row in payload.metrics if row.HasField("boolean_value")}
