"""What a condition may say, and that nothing else gets as far as the rows."""

import contextlib
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
    ("condition", "same"),
    [
        ("min(width, height) / MAX(height, min(width, 9)) > 0.5", "least(width, height) / greatest(height, 9) > 0.5"),
        ("field('width')::DOUBLE > 3 AND 'é' <> max(caption, 'b')", "width > 3 AND 'é' <> greatest(caption, 'b')"),
        ("field('nothing') IS NULL", "true"),
    ],
)
def test_words_of_a_row_are_translated(table, condition, same):
    assert table.to_arrow(["image_id"], condition) == table.to_arrow(["image_id"], same)


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        ("(" * 30_000, "30,000 characters; 4,000 is the limit"),
        ("(" * 2000, "2,000 brackets; 250 is the limit"),
        ("- " * 1900 + "width > 1", "cannot be read: Max expression depth limit"),
        ("1=1) OR (1=1", "cannot be read: something is missing or wrong at .*"),
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
        ("regexp_matches(caption, caption)", "a pattern that is no plain text"),
        ("json_extract(json, '$..*..*') IS NULL", "a path of JSON that looks everywhere"),
        ("image_id IN (SELECT image_id FROM rows)", "may not use another query"),
        ("EXISTS (SELECT * FROM '/etc/passwd')", "may not use another query"),
        ("width = ANY([1, 2])", "may not use another query"),
        ("read_text('/etc/passwd') IS NULL", r"may not use read_text\(\)"),
        ("min(width) > 1", r"may not use min\(\) of a whole column"),
        ("field(caption) = 'x'", "a field is the name of one in single quotes"),
        ("field('a\" OR true OR \"') IS NULL", "a field is the name of one in single quotes"),
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


@pytest.fixture
def long_texts(tmp_path):
    """A table of one block of DuckDB's with long captions, and a condition that is busy with it for minutes."""
    rows = pq.read_table(write_scores(tmp_path / "few.parquet", [5.0] * 100))
    rows = pa.concat_tables([rows] * 20)
    captions = pa.array(["ab" * 5000] * len(rows))
    rows = rows.set_column(rows.schema.get_field_index("caption"), "caption", captions)
    pq.write_table(rows, tmp_path / "rows.parquet")
    (tmp_path / "few.parquet").unlink()
    return tmp_path, " OR ".join(f"regexp_matches(caption, '([ab]?){{{number}}}c')" for number in range(400, 460))


def test_a_condition_is_stopped_at_its_limit_within_a_block_too_and_the_next_is_answered(long_texts):
    folder, slow = long_texts
    table = ScoreTable(folder)
    with pytest.raises(ConfigurationError, match=r"took longer than 2 seconds and was stopped"):
        table.to_arrow(["image_id"], slow, limit_s=2)
    for limit in (60, 0.001, 0.01, 0.1, 60):  # the time may be up before, when and after the answer comes
        with contextlib.suppress(ConfigurationError):
            assert len(table.to_arrow(["image_id"], "length(caption) = 10000", limit_s=limit)) == 2000
    with pytest.raises(ConfigurationError, match="a query is one SELECT"):
        table.query(f"SELECT 1; SELECT {table.check('length(caption) = 1')} FROM rows")
    assert len(table.to_arrow(["image_id"], "length(caption) = 10000", limit_s=60)) == 2000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_query_ends_the_command_without_a_traceback(long_texts, number):
    folder, slow = long_texts
    command = [sys.executable, "-m", "tastemaker", "select", "rows.parquet", "--where", slow, "--to", "out"]
    (folder / "drafts").mkdir()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "drafts")},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while process.poll() is None and not list((folder / "drafts").glob("*/*")):  # the table is not open yet
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)  # the query would take minutes
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    assert not (folder / "out").exists()
