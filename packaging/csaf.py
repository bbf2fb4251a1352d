"""A security advisory as CSAF 2.0, from a short file that a person writes; and a look at one that is there.

Usage: csaf.py make ADVISORY.toml [FOLDER]   writes FOLDER/ID.json under the name that CSAF asks for
       csaf.py check FILE.json               what keeps it from being a valid CSAF 2.0 security advisory

packaging/csaf-example.toml is the file to begin with. `check` knows the structure that the standard's schema asks for
of what we write, and those of its mandatory tests that such a document can fail; it is no general validator. Exit 1:
what is wrong is named. Standard library only.
"""

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

PROFILE = "csaf_security_advisory"
STATUSES = ("first_affected", "first_fixed", "fixed", "known_affected", "known_not_affected", "last_affected",
            "recommended", "under_investigation")  # fmt: skip
AFFECTED = ("first_affected", "known_affected", "last_affected")
CONTRADICTIONS = (set(AFFECTED), {"known_not_affected"}, {"first_fixed", "fixed"}, {"under_investigation"})
REMEDIES = ("mitigation", "no_fix_planned", "none_available", "vendor_fix", "workaround")
NOTES = ("description", "details", "faq", "general", "legal_disclaimer", "other", "summary")
PUBLISHERS = ("coordinator", "discoverer", "other", "translator", "user", "vendor")
CVE, VERSION = re.compile(r"CVE-[0-9]{4}-[0-9]{4,}"), re.compile(r"(0|[1-9][0-9]*)")
CWE = re.compile(r"CWE-[1-9]\d{0,5}")
TRACKING = ("current_release_date", "id", "initial_release_date", "revision_history", "status", "version")
EXIT_BAD, EXIT_USAGE = 1, 64


class AdvisoryError(ValueError):
    """What is wrong with the file that a person wrote."""


def file_name(ident: str) -> str:
    """The name of a document's file: its id, in letters that every file system has."""
    return re.sub(r"[^+\-a-z0-9]+", "_", ident.lower()) + ".json"


def make(said: dict[str, object]) -> dict[str, object]:
    """The document. said : the TOML file's content. Raises AdvisoryError."""
    try:
        return _made(said)
    except (KeyError, TypeError, AttributeError) as why:
        raise AdvisoryError(
            f"{why!s} is missing or of another kind; packaging/csaf-example.toml has all that is needed"
        ) from None


def _made(said: dict) -> dict[str, object]:  # type: ignore[type-arg]
    revisions = [
        {"number": str(at), "date": _moment(one["date"]), "summary": one["summary"]}
        for at, one in enumerate(said["revision"], 1)
    ]
    products = {version: f"tidegate-{version}" for version in (*said["affected"], *said["fixed"])}
    helper = {version: {"purl": f"pkg:pypi/tidegate@{version}"} for version in products}
    flaw: dict[str, object] = {
        "title": said["title"],
        "notes": [{"category": "description", "text": said["description"]}],
        "product_status": {
            "known_affected": [products[one] for one in said["affected"]],
            **({"fixed": [products[one] for one in said["fixed"]]} if said["fixed"] else {}),
        },
        "remediations": [
            {
                "category": one["category"],
                "details": one["details"],
                "product_ids": [products[v] for v in said["affected"]],
            }
            for one in said["remedy"]
        ],
    }
    if said.get("cve"):
        flaw["cve"] = said["cve"]
    if said.get("cwe"):
        flaw["cwe"] = {"id": said["cwe"]["id"], "name": said["cwe"]["name"]}
    if said.get("thanks"):
        flaw["acknowledgments"] = [{"names": said["thanks"]}]
    return {
        "document": {
            "category": PROFILE, "csaf_version": "2.0", "lang": "en", "title": said["title"],
            "distribution": {"tlp": {"label": "WHITE"}},
            "notes": [{"category": "summary", "text": said["summary"]}],
            "publisher": {
                "category": "vendor", "name": said["publisher"]["name"], "namespace": said["publisher"]["namespace"],
                "contact_details": said["publisher"]["contact"],
            },
            "tracking": {
                "id": said["id"], "status": said["status"], "version": revisions[-1]["number"],
                "initial_release_date": revisions[0]["date"], "current_release_date": revisions[-1]["date"],
                "revision_history": revisions,
            },
        },
        "product_tree": {
            "branches": [{
                "category": "vendor", "name": said["publisher"]["name"],
                "branches": [{
                    "category": "product_name", "name": "Tidegate",
                    "branches": [
                        {"category": "product_version", "name": version, "product": {
                            "name": f"Tidegate {version}", "product_id": ident,
                            "product_identification_helper": helper[version]}}
                        for version, ident in products.items()
                    ],
                }],
            }],
        },
        "vulnerabilities": [flaw],
    }  # fmt: skip


def _moment(said: object) -> str:
    if not isinstance(said, datetime) or said.tzinfo is None:
        raise AdvisoryError(f"date {said}: needs a time and a zone, such as 2026-03-14T10:15:00Z")
    return said.isoformat().replace("+00:00", "Z")


def problems(document: object) -> list[str]:
    """What keeps a document from being a valid CSAF 2.0 security advisory; none: nothing that is known here."""
    try:
        return list(_problems(document))
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as why:
        return [f"the structure is another: {type(why).__name__}: {why}"]


def _problems(document) -> Iterator[str]:  # type: ignore[no-untyped-def]
    head, tracking = document["document"], document["document"]["tracking"]
    for where, holder, words in (
        ("document", head, ("category", "csaf_version", "publisher", "title", "tracking")),
        ("publisher", head["publisher"], ("category", "name", "namespace")),
        ("tracking", tracking, TRACKING),
    ):
        yield from (f"{where}: {word} is missing or empty" for word in words if not holder.get(word))
    if head["csaf_version"] != "2.0" or head["category"] != PROFILE:
        yield f"document: version {head['csaf_version']}, category {head['category']}; expected 2.0, {PROFILE}"
    if head["publisher"]["category"] not in PUBLISHERS or "://" not in head["publisher"]["namespace"]:
        yield "publisher: the category is none of the standard's, or the namespace is no URI"
    if head["tracking"]["id"] != head["tracking"]["id"].strip():
        yield "tracking: the id begins or ends with a space"
    yield from _revisions(tracking)
    if any(note["category"] not in NOTES or not note["text"] for note in head.get("notes", [])):
        yield "document: a note without text, or of a category that there is not"
    defined = list(_products(document["product_tree"]["branches"]))
    if not defined or len(set(defined)) != len(defined):
        yield "product_tree: no product, or one defined twice"
    if not document["vulnerabilities"]:
        yield "vulnerabilities: none"
    for number, flaw in enumerate(document["vulnerabilities"]):
        yield from (f"vulnerabilities[{number}]: {said}" for said in _flaw(flaw, set(defined)))


def _revisions(tracking) -> Iterator[str]:  # type: ignore[no-untyped-def]
    history = tracking["revision_history"]
    numbers, dates = [one["number"] for one in history], [datetime.fromisoformat(one["date"]) for one in history]
    if any(one.tzinfo is None for one in dates):
        yield "revision_history: a date without a zone"
        return
    if not all(VERSION.fullmatch(one) for one in (*numbers, tracking["version"])) or len(set(numbers)) != len(numbers):
        yield "revision_history: numbers are whole, each once"
        return
    if [int(one) for one in numbers] != sorted(int(one) for one in numbers) or dates != sorted(dates):
        yield "revision_history: not in the order of its dates"
    if tracking["version"] != numbers[-1] or not all(one["summary"] for one in history):
        yield "tracking: the version is not that of the last revision, or a revision has no summary"
    if datetime.fromisoformat(tracking["initial_release_date"]) != dates[0]:
        yield "tracking: initial_release_date is not that of the first revision"
    if datetime.fromisoformat(tracking["current_release_date"]) != dates[-1]:
        yield "tracking: current_release_date is not that of the last revision"
    if tracking["status"] not in ("draft", "interim", "final") or (tracking["status"] != "draft" and "0" in numbers):
        yield "tracking: status is draft, interim or final; only a draft has a revision 0"


def _products(branches) -> Iterator[str]:  # type: ignore[no-untyped-def]
    for branch in branches:
        if ("product" in branch) == ("branches" in branch) or not branch["name"] or not branch["category"]:
            raise ValueError(f"branch {branch.get('name')}: has a product or branches, a name and a category")
        if "product" in branch:
            if not branch["product"]["name"]:
                raise ValueError(f"branch {branch['name']}: a product without a name")
            yield branch["product"]["product_id"]
        else:
            yield from _products(branch["branches"])


def _flaw(flaw, defined: set[str]) -> Iterator[str]:  # type: ignore[no-untyped-def]
    if not flaw.get("notes") or any(one["category"] not in NOTES or not one["text"] for one in flaw["notes"]):
        yield "notes: none, or one without text or of a category that there is not"
    if "cve" in flaw and not CVE.fullmatch(flaw["cve"]):
        yield f"cve {flaw['cve']}: not of the form CVE-2026-12345"
    if "cwe" in flaw and (not CWE.fullmatch(flaw["cwe"]["id"]) or not flaw["cwe"]["name"]):
        yield "cwe: needs an id like CWE-79, and its name"
    status = flaw["product_status"]
    if not status or set(status) - set(STATUSES) or not all(status.values()):
        yield "product_status: empty, or with a word that there is not"
    named = {one for ones in status.values() for one in ones}
    remedied: set[str] = set()
    for remedy in flaw.get("remediations", []):
        if remedy["category"] not in REMEDIES or not remedy["details"]:
            yield "remediations: without details, or of a category that there is not"
        remedied |= set(remedy["product_ids"])
    if (named | remedied) - defined:
        yield f"{', '.join(sorted((named | remedied) - defined))}: no such product in the tree"
    groups = [{one for word in words for one in status.get(word, [])} for words in CONTRADICTIONS]
    twice = {one for at, group in enumerate(groups) for other in groups[at + 1 :] for one in group & other}
    if twice:
        yield f"{', '.join(sorted(twice))}: in two states that exclude each other"
    if groups[0] - remedied:
        yield f"{', '.join(sorted(groups[0] - remedied))}: affected, and nothing said of what to do"


def main(words: list[str]) -> int:
    try:
        if words[:1] == ["make"] and len(words) in (2, 3):
            document = make(tomllib.loads(Path(words[1]).read_text()))
            wrong = problems(document)
            if not wrong:
                tracking = document["document"]
                assert isinstance(tracking, dict)
                path = Path(words[2] if len(words) == 3 else ".") / file_name(tracking["tracking"]["id"])
                path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
                print(path)
        elif words[:1] == ["check"] and len(words) == 2:
            wrong = problems(json.loads(Path(words[1]).read_bytes()))
        else:
            print(__doc__, file=sys.stderr)
            return EXIT_USAGE
    except (AdvisoryError, OSError, ValueError) as why:
        print(f"csaf: {words[1]}: {why}", file=sys.stderr)
        return EXIT_BAD
    for line in wrong:
        print(f"csaf: {words[1]}: {line}", file=sys.stderr)
    return EXIT_BAD if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
