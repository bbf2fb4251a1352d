"""Pylontech's RS-485 protocol: a question of a pack as ASCII, its answer laid out as registers."""

QUESTION_CHARS: int
ANSWER_CHARS: dict[int, int]
WORDS: dict[int, int]

def ask(request: bytes) -> bytes: ...
def answers(request: bytes, came: bytes) -> list[tuple[str, bytes]]: ...
