"""A signed release: what was signed is what is there, by us and by openssl; each change of it is named."""

import base64
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "packaging" / "release.py"
RELEASE = runpy.run_path(str(SCRIPT))
COMMIT = "0123456789abcdef0123456789abcdef01234567"
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def key(folder, name="key"):
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private, public


@pytest.fixture
def release(tmp_path):
    """A folder that is signed with a key of the moment."""
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "tidegate-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
    (folder / "tidegate_0.1.0_amd64.deb").write_bytes(b"deb")
    private, public = key(tmp_path)
    RELEASE["sign"](folder, private, lambda: COMMIT)
    return folder, private, public


def test_what_was_signed_holds_and_openssl_says_the_same(release):
    folder, _, public = release
    assert RELEASE["verify"](folder, public) == []
    done = subprocess.run(
        [sys.executable, SCRIPT, "verify", folder, "--public", public], capture_output=True, text=True
    )
    assert done.returncode == 0 and "as it was signed" in done.stdout
    words = [
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        public,
        "-rawin",
        "-in",
        "SHA256SUMS",
        "-sigfile",
        "SHA256SUMS.sig",
    ]
    assert subprocess.run(["openssl", *words], cwd=folder, capture_output=True).returncode == 0
    assert subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder).returncode == 0


def test_the_statement_names_files_commit_and_pins(release):
    folder, _, _ = release
    said = json.loads(base64.b64decode(json.loads((folder / "provenance.intoto.json").read_text())["payload"]))
    assert (
        said["_type"] == "https://in-toto.io/Statement/v1" and said["predicateType"] == "https://slsa.dev/provenance/v1"
    )
    assert {one["name"] for one in said["subject"]} == {path.name for path in RELEASE["files_of"](folder)}
    built = said["predicate"]["buildDefinition"]
    assert {"name": "source", "digest": {"gitCommit": COMMIT}} in built["resolvedDependencies"]
    assert {"buildType", "externalParameters"} <= set(built) and said["predicate"]["runDetails"]["builder"]["id"]


def test_the_same_release_gives_the_same_bytes(release):
    folder, private, _ = release
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    RELEASE["sign"](folder, private, lambda: COMMIT)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, "and what it wrote is not released"


def resigned(folder, private, change):
    """The provenance changed by who holds another key, and its sum and signature made anew with ours."""
    path = folder / "provenance.intoto.json"
    envelope = json.loads(path.read_text())
    change(envelope)
    path.write_text(json.dumps(envelope))
    sums = folder / "SHA256SUMS"
    lines = [line for line in sums.read_text().splitlines() if not line.endswith(path.name)]
    sums.write_text("\n".join([*lines, f"{RELEASE['digest'](path)}  {path.name}"]) + "\n")
    words = ["pkeyutl", "-sign", "-inkey", private, "-rawin", "-in", sums, "-out", folder / "SHA256SUMS.sig"]
    subprocess.run(["openssl", *words], check=True)


def another_commit(envelope):
    payload = base64.b64decode(envelope["payload"]).replace(COMMIT.encode(), COMMIT[::-1].encode())
    envelope["payload"] = base64.b64encode(payload).decode()


CHANGES = {
    "a byte of the package": (lambda f, p: (f / "tidegate_0.1.0_amd64.deb").write_bytes(b"dec"), "not what was signed"),
    "a file less": (lambda f, p: (f / "tidegate_0.1.0_amd64.deb").unlink(), "is not there"),
    "a file more": (lambda f, p: (f / "more.deb").write_bytes(b"x"), "more.deb is not in"),
    "a sum": (lambda f, p: (f / "SHA256SUMS").write_text("0" * 64 + "  a\n"), "not signed by"),
    "no signature": (lambda f, p: (f / "SHA256SUMS.sig").unlink(), "SHA256SUMS.sig is not there"),
    "a signature of noise": (lambda f, p: (f / "SHA256SUMS.sig").write_bytes(b"\0" * 64), "not signed by"),
    "another provenance": (lambda f, p: (f / "provenance.intoto.json").write_text("{}"), "not what was signed"),
    "a commit in the provenance": (lambda f, p: resigned(f, p, another_commit), "not signed by the key"),
    "a provenance of nothing": (lambda f, p: resigned(f, p, lambda e: e.clear()), "cannot be read"),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_each_change_is_named(release, name):
    folder, private, public = release
    change, word = CHANGES[name]
    change(folder, private)
    said = RELEASE["verify"](folder, public)
    assert said and any(word in line for line in said), said
    done = subprocess.run(
        [sys.executable, SCRIPT, "verify", folder, "--public", public], capture_output=True, text=True
    )
    assert done.returncode == 1 and word in done.stderr


def test_another_key_signed_nothing_and_no_key_is_said(release, tmp_path):
    folder, private, _ = release
    _, other = key(tmp_path, "other")
    assert "not signed by" in RELEASE["verify"](folder, other)[0]
    with pytest.raises(RELEASE["KeyFormatError"], match="no public key"):
        RELEASE["verify"](folder, private)
    rsa = tmp_path / "rsa.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "rsa", "-out", rsa], check=True, capture_output=True)
    with pytest.raises(RELEASE["KeyFormatError"], match="not an Ed25519"):
        RELEASE["sign"](folder, rsa, lambda: COMMIT)


def test_a_tree_that_is_not_committed_is_no_release(tmp_path, monkeypatch):
    for words in (("init", "-q"), ("config", "user.email", "a@b"), ("config", "user.name", "a")):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    (tmp_path / "a").write_text("a")
    monkeypatch.setitem(RELEASE["git"].__globals__, "ROOT", tmp_path)
    with pytest.raises(RELEASE["ReleaseError"], match="commit it first"):
        RELEASE["commit_of_tree"]()
    for words in (("add", "a"), ("commit", "-qm", "a")):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    assert len(RELEASE["commit_of_tree"]()) == 40


def test_a_folder_with_nothing_or_with_folders_is_no_release(tmp_path):
    with pytest.raises(RELEASE["ReleaseError"], match="nothing to release"):
        RELEASE["files_of"](tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(RELEASE["ReleaseError"], match="plain files"):
        RELEASE["files_of"](tmp_path)
