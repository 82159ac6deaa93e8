"""What a condition may say, and that nothing else gets as far as the rows."""

import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rows import write_scores

from tastemaker import ConfigurationError, ScoreTable


@pytest.fixture
def table(tmp_path):
    write_scores(tmp_path / "rows.parquet", [6.0, None, 4.5])
    return ScoreTable(tmp_path)


@pytest.mark.parametrize(
    "condition",
    [
        "width >= 512 AND aesthetic_score < 9",
        "aesthetic_score BETWEEN 5 AND 7 OR aesthetic_score IS NULL",
        "image_id IN ('0', 'b') AND NOT (status = 'failed')",
        "caption LIKE '%dog%' OR caption NOT ILIKE '_at%cat%'",
        "regexp_matches(lower(caption), '^a (dog|cat){1,3}') OR caption SIMILAR TO '.*dog'",
        "CASE WHEN width > height THEN width::DOUBLE / height ELSE 1 END > 1.5",
        "sidecars[1].extension = 'txt' AND len(sidecars) > 1",
        "json ->> '$.licence' = 'CC0' OR json_extract_string(json, '$.\"a..b\"') IS NULL",
        "greatest(width, height) % 2 = 0 AND coalesce(rating, 0) >= 3",
        "hash(image_id) % 10 = 0 -- a tenth",
        "split_part(image_path, '/', 1) <> 'x' AND TRY_CAST(caption AS INTEGER) > 2",
        " OR ".join(f"width = {number}" for number in range(200)),
    ],
)
def test_a_condition_over_columns_is_answered(table, condition):
    assert len(table.to_arrow(["image_id"], condition)) <= 3


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        ("(" * 30_000, "30,000 characters; 4,000 is the limit"),
        ("(" * 2000, "2,000 brackets; 250 is the limit"),
        ("- " * 1900 + "width > 1", "is none: Max expression depth limit"),
        ("1=1) OR (1=1", "is none: syntax error"),
        ("true; DROP VIEW rows", "more than one condition"),
        ("true LIMIT 1", "more than one condition"),
        ("true UNION SELECT 2", "more than one condition"),
        ("length(repeat(caption, 1000000000)) > 1", r"may not use repeat\(\)"),
        ("length(replace(caption, 'a', caption)) > 1", r"may not use replace\(\)"),
        ("caption || caption = ''", r"may not use \|\|\(\)"),
        ("len(range(1000000000)) > 1", r"may not use range\(\)"),
        ("unnest([1, 2]) = 1", r"may not use unnest\(\)"),
        ("len(list_filter(sidecars, x -> x.size > 1)) > 1", r"may not use list_filter\(\)"),
        ("caption::JSON IS NOT NULL", "may not use the type JSON"),
        ("regexp_matches(caption, '([ab]?){900}')", "may not use regular expressions of 10,800 characters"),
        ("caption ~ '((a{10}){10}){10}' OR caption ~ 'x'", "counts multiplied; 500 is the limit"),
        ("regexp_matches(caption, caption)", "a pattern that is no plain text"),
        ("json_extract(json, '$..*..*') IS NULL", "a path of JSON that looks everywhere"),
        ("image_id IN (SELECT image_id FROM rows)", "may not use another query"),
        ("EXISTS (SELECT * FROM '/etc/passwd')", "may not use another query"),
        ("width = ANY([1, 2])", "may not use another query"),
        ("read_text('/etc/passwd') IS NULL", r"may not use read_text\(\)"),
        ("getenv('HOME') = ''", r"may not use getenv\(\)"),
        ("sum(width) > 1", r"may not use sum\(\)"),
        ("row_number() OVER () > 1", "may not use window"),
        ("width > $1", "may not use parameters"),
        ("COLUMNS('w.*') > 1", "may not use star"),
    ],
)
def test_what_could_stop_the_program_is_refused_in_one_line_and_not_run(table, condition, problem):
    with pytest.raises(ConfigurationError, match=problem) as refused:
        table.to_arrow(["image_id"], condition)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_a_signal_during_a_query_ends_the_command_without_a_traceback(tmp_path):
    rows = pq.read_table(write_scores(tmp_path / "few.parquet", [5.0] * 100))
    rows = pa.concat_tables([rows] * 300)
    captions = pa.array([f"picture {number} of pictures " * 10 for number in range(len(rows))])
    rows = rows.set_column(rows.schema.get_field_index("caption"), "caption", captions)
    pq.write_table(rows, tmp_path / "rows.parquet")
    slow = " OR ".join(f"lower(caption[{number}:300]) = 'x'" for number in range(1, 99))
    command = [sys.executable, "-m", "tastemaker", "select", "rows.parquet", "--where", slow, "--to", "out"]
    (tmp_path / "drafts").mkdir()
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path / "drafts")},
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list((tmp_path / "drafts").glob("*/*")):  # the table is not open yet
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
