"""Which releases are taken: each way in which one is not what somebody signed is refused by name."""

import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tidegate.runtime.update.apply import check, keep_previous
from tidegate.runtime.update.release import Package, UpdateError, described, package_for
from tidegate.runtime.update.signed_sums import digest

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")


def package(folder, version, name="tidegate", architecture="amd64"):
    """A real package with nothing in it."""
    stage = folder.parent / f"stage-{name}-{version}-{architecture}"
    (stage / "DEBIAN").mkdir(parents=True)
    (stage / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
        "Maintainer: a <a@b.invalid>\nDescription: d\n"
    )
    made = folder / f"{name}_{version}_{architecture}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", stage, made], check=True, stdout=subprocess.DEVNULL)
    return made


def public_pem(path, private):
    path.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


@pytest.fixture
def release(tmp_path):
    """(folder, its public key, sign it again)."""
    folder, private = tmp_path / "release", Ed25519PrivateKey.generate()
    folder.mkdir()
    package(folder, "1.2.0")
    package(folder, "1.10.0")
    package(folder, "3.0.0", architecture="riscv64")

    def sign():
        names = sorted(path.name for path in folder.glob("*.deb"))
        sums = "".join(f"{digest(folder / name)}  {name}\n" for name in names).encode()
        (folder / "SHA256SUMS").write_bytes(sums)
        (folder / "SHA256SUMS.sig").write_bytes(private.sign(sums))

    sign()
    return folder, public_pem(tmp_path / "key.pem", private), sign


def test_the_newest_package_of_this_machine_is_taken(release):
    folder, public, _ = release
    found = package_for(folder, public, "amd64")
    assert (found.version, found.architecture) == ("1.10.0", "amd64")
    assert found.sha256 == digest(found.path)


def test_whatever_is_not_as_it_was_signed_is_refused(release, tmp_path):
    folder, public, sign = release
    other = public_pem(tmp_path / "other.pem", Ed25519PrivateKey.generate())
    with pytest.raises(UpdateError, match=r"not signed by the key in .*other\.pem; do not install"):
        package_for(folder, other, "amd64")
    raw = bytearray((folder / "tidegate_1.2.0_amd64.deb").read_bytes())
    raw[-1] ^= 1
    (folder / "tidegate_1.2.0_amd64.deb").write_bytes(raw)
    with pytest.raises(UpdateError, match=r"tidegate_1\.2\.0_amd64\.deb: missing, or not what was signed"):
        package_for(folder, public, "amd64")
    (folder / "SHA256SUMS").write_text("")
    with pytest.raises(UpdateError, match="not signed by the key"):
        package_for(folder, public, "amd64")
    (folder / "SHA256SUMS.sig").unlink()
    with pytest.raises(UpdateError, match=r"a release has SHA256SUMS and SHA256SUMS\.sig"):
        package_for(folder, public, "amd64")
    sign()
    assert package_for(folder, public, "amd64").version == "1.10.0"


def test_a_package_beside_the_signed_ones_is_never_taken(release):
    folder, public, _ = release
    package(folder, "9.0.0")
    assert package_for(folder, public, "amd64").version == "1.10.0"


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "no public key in PEM"), ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key"),
     (None, "put the key of whoever makes your releases there")],
)  # fmt: skip
def test_a_key_that_is_none_is_named(release, tmp_path, text, words):
    public = tmp_path / "wrong.pem"
    if text is not None:
        public.write_text(text)
    with pytest.raises(UpdateError, match=words):
        package_for(release[0], public, "amd64")


def test_another_architecture_or_package_is_named(release):
    folder, public, sign = release
    with pytest.raises(UpdateError, match=r"no package for armhf in it .*amd64, riscv64"):
        package_for(folder, public, "armhf")
    package(folder, "1.0", name="othergate")
    sign()
    with pytest.raises(UpdateError, match="the package 'othergate', not 'tidegate'"):
        package_for(folder, public, "amd64")
    (folder / "othergate_1.0_amd64.deb").write_bytes(b"\x7fELF")
    sign()
    with pytest.raises(UpdateError, match="no Debian package"):
        package_for(folder, public, "amd64")


def test_what_does_not_go_forward_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    new = Package(tmp_path, "1.10.0", "amd64")
    check(new, "1.9.2")
    for old, words in ((None, "no Debian package of Tidegate"), ("1.10.0", "installed already"),
                       ("1.10.1", "older than 1.10.1.*tidegate update rollback")):  # fmt: skip
        with pytest.raises(UpdateError, match=words):
            check(new, old)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(UpdateError, match="run it as root"):
        check(new, "1.9.2")


def test_without_a_package_to_go_back_to_nothing_is_begun(release, tmp_path):
    kept = tmp_path / "updates"
    with pytest.raises(UpdateError, match=r"no package of 1.2.0, which is installed, to go back to; .*--previous"):
        keep_previous("1.2.0", kept)
    given = release[0] / "tidegate_1.2.0_amd64.deb"
    with pytest.raises(UpdateError, match=r"1\.2\.0, but 1\.9 is installed"):
        keep_previous("1.9", kept, given)
    assert described(keep_previous("1.2.0", kept, given)).version == "1.2.0"
    assert digest(keep_previous("1.2.0", kept)) == digest(given)  # the next time it is there
