"""What pydantic found wrong with a TOML table, in words with a remedy."""

import difflib
from typing import Any, get_args, get_origin

from pydantic import BaseModel


def known_keys(root: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the table at `loc` of this model, as a file writes them; empty where the model has no such table."""
    model: Any = root
    by_name = False
    for step in loc:
        if isinstance(step, int) or by_name:
            by_name = False
            continue
        fields = getattr(model, "model_fields", {})
        found = fields.get(step)
        if found is None:
            return []
        model = _model_in(found.annotation)
        by_name = get_origin(found.annotation) is dict
    return [field.alias or name for name, field in getattr(model, "model_fields", {}).items()]


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in get_args(annotation):
        found = _model_in(part)
        if found is not None:
            return found
    return None


def unknown_key(key: str, known: list[str]) -> str:
    """What to say of a key that a table does not have."""
    near = difflib.get_close_matches(key, known, 1, 0.6)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    return f"unknown key; known here: {', '.join(known)}" if known else "unknown key; remove it"


def explain(root: type[BaseModel], kind: str, loc: tuple[int | str, ...], said: str, given: object) -> str:
    """One of a ValidationError's errors (its type, loc, msg and input): what was expected, what was given."""
    if kind == "extra_forbidden":
        return unknown_key(str(loc[-1]), known_keys(root, loc[:-1]))
    if kind == "missing":
        return "is missing and has no default; add it"
    if kind == "value_error":
        return said.removeprefix("Value error, ")
    shown = f", got {given!r}" if isinstance(given, (str, int, float)) else ""
    return f"expected {said.removeprefix('Input should be ')}{shown}"
