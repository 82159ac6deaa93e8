"""Stacks: the groups of a table's pictures, told apart by capture time, and the best frame of each by one rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ConfigurationError
from tastemaker.imaging.formats import RAW_FORMATS
from tastemaker.imaging.signals import CONTRAST_CURVE
from tastemaker.scores.database import NO_EMBEDDINGS, sql_text
from tastemaker.scores.groups import MIN_SIMILARITY, group_duplicates
from tastemaker.scores.locations import ROW_ID, IntArray
from tastemaker.scores.table import EMBEDDING, ScoreTable

MAX_GAP_S = 60.0
"""Pictures that look alike are of one stack while each was taken at most so many seconds after the one before."""

BRACKET_GAP_S = 2.0
"""Frames of a bracket follow one another within so many seconds."""

LEAST_BRACKET = 3
"""Frames that a bracket has at least."""

AS_EXPOSED = 0.9
"""A frame is as well exposed as the best from this share of its exposure on."""

AS_SHARP = 0.95
"""A frame is as sharp as the sharpest from this share of its sharpness on."""

FRAME_COLUMNS = ("subject_sharpness", "exposure", "contrast", "exposure_bias_ev", "captured_at")
"""Columns of rows that the best frame is chosen by, where they are there."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Frames = Mapping[str, Floats]
"""`FRAME_COLUMNS` that a table has, float64 (n,), NaN for nulls; times in seconds. And ``shot``, where it has raws: a
number for each shot; its raw has that number and a half."""


@dataclass(frozen=True)
class BestFrames:
    """Which rows are the best of their group, and why.

    Attributes:
        marks: bool (n,).
        reasons: object (n,): of the best frame of a group of several a few words, such as ``sharpest of 5``; else None.
    """

    marks: Bools
    reasons: npt.NDArray[np.object_]


def find_stacks(table: ScoreTable, rows: IntArray, min_similarity: float = MIN_SIMILARITY) -> IntArray:
    """Return the group of each of these rows, int64 (n,): the number in the table of the group's first row.

    Pictures are of one group that look alike (`group_duplicates`) and of which each was taken at most `MAX_GAP_S` after
    the one before, where the rows say when; one without a time stays with the earliest of those that it looks like.
    In any case, a bracket is a group of its own (frames within `BRACKET_GAP_S` of each other, at even steps of exposure
    bias), and a raw is in that of the other file of its shot (same folder and name, and no other time).

    Args:
        table: The rows.
        rows: int64 (n,), ascending.
        min_similarity: Cosine from which on pictures look alike, in (0, 1].

    Raises:
        ConfigurationError: The rows have no embeddings.
        MissingExtraError: There are so many that it needs the extra ``groups``.
    """
    check_embeddings(table)
    groups = group_duplicates(table.embeddings.take(rows), min_similarity=min_similarity)
    frames = read_frames(table, rows)
    if "captured_at" in frames:
        groups = split_by_time(groups, frames["captured_at"])
    for number, bracket in enumerate(find_brackets(frames)):
        groups[bracket] = len(groups) + number
    if "shot" in frames:
        groups = groups[np.floor(frames["shot"]).astype(np.int64)]
    _, first, numbers = np.unique(groups, return_index=True, return_inverse=True)
    return rows[first[numbers]]


def check_embeddings(table: ScoreTable) -> None:
    """Raise `ConfigurationError` where the rows have no embeddings to compare pictures by."""
    if EMBEDDING not in table.columns or not table.embeddings.size:
        raise ConfigurationError(NO_EMBEDDINGS)


def split_by_time(groups: IntArray, times: Floats) -> IntArray:
    """Return groups whose members were each taken at most `MAX_GAP_S` after the one before.

    Args:
        groups: int64 (n,).
        times: In seconds, float64 (n,); NaN for unknown: such a row stays in the first part of its group.

    Example:
        >>> split_by_time(np.array([0, 0, 0, 3]), np.array([10.0, 400.0, 11.0, 12.0])).tolist()
        [0, 1, 0, 2]
    """
    order = np.lexsort((np.where(np.isnan(times), -np.inf, times), groups))
    with np.errstate(invalid="ignore"):  # of two rows without a time
        is_far = np.diff(times[order]) > MAX_GAP_S  # False beside a NaN
    begins = np.concatenate([[0], (groups[order][1:] != groups[order][:-1]) | is_far]).astype(np.int64)
    parts = np.empty(len(groups), np.int64)
    parts[order] = np.cumsum(begins)
    return parts


def find_brackets(frames: Frames) -> list[IntArray]:
    """Return the exposure brackets among these rows, each as places, earliest first.

    One after another they are taken, by time: a frame begins another row of frames where it comes more than
    `BRACKET_GAP_S` after the one before, or where its exposure bias is there already. So a bracket ends where the next
    one or a burst begins. Raws that have another file are left out.

    Example:
        >>> frames = {"captured_at": np.arange(4.0), "exposure_bias_ev": np.array([0.0, 0.0, -1.0, 1.0])}
        >>> [places.tolist() for places in find_brackets(frames)]
        [[1, 2, 3]]
    """
    if not {"captured_at", "exposure_bias_ev"} <= set(frames):
        return []
    times, biases = frames["captured_at"], frames["exposure_bias_ev"]
    is_meant = ~np.isnan(times + biases)
    if "shot" in frames:
        is_meant &= frames["shot"] % 1 == 0
    places = np.flatnonzero(is_meant)
    runs: list[list[int]] = []
    seen: set[float] = set()
    last = -np.inf
    for place in places[np.argsort(times[places], kind="stable")].tolist():
        if times[place] - last > BRACKET_GAP_S or biases[place] in seen:
            runs.append([])
            seen.clear()
        runs[-1].append(place)
        seen.add(biases[place])
        last = times[place]
    several = (np.array(run, np.int64) for run in runs if len(run) >= LEAST_BRACKET)
    return [run for run in several if _middle_of_bracket(run, frames)]


def find_shots(table: ScoreTable, rows: IntArray) -> Floats | None:
    """Return a number for each row, equal for files of one shot, and of its raw a half more; None without raws.

    Files are of one shot whose folder and name are the same but for the extension, and whose times do not differ.
    """
    formats = ", ".join(sql_text(name) for name in sorted(RAW_FORMATS))
    if not {"format", "image_path"} <= set(table.columns) or not table.present_rows(f"format IN ({formats})").size:
        return None
    time = "captured_at" if "captured_at" in table.columns else "NULL"
    asked = "lower(regexp_replace(image_path, '[.][^./]*$', ''))"
    found = table.query(
        f"SELECT row_id, {asked} AS stem, {time} AS time, format IN ({formats}) AS is_raw FROM rows "
        f"WHERE {asked} IN (SELECT {asked} FROM rows WHERE format IN ({formats})) ORDER BY row_id"
    ).to_pylist()
    places = {int(row): place for place, row in enumerate(rows)}
    shots = np.arange(len(rows), dtype=np.float64)
    others = defaultdict(list)
    here = [file for file in found if file["row_id"] in places]
    for file in here:
        if not file["is_raw"]:
            others[file["stem"]].append(file)
    for raw in here:
        if raw["is_raw"]:
            of_shot = (
                file
                for file in others[raw["stem"]]
                if None in (times := (raw["time"], file["time"])) or times[0] == times[1]
            )
            if other := next(of_shot, None):
                shots[places[raw["row_id"]]] = places[other["row_id"]] + 0.5
    return shots


def read_frames(table: ScoreTable, rows: IntArray) -> Frames:
    """Return what the table says of these rows for `best_of_group`."""
    shots = find_shots(table, rows)
    frames = {} if shots is None else {"shot": shots}
    if there := [name for name in FRAME_COLUMNS if name in table.columns]:
        asked = ", ".join(f"epoch_us({name}) / 1e6 AS {name}" if name == "captured_at" else name for name in there)
        found = table.query(f"SELECT {asked} FROM rows ORDER BY {ROW_ID}")
        frames |= {name: found[name].to_numpy().astype(np.float64)[rows] for name in there}
    return frames


def best_of_group(groups: npt.ArrayLike, scores: npt.ArrayLike, frames: Frames | None = None) -> BestFrames:
    """Return the best frame of each group, and why it is.

    Of a shot with a raw, the other file stands for both. Of a bracket (three frames or more within seconds, at even
    steps of exposure), the one in the middle is the best. Else frames
    that are plainly worse exposed are set aside, by what is clipped and by contrast: their sharpness says nothing. Of
    the others, the one with the sharpest subject; among frames that are as sharp, the one with the highest score, and
    of equal ones the first. Where a frame of a group lacks a measurement, that step is left out. A row without a score
    (NaN) is never the best.

    Args:
        groups: Integers (n,).
        scores: float (n,).
        frames: What is measured, as `read_frames` returns it; None for the score alone.

    Example:
        >>> best_of_group([0, 0, 2, 2], [5.0, 6.0, 4.0, 4.0]).marks
        array([False,  True,  True, False])
        >>> best = best_of_group([0, 0, 0], [6.0, 5.0, 5.5], {"subject_sharpness": np.array([0.1, 0.2, 0.195])})
        >>> best.marks, best.reasons[2]
        (array([False, False,  True]), 'highest score of 3')
    """
    frames = frames or {}
    group, score = np.asarray(groups), np.asarray(scores, np.float64)
    order = np.lexsort((-score, group))  # stable, and NaN last
    order = order[~np.isnan(score[order])]
    if "shot" in frames:
        order = order[_stand_for_shots(frames["shot"][order])]
    marks, reasons = np.zeros(len(group), np.bool_), np.full(len(group), None, np.object_)
    starts = np.flatnonzero(np.diff(group[order], prepend=group[order[:1]] - 1))
    sizes = np.diff(starts, append=len(order))
    marks[order[starts[sizes == 1]]] = True
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        best, why = _choose(order[start : start + size], frames)
        marks[best], reasons[best] = True, why
    return BestFrames(marks, reasons)


def _stand_for_shots(shots: Floats) -> npt.NDArray[np.int64]:
    """Return the places, ascending, of one file of each shot: a raw only where it is alone."""
    by_shot = np.argsort(shots, kind="stable")
    return np.sort(by_shot[np.unique(np.floor(shots[by_shot]), return_index=True)[1]])


def _choose(members: IntArray, frames: Frames) -> tuple[int, str]:
    """Return the best of rows that are sorted by score, and why."""
    count = len(members)
    if middle := _middle_of_bracket(members, frames):
        return middle[0], f"middle of a bracket of {count}"
    for what, measure, share in (("best exposed", _exposure, AS_EXPOSED), ("sharpest", _sharpness, AS_SHARP)):
        values = measure(members, frames)
        if values is not None and values.max() > 0:
            left = members[values >= share * values.max()]
            if len(left) == 1:
                return int(left[0]), f"{what} of {count}"
            members = left
    return int(members[0]), f"highest score of {count}"


def _sharpness(members: IntArray, frames: Frames) -> Floats | None:
    return _take(frames, "subject_sharpness", members)


def _exposure(members: IntArray, frames: Frames) -> Floats | None:
    """Return how well frames of one scene are exposed, 0 to 1: what is not clipped, times the grade of contrast."""
    clipped, contrast = _take(frames, "exposure", members), _take(frames, "contrast", members)
    if clipped is None or contrast is None:
        return None
    half, power = CONTRAST_CURVE
    return np.asarray((1 - clipped) * contrast**power / (contrast**power + half**power))


def _take(frames: Frames, name: str, members: IntArray) -> Floats | None:
    values = frames[name][members] if name in frames else None
    return None if values is None or np.isnan(values).any() else values


def _middle_of_bracket(members: IntArray, frames: Frames) -> list[int]:
    """Return the frame in the middle of an exposure bracket; none where the members are no bracket."""
    biases, times = _take(frames, "exposure_bias_ev", members), _take(frames, "captured_at", members)
    if biases is None or times is None or len(members) < LEAST_BRACKET:
        return []
    steps = np.diff(np.sort(biases))
    is_even = steps.min() > 0.1 and steps.max() - steps.min() < 0.1  # thirds of an EV are rounded
    is_quick = np.diff(np.sort(times)).max() <= BRACKET_GAP_S
    return [int(members[np.argsort(biases)[(len(members) - 1) // 2]])] if is_even and is_quick else []
