"""What a hub is started by elsewhere: every command in it parses, and Kubernetes' own schemas take the chart."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.test_commands import walk

ROOT = Path(__file__).resolve().parents[3]
FLEET = ROOT / "packaging" / "fleet"
SYSTEMD = ROOT / "packaging" / "systemd"
UNITS = [*sorted(SYSTEMD.glob("tidegate-hub*.service")), SYSTEMD / "tidegate-fleet@.service"]


def rendered(path):
    """A template with its values. It uses no other word of Helm's language than values and the release's name."""
    values = {
        f".Values.{key}": value for key, value in yaml.safe_load((FLEET / "chart" / "values.yaml").read_text()).items()
    }
    values[".Release.Name"] = "fleet"
    return re.sub(r"\{\{ (\S+) \}\}", lambda match: str(values[match[1]]), path.read_text())


def test_the_chart_is_what_kubernetes_takes():
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    version = validate.latest_version()
    kinds = []
    for path in sorted((FLEET / "chart" / "templates").glob("*.yaml")):
        text = rendered(path)
        assert "{{" not in text
        for document in yaml.safe_load_all(text):
            validate.validate(document, version, strict=True)
            kinds.append(document["kind"])
            broken = {**document, "spec": {**document["spec"], "replica": 1}}
            with pytest.raises(validate.ValidationError):
                validate.validate(broken, version, strict=True)
    assert sorted(kinds) == ["Service", "StatefulSet"]


def commands():
    for path in sorted((FLEET / "chart" / "templates").glob("*.yaml")):
        for document in yaml.safe_load_all(rendered(path)):
            spec = document["spec"].get("template", {}).get("spec", {})
            for one in [*spec.get("initContainers", []), *spec.get("containers", [])]:
                if one.get("command") == ["sh", "-c"]:
                    yield shlex.split(one["args"][0].partition("||")[2])[1:]
                else:
                    yield one["args"]
    for service in yaml.safe_load((FLEET / "compose.yml").read_text())["services"].values():
        if "command" in service:
            yield service["command"]
    for unit in UNITS:
        (line,) = re.findall(r"^ExecStart=/usr/bin/tidegate (.*)$", unit.read_text(), flags=re.M)
        yield line.split()


def test_every_command_in_them_can_be_typed():
    found = [list(words) for words in commands()]
    assert len(found) == 10
    for words in found:
        assert walk([word.replace("/tls/", "./tls/") for word in words]) == "", words


def test_the_compose_file_names_no_volume_or_service_that_is_not_there():
    made = yaml.safe_load((FLEET / "compose.yml").read_text())
    for name, service in made["services"].items():
        for other in service.get("depends_on", {}):
            assert other in made["services"], name
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source.startswith("./") or source in made["volumes"], (name, volume)


def test_systemd_takes_the_units(tmp_path):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not on this machine")
    for unit in UNITS:
        text = unit.read_text().replace("/usr/bin/tidegate", "/bin/true")
        copy = tmp_path / unit.name.replace("@.", "@x.")
        copy.write_text(text)
        found = subprocess.run([program, "verify", str(copy)], capture_output=True, text=True)
        wrong = [line for line in found.stderr.splitlines() if copy.name in line]
        assert wrong == [], wrong
