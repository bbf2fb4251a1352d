"""Backups that failed, or of which nothing was heard for too long."""

from tidegate.runtime.findings.evidence import Finding
from tidegate.runtime.findings.text import age
from tidegate.runtime.state.backup_outcome import BackupOutcome, late_s

REMEDY = "mend what it names, then: systemctl start tidegate-backup@SITE"


def backup_findings(outcome: BackupOutcome, utc_s: float) -> list[Finding]:
    """What a person has to know of them."""
    good = "none was good yet" if outcome.ok_utc_s is None else f"the last good one is {_ago(outcome, utc_s)} old"
    if outcome.why:
        return [Finding(30, "the backup failed", f"{outcome.place}: {outcome.why}; {good}", REMEDY)]
    if late_s(outcome, utc_s) is not None:
        because = f"{outcome.place}: {good}, one is due each {outcome.every_h:g} h"
        return [Finding(25, "no backup was made for too long", because, "systemctl status tidegate-backup@SITE.timer")]
    return []


def _ago(outcome: BackupOutcome, utc_s: float) -> str:
    return age(max(0.0, utc_s - (outcome.ok_utc_s or 0.0)) * 1e3)
