"""Who sends a report: what is read, what is refused, and where it is seen."""

import base64

import pytest
from click.testing import CliRunner

from tests.runtime.carbon.report.test_write import DAY, ledger  # noqa: F401  (a fixture)
from tidegate.runtime.carbon.report.letterhead import LOGO_BYTES_MAX, read_letterhead
from tidegate.runtime.carbon.report.write import write
from tidegate.runtime.cli.carbon_commands import carbon

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
GOOD = 'operator = "Hall <7> GmbH"\naddress = ["Hafenstrasse 7", "20457 Hamburg"]\nlogo = "logo.png"\n'


def test_operator_address_and_logo_are_on_the_first_page(ledger, tmp_path):  # noqa: F811
    (tmp_path / "logo.png").write_bytes(PNG)
    (tmp_path / "head.toml").write_text(GOOD, encoding="utf-8")
    head = read_letterhead(tmp_path / "head.toml")
    assert head.address == ("Hafenstrasse 7", "20457 Hamburg") and head.logo == PNG
    found = write(ledger, DAY, DAY + 86_400, tmp_path / "r", letterhead=head)
    page = found["html en"].read_text(encoding="utf-8")
    top = page[page.index("<main>") : page.index("<nav")]
    assert "Hall &lt;7&gt; GmbH" in top and "20457 Hamburg" in top and "data:image/png;base64," in top
    assert "2024-03-01 (UTC)" in top
    paper = found["pdf en"].read_bytes()
    assert b"/Author" in paper and paper.count(b"/Subtype /Image") >= 3  # the logo, and two plots


def test_who_sends_it_changes_no_number(ledger, tmp_path):  # noqa: F811
    (tmp_path / "head.toml").write_text('operator = "A"', encoding="utf-8")
    plain = write(ledger, DAY, DAY + 86_400, tmp_path / "1", pdf=False)
    sent = write(ledger, DAY, DAY + 86_400, tmp_path / "2", pdf=False,
                 letterhead=read_letterhead(tmp_path / "head.toml"))  # fmt: skip
    assert plain["json"].read_bytes() == sent["json"].read_bytes()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("operator = ", "TOML"), ("", "operator is missing"), ('operator = " "', "operator is missing"),
        ('operator = "A"\nlogos = "x"', "logos: no such key"), ("operator = 7", "operator: text"),
        ('operator = "A"\naddress = 7', "address"), ('operator = "A"\naddress = [7]', "address"),
        ('operator = "A"\nlogo = "no.png"', "logo"), ('operator = "A"\nlogo = "text.png"', "PNG or a JPEG"),
        ('operator = "A"\nlogo = "cut.png"', "cannot be read"), ('operator = "A"\nlogo = "big.png"', "at most"),
    ],
)  # fmt: skip
def test_what_is_no_letterhead_is_refused_by_name(tmp_path, text, why):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(PNG[:30])
    (tmp_path / "big.png").write_bytes(PNG + bytes(LOGO_BYTES_MAX))
    path = tmp_path / "head.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=why):
        read_letterhead(path)


def test_the_command_names_a_letterhead_that_it_cannot_use(ledger, tmp_path):  # noqa: F811
    path = tmp_path / "head.toml"
    path.write_bytes(b"\xff\xfe")
    found = CliRunner().invoke(carbon, ["report", str(tmp_path / "ledger.db"), "--span", "2024-03-01", "--out",
                                        str(tmp_path / "r"), "--letterhead", str(path)])  # fmt: skip
    assert found.exit_code != 0 and "head.toml" in found.output and not (tmp_path / "r").exists()
