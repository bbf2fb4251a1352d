"""Signed meter readings: in with every signature checked, out so that a foreign program can check ours."""

import json
import random
import shutil
import subprocess
from itertools import pairwise

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tidegate.hal.description import described
from tidegate.runtime.carbon.engine.account import Accountant
from tidegate.runtime.carbon.engine.booking import BookedPeriod, FlowPeriod
from tidegate.runtime.carbon.engine.topology import nodes_of
from tidegate.runtime.carbon.factors.series import Factors
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.readings.ocmf import (
    Number,
    OcmfError,
    documents,
    exported,
    hex_of,
    public_key,
    readings,
    signed,
    signing_key,
)
from tidegate.runtime.carbon.report.document import gather
from tidegate.runtime.cli.carbon_commands import carbon

DAY = 1_709_251_200  # 2024-03-01
KWH = 1_000_000
KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC = KEY.public_key()


def payload(**changes):
    """A meter's own document, of the fiscal kind."""
    base = {
        "FV": "1.0", "GI": "gateway", "GS": "808829900001", "GV": "1.4p3", "PG": "F7", "MV": "maker", "MM": "EM340",
        "MS": "BQ27400330016",
        "RD": [{"TM": "2024-03-01T01:00:00,000+0100 S", "RV": Number("2935.60"), "RI": "1-0:1.8.0", "RU": "kWh",
                "RT": "AC", "EF": "", "ST": "G"},
               {"TM": "2024-03-01T01:15:00,000+0100 S", "RV": Number("2937.10")}],
    }  # fmt: skip
    return base | changes


def reading(**changes):
    row = {**payload()["RD"][0], **changes}
    return payload(RD=[{key: value for key, value in row.items() if value is not None}])


def file(*texts):
    return "\n".join(texts).encode() + b"\n"


def test_a_signed_document_is_read_with_its_numbers_as_they_were_written():
    (found,), odd = readings(documents(file(signed(payload(), KEY)), "m.ocmf", PUBLIC), "m.ocmf")
    assert (found.meter, found.quantity, odd) == ("BQ27400330016", "energy-import", [])
    assert found.rows == [(DAY, 2935_600_000, "S", "G", "2935.60"), (DAY + 900, 2937_100_000, "S", "G", "2937.10")]
    assert found.source["document"].startswith('OCMF|{"FV":"1.0"') and found.source["key"] == hex_of(PUBLIC)


def test_white_space_and_line_feeds_belong_to_the_payload():
    text = json.dumps(payload(), indent=4).replace('"2935.60"', "2935.60").replace('"2937.10"', "2937.10")
    signature = KEY.sign(text.encode(), ec.ECDSA(SHA256())).hex().upper()
    raw = f'OCMF|{text}|{{\n "SD": "{signature}"\n}}\n'.encode()
    (found,), _ = readings(documents(raw, "m", PUBLIC), "m")
    assert found.rows[0][4] == "2935.60"
    with pytest.raises(OcmfError, match="m, document 1: the signature does not fit"):
        documents(raw.replace(b'    "GI"', b'   "GI"'), "m", PUBLIC)


@pytest.mark.parametrize(
    ("name", "curve"),
    [("ECDSA-secp256k1-SHA256", ec.SECP256K1()), ("ECDSA-secp384r1-SHA256", ec.SECP384R1()),
     ("ECDSA-brainpool256r1-SHA256", ec.BrainpoolP256R1()), ("ECDSA-brainpool384r1-SHA256", ec.BrainpoolP384R1())],
)  # fmt: skip
def test_other_curves_of_the_format_are_read(name, curve):
    import base64

    key = ec.generate_private_key(curve)
    text = signed(payload(), KEY).split("|")[1]
    made = base64.b64encode(key.sign(text.encode(), ec.ECDSA(SHA256()))).decode()
    raw = f"OCMF|{text}|" + json.dumps({"SA": name, "SE": "base64", "SM": "application/x-der", "SD": made})
    assert documents(raw.encode(), "m", key.public_key())[0].algorithm == name
    with pytest.raises(OcmfError, match="the key given is on secp256r1"):
        documents(raw.encode(), "m", PUBLIC)


def test_any_changed_byte_is_refused_by_document():
    """Every byte of header, payload and signature data, one after the other."""
    good = signed(payload(), KEY)
    raw = file(good, signed(payload(PG="F8"), KEY))
    data = json.loads(good.split("|")[2])["SD"]
    ends = good.rindex("|") + 1
    places = [*range(ends), *range(good.index(data), good.index(data) + len(data))]
    rng = random.Random(4)
    for at in places:
        changed = bytearray(raw)
        changed[at] ^= 1 << rng.randrange(8)
        if at > ends and bytes(changed).lower() == raw.lower():
            continue  # hex of the signature in the other case is the same signature
        with pytest.raises(OcmfError, match=r"^m(, document 1|: byte|: begins)"):
            documents(bytes(changed), "m", PUBLIC)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "begins with ''; expected OCMF"),
        (b"{}", "begins with '{}'"),
        (b"XML|{}|{}", "begins with 'XML"),
        (b"OCMF|{}", "2 sections"),
        (b"OCMF|{}|{}|{}", "4 sections"),
        (b"OCMF|{}|[]", "signature: expected an object"),
        (b"OCMF|{}|{", "signature: not JSON"),
        (b"OCMF|{}|{}", "no signature"),
        (b'OCMF|{}|{"SD":"xyz"}', "the signature is not hex"),
        (b'OCMF|{}|{"SD":"00","SE":"rot13"}', "no signature"),
        (b'OCMF|{}|{"SD":"00","SA":"RSA-SHA256"}', "signature algorithm 'RSA-SHA256'; known: ECDSA-secp256k1"),
        (b'OCMF|{}|{"SD":"00","SA":"ECDSA-secp192r1-SHA256"}', "signature algorithm 'ECDSA-secp192r1-SHA256'"),
        (b'OCMF|{}|{"SD":"00","SM":"text/plain"}', "signature form 'text/plain'"),
        (b'OCMF|{}|{"SD":"00"}', "the signature does not fit"),
        (b'OCMF|{}|{"SD":"00","SD":"11"}', "a key stands twice"),
        (b"OCMF|\xff|{}", "byte 5 is not UTF-8"),
    ],
)
def test_what_is_no_signed_document_is_refused_by_name(raw, words):
    with pytest.raises(OcmfError, match=words):
        documents(raw, "m.ocmf", PUBLIC)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (payload(FV="2.0"), "format version 2.0; this version knows 0 and 1"),
        (payload(PG="Q1"), "pagination .PG. 'Q1'"),
        (payload(MS="", GS=""), "no serial number"),
        (payload(RD=[]), "no readings"),
        (payload(RD="x"), "no readings"),
        (reading(TM="2024-03-01T01:00:00Z"), "reading 1: time"),
        (reading(TM="2024-13-01T01:00:00,000+0100 S"), "reading 1: time"),
        (reading(ST="?"), "meter state"),
        (reading(ST=None), "meter state"),
        (reading(RI="1-0:16.7.0"), "OBIS code .RI. '1-0:16.7.0'"),
        (reading(RI="01-00:B2.08.00.FF"), "OBIS code"),
        (reading(RI=None), "OBIS code"),
        (reading(RU="mOhm"), "unit 'mOhm'"),
        (reading(RV=Number("-1")), "a register cannot read -1"),
        (reading(RV="12.5"), "value .RV. '12.5' is not a number"),
    ],
)
def test_a_signed_reading_that_cannot_be_is_refused_by_reading(made, words):
    with pytest.raises(OcmfError, match=f"m, document 1.*{words}"):
        readings(documents(signed(made, KEY).encode(), "m", PUBLIC), "m")


def test_errors_and_events_of_a_meter_are_kept_and_not_believed():
    rows = payload()["RD"] + [{"TM": "2024-03-01T01:30:00,000+0100 I", "RV": Number("9.9"), "EF": "E"},
                              {"TM": "2024-03-01T01:31:00,000+0100 U", "RV": Number("2938"), "EF": "t"},
                              {"TM": "2024-03-01T01:32:00,000+0100 U", "ST": "D"}]  # fmt: skip
    (found,), _ = readings(documents(signed(payload(RD=rows), KEY).encode(), "m", PUBLIC), "m")
    assert [row[2:4] for row in found.rows] == [("S", "G"), ("S", "G"), ("I", "E"), ("U", "G")]


def test_a_missing_page_is_named():
    raw = file(*(signed(payload(PG=page), KEY) for page in ("F7", "F8", "F10", "T3")))
    _, odd = readings(documents(raw, "m", PUBLIC), "m")
    assert odd == ["m, document 3: page F10 follows F8; documents are missing"]


@pytest.mark.parametrize("text", ["", "zz", "00", "-----BEGIN PUBLIC KEY-----\nAA\n-----END PUBLIC KEY-----"])
def test_a_key_that_is_none_is_refused(text):
    with pytest.raises(OcmfError, match="the public key cannot be read"):
        public_key(text)


def test_a_key_of_another_kind_is_refused(tmp_path):
    other = rsa.generate_private_key(65537, 2048).public_key()
    with pytest.raises(OcmfError, match="needs one of an elliptic curve"):
        public_key(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())
    (tmp_path / "k.pem").write_text("no key")
    with pytest.raises(OcmfError, match="not a PEM private key"):
        signing_key(tmp_path / "k.pem")


# ---- a ledger ----

DESCRIBE = {
    "points": [{"name": n} for n in ("grid.import_wh", "grid.export_wh", "it.import_wh")],
    "nodes": [{"role": "grid", "device": "grid", "positive_wh": "grid.import_wh", "negative_wh": "grid.export_wh"},
              {"role": "it", "device": "it", "positive_wh": "it.import_wh", "negative_wh": None}],
    "units": [],
}  # fmt: skip


@pytest.fixture
def ledger(tmp_path):
    """Three days of quarter hours from a register that read 500 kWh; one quarter is estimated."""
    made = Ledger(tmp_path / "l.db")
    made.begin("hall")
    nodes = nodes_of(described(DESCRIBE))
    flows = {flow.name: [flow.kind, flow.register, flow.integral] for flow in nodes.flows}
    made.append([("method", 0, {"kinds": nodes.kinds, "flows": flows, "storages": {}})])
    accountant = Accountant("hall", nodes, Factors(None, 300 * KWH, "test"))
    rng, at = random.Random(2), 500 * KWH
    rows = []
    for i in range(3 * 96):
        milliwh = rng.randrange(5 * KWH)
        found = {
            "grid.import": FlowPeriod(
                milliwh, "estimated" if i == 100 else "good", "register", [], at, at + milliwh, None, 900.0
            )
        }
        found["grid.export"] = FlowPeriod(0, "good", "register", [], None, None, None, 900.0)
        found["it.load"] = FlowPeriod(milliwh, "good", "register", [], 0, milliwh, None, 900.0)
        at += milliwh
        rows.append(("period", DAY + 900 * i,
                     accountant.book(BookedPeriod(DAY + 900 * i, 900, found, [], 900, 0, None, "S"))))  # fmt: skip
    made.append(rows)
    return made


def bodies(ledger):
    return (entry.body for entry in ledger.in_force("period"))


def test_what_is_exported_reads_like_the_register_and_its_differences_are_the_ledger(ledger):
    lines = list(exported(bodies(ledger), "grid.import", "SN1", DAY, DAY + 3 * 86_400, KEY))
    found, odd = readings(documents(file(*lines), "x", PUBLIC), "x")
    assert (len(lines), odd, {one.meter for one in found}) == (3, [], {"SN1"})
    assert found[0].rows[0][:2] == (DAY, 500 * KWH)
    booked = [entry.body["flows"]["grid.import"]["energy_milliwh"] for entry in ledger.in_force("period")]
    steps = [b[1] - a[1] for one in found for a, b in pairwise(one.rows)]
    assert steps == booked
    assert all(a.rows[-1][:2] == b.rows[0][:2] for a, b in pairwise(found))
    assert [row[3] for row in found[1].rows][4:7] == ["G", "S", "G"]
    middle = list(exported(bodies(ledger), "grid.import", "SN1", DAY + 86_400, DAY + 2 * 86_400, KEY))
    assert [line.split("|")[1] for line in middle] == [lines[1].split("|")[1]]


def test_a_flow_without_a_register_is_not_exported(ledger):
    with pytest.raises(OcmfError, match=r"grid.export: no register measures it"):
        list(exported(bodies(ledger), "grid.export", "SN1", DAY, DAY + 86_400, KEY))
    with pytest.raises(OcmfError, match=r"roof: no such flow; known: grid.export, grid.import, it.load"):
        list(exported(bodies(ledger), "roof", "SN1", DAY, DAY + 86_400, KEY))


def test_openssl_accepts_what_is_exported_and_what_it_signs_is_read(ledger, tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the program openssl is missing")
    (line,) = exported(bodies(ledger), "grid.import", "SN1", DAY, DAY + 86_400, KEY)
    _, text, signature = line.split("|")
    (tmp_path / "payload").write_text(text)
    (tmp_path / "sig").write_bytes(bytes.fromhex(json.loads(signature)["SD"]))
    (tmp_path / "pub.pem").write_bytes(PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    words = [openssl, "dgst", "-sha256", "-verify", "pub.pem", "-signature", "sig", "payload"]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True, check=True).stdout == b"Verified OK\n"
    make = [openssl, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "own.pem"]
    subprocess.run(make, cwd=tmp_path, capture_output=True, check=True)
    subprocess.run(
        [openssl, "dgst", "-sha256", "-sign", "own.pem", "-out", "sig2", "payload"], cwd=tmp_path, check=True
    )
    shown = subprocess.run([openssl, "ec", "-in", "own.pem", "-pubout"], cwd=tmp_path, capture_output=True, check=True)
    theirs = f'OCMF|{text}|{{"SD":"{(tmp_path / "sig2").read_bytes().hex()}"}}'
    assert len(documents(theirs.encode(), "m", public_key(shown.stdout.decode()))) == 1


def test_signed_readings_go_into_the_ledger_and_are_set_beside_what_was_booked(ledger, tmp_path):
    runner = CliRunner()
    path, key = tmp_path / "l.db", tmp_path / "k.pem"
    words = ["ocmf", "export", str(path), "--flow", "grid.import", "--span", "2024-03-02", "--key", str(key),
             "--serial", "SN1", "--out", str(tmp_path / "d.ocmf")]  # fmt: skip
    shown = runner.invoke(carbon, words)
    assert shown.exit_code == 0, shown.output
    public = shown.output.split("public key ")[1].strip()
    assert key.stat().st_mode & 0o077 == 0
    checked = runner.invoke(carbon, ["ocmf", "check", str(tmp_path / "d.ocmf"), "--key", public])
    assert "1 documents, every signature fits" in checked.output and "97 readings" in checked.output
    words = ["ocmf", "import", str(path), str(tmp_path / "d.ocmf"), "--key", public, "--flow", "grid.import"]
    assert "97 readings taken in" in runner.invoke(carbon, words).output
    assert "0 readings taken in" in runner.invoke(carbon, words).output
    (row,) = gather(Ledger(path), DAY, DAY + 3 * 86_400)[0]["readings"]
    assert (row["meter"], row["quantity"], row["flow"], row["periods"]) == ("SN1", "energy-import", "grid.import", 96)
    assert row["difference_milliwh"] == 0 and row["booked_milliwh"] == row["total"] > 0
    assert row["sources"][0]["key"] == public and row["sources"][0]["page"] == f"F{DAY // 86_400 + 1}"
    made = runner.invoke(carbon, ["report", str(path), "--span", "2024-03", "--out", str(tmp_path / "r"), "--no-pdf"])
    assert made.exit_code == 0, made.output
    checked = runner.invoke(carbon, ["verify", str(path), "--report", str(tmp_path / "r" / "report.json")])
    assert "report.json: 0 differences" in checked.output
    page = (tmp_path / "r" / "report.en.html").read_text()
    assert "Registers read by file" in page and "SN1" in page and "0.000000 kWh" in page


def test_a_refused_file_leaves_the_ledger_as_it_was(ledger, tmp_path):
    head = ledger.head
    text = signed(payload(), KEY).replace("2937.10", "2947.10")
    (tmp_path / "bad.ocmf").write_text(text)
    words = ["ocmf", "import", str(tmp_path / "l.db"), str(tmp_path / "bad.ocmf"), "--key", hex_of(PUBLIC)]
    shown = CliRunner().invoke(carbon, words)
    assert shown.exit_code == 65 and "bad.ocmf, document 1: the signature does not fit" in shown.output
    (tmp_path / "good.ocmf").write_text(signed(payload(), KEY))
    words = ["ocmf", "import", str(tmp_path / "l.db"), str(tmp_path / "good.ocmf"), "--key", hex_of(PUBLIC), "--flow",
             "roof.generation"]  # fmt: skip
    shown = CliRunner().invoke(carbon, words)
    assert shown.exit_code == 65 and "no such flow" in shown.output
    assert Ledger(tmp_path / "l.db").head == head
