"""The history as CSV, for a table of one's own."""

import csv
import io
import time

from starlette.responses import PlainTextResponse, Response

from tidegate.runtime.web.history_store import HistoryStore

CSV_ROWS_MAX = 100_000


def csv_of(store: HistoryStore, names: list[str], since: int, until: int) -> Response:
    """The ring's own slots as CSV, each series with least, mean and most."""
    ring = store.ring_for(since, until, CSV_ROWS_MAX // 4)
    columns = [{slot.utc_s: slot for slot in store.slots(name, since, until, ring)} for name in names]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["utc", "slot_s", *(f"{name} {what}" for name in names for what in ("least", "mean", "most"))])
    for utc_s in sorted({at for column in columns for at in column})[-CSV_ROWS_MAX:]:
        row: list[object] = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(utc_s)), ring.slot_s]
        for column in columns:
            slot = column.get(utc_s)
            row += ["", "", ""] if slot is None else [f"{v:.7g}" for v in (slot.least, slot.mean, slot.most)]
        writer.writerow(row)
    headers = {"content-disposition": f'attachment; filename="tidegate-{since}-{until}.csv"'}
    return PlainTextResponse(out.getvalue(), headers=headers, media_type="text/csv; charset=utf-8")
