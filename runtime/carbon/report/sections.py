"""The sections of a report in their order: one source for the page and for print.

A cell that holds a number names the row that it comes from: every number leads to its periods, factors and gaps.
"""

from tidegate.runtime.carbon.report import proof_sections as proof
from tidegate.runtime.carbon.report import result_sections as results
from tidegate.runtime.carbon.report.blocks import Section
from tidegate.runtime.carbon.report.rested import rested
from tidegate.runtime.carbon.report.view import Report


def sections(report: Report) -> list[Section]:
    """Every section of a report that has something to say."""
    d = report.d
    made = [results.glance, results.energy, results.carbon, results.over_time, results.origins]
    if "compute" in d:
        made += [results.jobs_section, results.idle]
    if "rested" in d:
        made.append(rested)
    if "shifting" in d or "consequence_ug" in d:
        made.append(results.shifting)
    made += [results.indicators, results.scope2, proof.quality, proof.evidence, proof.made, proof.periods, proof.ledger]
    return [section(report) for section in made]
