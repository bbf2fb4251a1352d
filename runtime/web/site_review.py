"""A changed site file, looked at and put in place, in a process of its own that the page starts.

`python -m tidegate.runtime.web.site_review PATH` reads the new text from its standard input and prints one JSON object;
with `--apply SHA256` it also puts it in the place of the file, if that is still the one with this sum.
The code is the console's (`runtime/console/siteedit.py`), so both refuse alike.
"""

import argparse
import difflib
import hashlib
import sys
import tomllib
from pathlib import Path

import msgspec

from tidegate.config.compile import compile_site
from tidegate.config.site import SiteError, parse_site
from tidegate.config.summary import summary
from tidegate.config.unlikely import unlikely
from tidegate.runtime.api.answers import Why
from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.console.siteedit import Staged, not_idle, previous

CONTEXT_LINES = 2


def digest_of(text: str) -> str:
    """What names a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def review(path: Path, text: str) -> dict[str, object]:
    """What a new text would change, what is wrong with it, what is unlikely, and what it would do. Raises SiteError."""
    staged = Staged(path)
    staged.text = text
    found = difflib.unified_diff(staged.old.splitlines(), text.splitlines(), "now", "then", "", "", CONTEXT_LINES, "")
    said: dict[str, object] = {
        "path": str(path), "before_sha256": digest_of(staged.old), "sha256": digest_of(text), "changed": staged.changed,
        "diff": list(found), "has_previous": previous(path).exists(), "warnings": [], "summary": [], "wider": [],
    }  # fmt: skip
    try:
        tomllib.loads(text)
        problems = staged.problems()
    except tomllib.TOMLDecodeError as why:
        problems = [f"not TOML: {why}"]
    said["problems"] = problems
    if not problems:
        site, _ = parse_site(tomllib.loads(text), text)
        assert site is not None  # problems() has just looked
        site._folder = path.resolve().parent
        said["warnings"], said["summary"] = unlikely(site), summary(compile_site(site))
        said["wider"] = staged.wider()
    return said


def apply(path: Path, text: str, before_sha256: str, endpoint: str) -> dict[str, object]:
    """Put it in place where it is good, the file is the one that was looked at, and the battery allows it.

    `keys` of the answer names what changed; `refused` says why nothing did.
    """
    said = review(path, text)
    problems = said["problems"]
    assert isinstance(problems, list)
    if problems:
        return {"refused": f"not applied: {problems[0]}"}
    if not said["changed"]:
        return {"refused": "nothing is staged"}
    if said["before_sha256"] != before_sha256:
        return {"refused": f"not applied: {path.name} was changed by somebody else meanwhile; look at it again"}
    staged = Staged(path)
    staged.text = text
    if wider := staged.wider():
        try:
            with Client(endpoint) as client:
                why = msgspec.convert(client.why(), Why)
        except ClientError as lack:
            return {"refused": f"not applied: whether the cabinet is idle is not known ({lack})"}
        if wrong := not_idle(wider, why.mode, why.setpoint_w, why.ess_w):
            return {"refused": wrong}
    keys = staged.changed_keys
    staged.apply()
    return {"keys": keys}


def main(words: list[str] | None = None) -> int:
    """Print what was found as JSON; every refusal is in it."""
    parser = argparse.ArgumentParser(prog="tidegate.runtime.web.site_review", description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--apply", metavar="SHA256", help="of the file that was looked at")
    parser.add_argument("--endpoint", default="", help="the site's gateway")
    args = parser.parse_args(words)
    text = sys.stdin.buffer.read().decode()
    try:
        said = apply(args.path, text, args.apply, args.endpoint) if args.apply else review(args.path, text)
    except SiteError as why:
        said = {"refused": f"{args.path}: {why.problems[0]}"}
    except OSError as why:
        said = {"refused": f"not applied, the old file stands: {why.filename or args.path}: {why.strerror}"}
    sys.stdout.buffer.write(msgspec.json.encode(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
