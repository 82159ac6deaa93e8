"""Recipes and slices: steps in their order, exact numbers in every slice, and a funnel that says what each step did."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rows import make_image, write_rows
from typer.testing import CliRunner

from tastemaker import ConfigurationError, ScoreTable, Selection, select_images
from tastemaker.cli import app
from tastemaker.scores.cutoff import Top
from tastemaker.selections.selection import choose_rows

RECIPES = sorted((Path(__file__).parents[2] / "docs" / "recipes").glob("*.yaml"))


def figures_of(number):
    likeness = 0.1 + number / 60
    names = ("clip_l14_similarity_score", "clip_b32_similarity_score")
    return {"pwatermark": number / 25, "punsafe": (20 - number) / 40, **dict.fromkeys(names, likeness)}


def json_of(number):
    values = {"licence": ["CC0", "MIT"][number % 2], **figures_of(number)}
    return b"{broken" if number == 19 else json.dumps(values).encode()


@pytest.fixture
def table(tmp_path):
    """Twenty pictures, ever wider and ever better, with captions and JSON; that of the last is broken."""
    captions = [b"a cat", b"a cat on a mat"]
    images = [
        make_image(n, 4 + n / 10, width=500 + 10 * n, sidecars={"txt": captions[n % 2], "json": json_of(n)})
        for n in range(20)
    ]
    write_rows(tmp_path / "rows" / "a.parquet", images)
    return ScoreTable(tmp_path)


def rows_of(table, **selection):
    return choose_rows(table, Selection(**selection)).rows.tolist()


@pytest.fixture
def write_recipe(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write


def test_steps_work_in_their_order(table):
    condition, cut = "width < 600", "aesthetic_score top 5"
    assert rows_of(table, recipe=(condition, cut)) == [5, 6, 7, 8, 9]
    assert rows_of(table, recipe=(cut, condition)) == []


def test_a_funnel_says_what_is_left_and_what_a_step_alone_dropped(table):
    chosen = choose_rows(table, Selection(recipe=("width >= 520", "aesthetic_score >= 4.1", "width < 600")))
    assert [(step.left, step.dropped, step.only) for step in chosen.funnel] == [(18, 2, 1), (18, 0, 0), (8, 10, 10)]


def test_a_recipe_says_the_same_as_options(table):
    options = {"where": "width >= 520", "top": Top(share=0.5)}
    assert rows_of(table, **options) == rows_of(table, recipe=("width >= 520", "aesthetic_score top 50%"))


@pytest.mark.parametrize(
    ("per", "kept"),
    [
        ("caption", [16, 17, 18, 19]),
        ("json ->> 'licence'", [15, 16, 17, 18, 19]),  # the broken one is alone in a slice, and one is kept of each
        ("width % 3", [17, 18, 19]),
        ("format", [16, 17, 18, 19]),
        ("image_id", list(range(20))),
    ],
)
def test_every_slice_keeps_exactly_its_share(table, per, kept):
    assert rows_of(table, top=Top(share=0.2), per=per) == kept


def test_a_percentile_in_a_slice_is_a_column_of_the_list(table, tmp_path):
    select_images(table, tmp_path / "list.parquet", Selection(top=Top(count=2), per="caption"), kind="manifest")
    listed = pq.read_table(tmp_path / "list.parquet")
    assert listed["image_id"].to_pylist() == ["00016", "00017", "00018", "00019"]
    assert listed["slice_percentile"].to_pylist() == pytest.approx([90, 90, 100, 100])


def test_pictures_without_a_value_are_never_the_best_of_a_slice(tmp_path):
    scores = [5.0, None, float("nan"), 4.0]
    images = [make_image(n, score, width=600 + n % 2) for n, score in enumerate(scores)]
    write_rows(tmp_path / "rows" / "a.parquet", images)
    found = choose_rows(ScoreTable(tmp_path), Selection(top=Top(count=9), per="width"))
    assert found.rows.tolist() == [0, 3]


def test_one_broken_json_does_not_end_a_query(table):
    assert rows_of(table, where="(json ->> 'pwatermark')::DOUBLE < 0.15") == [0, 1, 2, 3]
    assert rows_of(table, where="json IS NULL") == [19]


@pytest.mark.parametrize("has_columns", [True, False])
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_published_recipes_keep_some_and_drop_some(tmp_path, path, has_columns):
    """The figures that a data set came with are columns of metadata, or fields of the JSON beside the pictures."""
    images = [
        make_image(
            n,
            4 + n / 10,
            width=100 + 60 * n,
            sidecars={"txt": [b"a cat", b"a cat on a mat"][n % 2], **({} if has_columns else {"json": json_of(n)})},
        )
        for n in range(20)
    ]
    for image in images:
        image.height = image.width
    rows = write_rows(tmp_path / "rows" / "a.parquet", images)
    given = pq.read_table(rows)
    for column in figures_of(0) if has_columns else ():
        given = given.append_column(column, pa.array([figures_of(n)[column] for n in range(20)]))
    pq.write_table(given, rows)
    out = tmp_path / "list.jsonl"
    told = CliRunner().invoke(
        app, ["select", str(tmp_path / "rows"), "--recipe", str(path), "--to", str(out), "--as", "manifest", "--json"]
    )
    assert told.exit_code == 0, told.output
    summary = json.loads(told.stdout)
    assert 0 < summary["written"] < 20
    assert all(step["left"] > 0 for step in summary["funnel"])
    assert all(step["dropped"] or step["only"] == 0 for step in summary["funnel"])
    assert len(out.read_text().splitlines()) == summary["written"] == summary["funnel"][-1]["left"]


def test_the_command_prints_the_funnel(table, tmp_path, write_recipe):
    recipe = write_recipe("name: mine\nsteps:\n  - width >= 520\n  - aesthetic_score top 3 per caption\n")
    out = tmp_path / "keys.txt"
    told = CliRunner().invoke(
        app, ["select", str(tmp_path / "rows"), "--recipe", str(recipe), "--to", str(out), "--as", "uids"]
    )
    assert told.exit_code == 0, told.output
    lines = [line.split() for line in told.output.splitlines()]
    assert ["width", ">=", "520", "18", "2", "0"] in lines
    assert "6 of 20 images" in told.output
    assert out.read_text().split() == [f"{n:05d}" for n in range(14, 20)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: width >= 512", "a list of steps"),
        ("- width >= 512", "a list of steps"),
        ("steps:\n  - 5", "step 1 is no text"),
        ("steps:\n  - a: b", "step 1 is no text"),
        ("steps: ['x'", "no YAML"),
        ("steps: " + "[" * 5000, "no YAML"),
        ("stages: []\nsteps: []", "nothing else"),
        ("a: &a [x, x]\nsteps: [*a, [*a, *a]]", "nothing else"),
        (f"steps: [{'x ' * 600_000}]", "larger than"),
        ("steps: [width >= 512]\nsteps: [height >= 512]", "says `steps:` twice"),
        ("steps:\n\t- a", "in line 2"),
        ("steps: [" + "width > 3, " * 101 + "]", "100 is the limit"),
        ("steps: [width > 3, widht > 3]", "widht > 3: the query cannot be answered: there is no column widht"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path, table, write_recipe, text, said):
    arguments = ["select", str(tmp_path / "rows"), "--recipe", str(write_recipe(text)), "--to", str(tmp_path / "o.txt")]
    told = CliRunner().invoke(app, [*arguments, "--as", "uids"])
    assert isinstance(told.exception, ConfigurationError | SystemExit)
    assert said in str(told.exception) + told.output
    assert not (tmp_path / "o.txt").exists()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (("width >=",), "width >="),
        (("min(width) > 5",), "min() of a whole column"),
        (("rank_average(width, height) > 0.5",), "rank_average ranks all images: cut by it"),
        (("sharpness top 5%",), "sharpness"),
        (("width top 5 per read_text('/etc/passwd')",), "read_text"),
        (("aesthetic_score top 0%",), "0%"),
    ],
)
def test_a_step_that_cannot_be_done_is_named(table, recipe, said):
    with pytest.raises(ConfigurationError, match=said.replace("(", r"\(").replace(")", r"\)")):
        choose_rows(table, Selection(recipe=recipe))


def test_a_recipe_and_other_cuts_do_not_go_together():
    with pytest.raises(ConfigurationError, match="a recipe says all"):
        Selection(recipe=("width > 5",), top=Top(count=1))
    with pytest.raises(ConfigurationError, match="add --top"):
        Selection(min_score=5.0, per="format")


def test_the_report_shows_the_funnel(table, tmp_path, write_recipe):
    recipe = write_recipe("steps:\n  - width >= 520\n  - caption = 'a cat <b>'\n  - aesthetic_score top 3\n")
    page = tmp_path / "page.html"
    told = CliRunner().invoke(app, ["report", str(tmp_path / "rows"), "--recipe", str(recipe), "-o", str(page)])
    assert told.exit_code == 0, told.output
    text = re.sub(r"<[^>]*>", " ", page.read_text().partition("</style>")[2]).split()
    at = text.index("width")
    assert text[at : at + 6] == ["width", "&gt;=", "520", "18", "2", "0"]
    assert "caption = &#39;a cat &lt;b&gt;&#39;" in page.read_text()
