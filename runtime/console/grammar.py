"""What may be typed: forms of words, from which parsing, completion and help are all made.

A form is a row of tokens: a word in lower case stands for itself, one in upper case for something the user names, [..]
may be left out at the end. Nothing that is typed is evaluated, formatted or handed to a shell.
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

Run = Callable[..., object]


@dataclass(frozen=True)
class Form:
    """One way to say something. role : who may; "" = without login. run : called with (session, words by name)."""

    text: str
    help: str
    role: str
    run: Run

    @cached_property
    def tokens(self) -> list[str]:
        return self.text.split()

    @cached_property
    def least(self) -> int:
        """Words that must be there."""
        return sum(not token.startswith("[") for token in self.tokens)

    def matches(self, words: Sequence[str]) -> dict[str, str] | None:
        """The named words, None if this is another form."""
        tokens = self.tokens
        if not self.least <= len(words) <= len(tokens):
            return None
        named = {}
        for token, word in zip(tokens, words, strict=False):
            plain = token.strip("[]")
            if plain.isupper():
                named[plain] = word
            elif plain != word:
                return None
        return named

    def begins(self, words: Sequence[str]) -> str | None:
        """The token that would come behind these words, None if they do not begin this form or nothing follows."""
        tokens = self.tokens
        if len(words) >= len(tokens):
            return None
        for token, word in zip(tokens, words, strict=False):
            plain = token.strip("[]")
            if not plain.isupper() and plain != word:
                return None
        return tokens[len(words)].strip("[]")


class GrammarError(ValueError):
    """A line that is no command; says what was expected."""


class Grammar:
    """All forms, in the order in which help shows them."""

    def __init__(self, forms: Iterable[Form]) -> None:
        self.forms = list(forms)
        self._by_verb: dict[str, list[Form]] = {}
        for form in self.forms:
            self._by_verb.setdefault(form.tokens[0], []).append(form)

    def parse(self, line: str) -> tuple[Form, dict[str, str]]:
        """(form, named words) of a line. Raises GrammarError."""
        words = line.split()
        verb = words[0]
        mine = self._by_verb.get(verb, [])
        for form in mine:
            named = form.matches(words)
            if named is not None:
                return form, named
        if not mine:
            near = difflib.get_close_matches(verb[:32], self._by_verb, 1, 0.6) if len(verb) <= 32 else []
            hint = f"did you mean {near[0]}?" if near else "? lists what there is"
            raise GrammarError(f"unknown command {verb[:32]!r}; {hint}")
        raise GrammarError(f"expected: {' | '.join(form.text for form in mine)}")

    def complete(self, before: str, named: Callable[[str], Iterable[str]]) -> tuple[str, list[str]]:
        """(what to add, what could stand there) for the text before the cursor. named : candidates for a token."""
        words = before.split()
        part = "" if not words or before.endswith(" ") else words.pop()
        found: list[str] = []
        for form in self.forms:
            token = form.begins(words)
            if token is None:
                continue
            for word in named(token) if token.isupper() else (token,):
                if word.startswith(part) and word not in found:
                    found.append(word)
        if not found:
            return "", []
        if len(found) == 1:
            return found[0][len(part) :] + " ", found
        common = found[0]
        for word in found[1:]:
            while not word.startswith(common):
                common = common[:-1]
        return common[len(part) :], found

    def help(self, before: str, may: Callable[[str], bool]) -> list[tuple[str, str]]:
        """(form, help) of everything that could follow this text; with nothing typed all that `may` be said."""
        words = before.split()
        part = "" if not words or before.endswith(" ") else words.pop()
        rows = []
        for form in self.forms:
            token = form.begins(words)
            if token is None and form.matches(words) is None:
                continue
            if token is not None and not token.isupper() and not token.startswith(part):
                continue
            if may(form.role) or words or part:
                rows.append((form.text, form.help))
        return rows
