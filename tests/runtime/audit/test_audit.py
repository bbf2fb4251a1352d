"""The audit trail as an auditor meets it: every way to change it is named, an outsider's stamp finds a cut tail."""

import re
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import msgpack
import pytest
from click.testing import CliRunner

from tidegate.runtime.audit.chain import read_chain
from tidegate.runtime.audit.syslog import lines, send
from tidegate.runtime.cli.audit_command import audit
from tidegate.runtime.state.journal import HEADER, Journal, Record

BOOT = b"b" * 16
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def write(folder: Path, count: int, first: int = 0, who: str = "uid:0") -> Path:
    folder.mkdir(exist_ok=True)
    journal = Journal(folder, "event", segment_bytes=2000)
    for seq in range(first, first + count):
        body = {"event": "order", "name": "stop", "detail": f"{who} {seq}\x1b[2J\n"}
        journal.append(Record(BOOT, seq, 1_700_000_000_000_000_000 + seq, -1, msgpack.packb(body)))
        journal.sync()
    journal.close()
    return folder


def verified(folder: Path, *more: object) -> tuple[int, str]:
    done = CliRunner().invoke(audit, ["verify", str(folder), *map(str, more)])
    return done.exit_code, done.output


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("event-*.seg"))


def test_a_whole_trail_is_good_also_over_a_restart_and_nothing_is_written(tmp_path: Path) -> None:
    folder = write(tmp_path / "journal", 60)
    write(folder, 40, 60)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    code, said = verified(folder)
    assert (code, len(segments(folder)) > 3, "100 events" in said) == (0, True, True), said
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("offset", range(0, 1900, 97))
def test_any_changed_byte_is_named(tmp_path: Path, offset: int) -> None:
    folder = write(tmp_path / "journal", 60)
    raw = bytearray(segments(folder)[1].read_bytes())
    raw[offset] ^= 0x10
    segments(folder)[1].write_bytes(bytes(raw))
    assert read_chain(folder).findings


def test_a_record_that_the_journal_would_leave_out_is_named_although_its_content_is_whole(tmp_path: Path) -> None:
    """Its checksum alone is changed: `why` and the export would no longer have it, and the chain cannot tell."""
    folder = write(tmp_path / "journal", 60)
    raw = bytearray(segments(folder)[1].read_bytes())
    raw[HEADER.size + 8] ^= 1  # behind magic and length
    segments(folder)[1].write_bytes(bytes(raw))
    code, said = verified(folder)
    assert code == 1 and "the checksum of the record" in said
    journal = Journal(folder, "event", segment_bytes=2000)
    assert sum(1 for segment in journal.segments for _ in journal.records(segment)) == 59
    journal.close()


def test_a_missing_segment_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "journal", 60)
    segments(folder)[1].unlink()
    assert verified(folder) == (1, verified(folder)[1]) and "segments 1 to 1 are missing" in verified(folder)[1]


def test_records_cut_off_the_end_of_an_older_segment_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "journal", 60)
    one = write(tmp_path / "short", 3)
    size = segments(one)[0].stat().st_size
    with segments(folder)[0].open("r+b") as file:
        file.truncate(size)
    code, said = verified(folder)
    assert code == 1 and "begins behind another record" in said


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A time-stamping authority of openssl: ca.pem, tsa.pem, tsa.key, ts.cnf."""
    place = tmp_path_factory.mktemp("tsa")
    (place / "ts.cnf").write_text(
        "[tsa]\ndefault_tsa = one\n[one]\nserial = serial\nsigner_cert = tsa.pem\nsigner_key = tsa.key\n"
        "certs = tsa.pem\ndefault_policy = 1.2.3.4\ndigests = sha256\nsigner_digest = sha256\n"
        "ess_cert_id_alg = sha256\n[ext]\nextendedKeyUsage = critical,timeStamping\n"
    )
    (place / "serial").write_text("01\n")
    for words in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=ca",
        "req -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.csr -subj /CN=tsa",
        "x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile ts.cnf -extensions ext"
        " -out tsa.pem",
    ):
        subprocess.run(["openssl", *words.split()], cwd=place, check=True, capture_output=True)
    return place


def stamp(folder: Path, authority: Path) -> Path:
    assert CliRunner().invoke(audit, ["anchor", str(folder)]).exit_code == 0
    (query,) = folder.glob("anchor-*.tsq")
    answer = query.with_suffix(".tsr")
    words = ["openssl", "ts", "-reply", "-config", "ts.cnf", "-queryfile", query, "-out", answer]
    subprocess.run(words, cwd=authority, check=True, capture_output=True)
    query.unlink()
    return answer


@needs_openssl
def test_a_stamp_holds_while_the_trail_grows_and_finds_a_cut_tail(tmp_path: Path, authority: Path) -> None:
    folder = write(tmp_path / "journal", 30)
    stamp(folder, authority)
    write(folder, 30, 30)
    code, said = verified(folder, "--authority", authority / "ca.pem")
    assert code == 0 and "good: anchor-" in said, said
    for path in segments(folder)[1:]:
        path.unlink()
    assert verified(folder)[0] == 0  # nothing within the chain tells it ...
    code, said = verified(folder, "--authority", authority / "ca.pem")
    assert code == 1 and "stamped a record that this chain does not have" in said  # ... but the stamp does


@needs_openssl
def test_a_stamp_of_another_site_or_of_nobody_is_named(tmp_path: Path, authority: Path) -> None:
    other = write(tmp_path / "other", 7, who="uid:7")
    folder = write(tmp_path / "journal", 30)
    answer = stamp(other, authority)
    shutil.copy(answer, folder)
    code, said = verified(folder, "--authority", authority / "ca.pem")
    assert code == 1 and "this chain does not have" in said
    (folder / answer.name).rename(folder / f"anchor-{read_chain(folder).end.hex()}.tsr")
    code, said = verified(folder, "--authority", authority / "ca.pem")
    assert code == 1 and "not signed by this authority for this value" in said


def test_a_line_is_one_line_and_has_nothing_of_a_terminal(tmp_path: Path) -> None:
    folder = write(tmp_path / "journal", 3)
    done = CliRunner().invoke(audit, ["export", str(folder), "--out", str(tmp_path / "out.log"), "--site", "hall"])
    written = (tmp_path / "out.log").read_bytes()
    assert done.exit_code == 0 and written.count(b"\n") == 3 and b"\x1b" not in written
    assert written.startswith(b"<109>1 2023-11-14T22:13:20.000000Z ")
    assert b' tidegate hall order [tidegate@32473 segment="0" event="0" chain="' in written


@needs_openssl
@pytest.mark.parametrize("wants_client", [False, True])
def test_events_arrive_over_tls_framed_by_their_length(tmp_path: Path, wants_client: bool) -> None:
    words = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 30 -subj /CN=localhost"
    words += " -addext subjectAltName=DNS:localhost"
    subprocess.run(["openssl", *words.split()], cwd=tmp_path, check=True, capture_output=True)
    cert = tmp_path / "cert.pem"
    both = tmp_path / "both.pem"
    both.write_bytes(cert.read_bytes() + (tmp_path / "key.pem").read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(both))
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(str(cert))
    got = bytearray()

    def receive(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True) as line:
            while piece := line.recv(65536):
                got.extend(piece)
            line.unwrap()

    chain = read_chain(write(tmp_path / "journal", 40))
    with socket.create_server(("localhost", 0)) as listener:
        thread = threading.Thread(target=receive, args=(listener,))
        thread.start()
        address = ("localhost", listener.getsockname()[1])
        assert send(lines(chain.links, "hall"), address, cert, both if wants_client else None) == 40
        thread.join(60)
    messages = []
    while got:
        length, _, rest = bytes(got).partition(b" ")
        messages.append(rest[: int(length)])
        del got[: len(length) + 1 + int(length)]
    assert messages == list(lines(chain.links, "hall"))


@needs_openssl
def test_the_commands_of_the_page_run_as_they_are_printed(tmp_path: Path, authority: Path) -> None:
    folder = write(tmp_path / "journal", 30)
    stamp(folder, authority)
    page = (Path(__file__).parents[3] / "docs" / "audit.md").read_text()
    commands = re.findall(r"```sh\ntidegate audit (.+?)\n```", page)
    assert len(commands) == 4
    places = {"/var/lib/tidegate/hall/journal": str(folder), "ca.pem": str(authority / "ca.pem")}
    places["events.log"] = str(tmp_path / "events.log")
    for command in commands:
        done = CliRunner().invoke(audit, [places.get(word, word) for word in command.split()])
        assert done.exit_code == 0, (command, done.output)
    assert (tmp_path / "events.log").read_bytes().count(b"\n") == 30
