"""The sections of a report in their order: one source for the page and for print.

A cell that holds a number names the row that it comes from: every number leads to its periods, factors and gaps.
"""

from collections.abc import Callable

from tidegate.runtime.carbon.report import demand_section, story
from tidegate.runtime.carbon.report import proof_sections as proof
from tidegate.runtime.carbon.report import result_sections as results
from tidegate.runtime.carbon.report.blocks import Section, Table
from tidegate.runtime.carbon.report.rested import rested
from tidegate.runtime.carbon.report.view import Report

TEMPLATES = ("account", "paper")
Maker = Callable[[Report], Section]


def sections(report: Report) -> list[Section]:
    """Every section of a report that has something to say. An account asks who used what; a paper argues.

    paper : what happened, the load curve with its peaks, flows, method, and the evidence as an annex.
    """
    return [_filled(make(report)) for make in (_paper if report.template == "paper" else _account)(report)]


def _account(report: Report) -> list[Maker]:
    d = report.d
    made: list[Maker] = [story.section, results.glance, demand_section.demand]
    if d["saved"] is not None:
        made.append(demand_section.saved)
    made += [results.energy, results.carbon, results.over_time, results.origins, *_work(report)]
    if "shifting" in d or "consequence_ug" in d:
        made.append(results.shifting)
    made += [results.indicators, results.scope2, proof.quality, proof.evidence, proof.made, proof.periods, proof.ledger]
    return made


def _work(report: Report) -> list[Maker]:
    made: list[Maker] = [results.jobs_section, results.idle] if "compute" in report.d else []
    return [*made, rested] if "rested" in report.d else made


def _paper(report: Report) -> list[Maker]:
    d = report.d
    made: list[Maker] = [story.section, demand_section.demand]
    if d["saved"] is not None:
        made.append(demand_section.saved)
    made += [results.energy, results.carbon, results.over_time, results.origins, *_work(report), results.glance]
    if "shifting" in d or "consequence_ug" in d:
        made.append(results.shifting)
    made += [results.indicators, proof.made, proof.quality]
    annex: list[Maker] = [results.scope2, proof.evidence, proof.periods, proof.ledger]
    return [*made, *(_annex(make, "ABCD"[number]) for number, make in enumerate(annex))]


def _annex(make: Maker, letter: str) -> Maker:
    def made(report: Report) -> Section:
        section = make(report)
        section.title = report.text("Annex {letter}: {title}").format(letter=letter, title=section.title)
        return section

    return made


def _filled(section: Section) -> Section:
    """A section without columns that say nothing: one whose cells are all empty or "-" is left out."""
    section.blocks = [_dense(block) if isinstance(block, Table) else block for block in section.blocks]
    section.blocks = [block for block in section.blocks if not isinstance(block, Table) or block.rows]
    return section


def _dense(table: Table) -> Table:
    if not table.head or not table.rows:
        return table
    keep = [at for at in range(len(table.head)) if at == 0 or any(row[at].text not in ("", "-") for row in table.rows)]
    if len(keep) == len(table.head):
        return table
    rows = [tuple(row[at] for at in keep) for row in table.rows]
    return Table(tuple(table.head[at] for at in keep), rows, table.ids, table.leaf, table.print_rows)
