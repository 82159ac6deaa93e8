"""Whatever bytes come, no file ends the process, keeps it busy, takes its memory, or raises what nobody expects."""

import json
import subprocess
import sys

import fuzzing


def test_ten_thousand_damaged_files_become_pictures_samples_rows_or_reasons():
    run = subprocess.run([sys.executable, fuzzing.__file__, "560"], capture_output=True, text=True, check=True)
    reports = json.loads(run.stdout)
    assert {kind: report["problems"] for kind, report in reports.items() if report["problems"]} == {}
    assert sum(report["files"] for report in reports.values()) >= 10_000
    assert all(report["came_out"] for report in reports.values()), "or nothing but the first bytes was looked at"
