"""Scores as stars: XMP sidecars beside the originals, under the names that darktable, digiKam and Lightroom read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from tastemaker.errors import ConfigurationError, MetadataError
from tastemaker.imaging.embedded import file_rating
from tastemaker.imaging.formats import RAW_EXTENSIONS
from tastemaker.imaging.xmp import belongs_to, make_xmp, read_label, read_rating, set_label, set_rating
from tastemaker.scores.named import NamedPlaces
from tastemaker.scores.schema import original_name
from tastemaker.scores.sources import NOT_NAMED
from tastemaker.selections.edits import Edits, list_some, remove_drafts_of_sidecars, replace_files

DEFAULT_BOUNDS = (0.05, 0.2, 0.5, 0.8, 1.0)
"""5 stars for the best 5%, 4 for the next 15%, 3 and 2 for 30% each, 1 for the last fifth."""


def stars_by_percentile(
    scores: npt.NDArray[np.floating], bounds: Sequence[float] = DEFAULT_BOUNDS
) -> npt.NDArray[np.int8]:
    """Return 5 to 1 stars for each score, by the share of the scores that are better; int8, as many as scores.

    Equal scores get equal stars: those of the middle of their ranks.

    Args:
        scores: Any float, (n,). NaN gets 0.
        bounds: The share of all scores that gets 5 stars, 4 or more, 3 or more, and so on: up to five shares that do
            not fall, in (0, 1]. What lies beyond the last gets 0, for none.

    Raises:
        ConfigurationError: The bounds are no such shares.

    Example:
        >>> stars_by_percentile(np.array([4.0, 6.5, np.nan, 5.0, 5.5, 4.5]), bounds=(0.2, 0.4)).tolist()
        [0, 5, 0, 0, 4, 0]
    """
    limits = np.asarray(bounds, np.float64)
    if not 1 <= limits.size <= 5 or np.any(np.diff(limits) < 0) or not np.all((limits > 0) & (limits <= 1)):
        raise ConfigurationError(f"stars need one to five shares in (0, 1] that do not fall, not {tuple(bounds)}")
    stars = np.zeros(len(scores), np.int8)
    valid = ~np.isnan(scores)
    values = np.sort(scores[valid])
    worse = np.searchsorted(values, scores[valid], "left")
    not_better = np.searchsorted(values, scores[valid], "right")
    # The share that is better, half of the equal ones in it.
    middle = 1 - (worse + not_better) / 2 / max(len(values), 1)
    level = np.searchsorted(limits, middle, "left")
    stars[valid] = np.where(level < limits.size, 5 - level, 0)
    return stars


def parse_star_bounds(text: str) -> tuple[float, ...]:
    """Return the bounds of `stars_by_percentile` from ``5%,20%,50%,80%,100%``; no bounds from ``none``.

    Raises:
        ConfigurationError: It is no list of shares.

    Example:
        >>> parse_star_bounds("5%, 20%, 50%")
        (0.05, 0.2, 0.5)
    """
    if text.strip().lower() == "none":
        return ()
    shares = [re.fullmatch(r"\s*(\d{1,3}(?:\.\d+)?)\s*%\s*", part) for part in text.split(",")]
    if not all(shares):
        raise ConfigurationError(f"{text!r} is no list of shares such as 5%,20%,50%,80%,100%, nor none")
    bounds = tuple(float(share[1]) / 100 for share in shares if share)
    stars_by_percentile(np.empty(0), bounds)
    return bounds


@dataclass(frozen=True)
class Rating:
    """What a picture is given.

    Attributes:
        stars: 1 to 5, 0 for none, -1 for rejected.
        by_hand: A person gave them: they replace any that are there.
        label: A colour label, which replaces one that is there, also where the rating stays; empty for none.
    """

    stars: int
    by_hand: bool = False
    label: str = ""


@dataclass
class StarsReport:
    """What became of the stars.

    Attributes:
        dry_run: True where nothing was written, and the numbers say what would be.
        images: Images that were asked for.
        starred: Those whose sidecars have their stars now.
        created: Sidecars that are new.
        updated: Sidecars that were there without these stars; all else in them is as it was.
        labelled: Images whose sidecars have their colour labels now.
        already_rated: Images left alone, because somebody had rated them.
        without_stars: Images that got no stars (0), for which nothing is written.
        failed: Path of the image -> why it could not be rated.
        changes: Of a dry run: path of the image, its rating now (None for none), and the one that it would get.
    """

    dry_run: bool = False
    images: int = 0
    starred: int = 0
    created: int = 0
    updated: int = 0
    labelled: int = 0
    already_rated: int = 0
    without_stars: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    changes: list[tuple[str, int | None, int]] = field(default_factory=list)

    def lines(self, examples: int = 5) -> list[str]:
        """Return the report in words, with that many failures at most, and four times as many changes."""
        would = "would be " if self.dry_run else ""
        files = f"{self.created:,} sidecars {would}created, {self.updated:,} {would}changed, and nothing else in them"
        lines = [f"{self.starred:,} of {self.images:,} images {would}starred ({files})"]
        lines += list_some([(path, f"{_in_words(a)} -> {_in_words(b)}") for path, a, b in self.changes], 4 * examples)
        if self.labelled:
            lines.append(f"{self.labelled:,} {would}given a colour")
        if self.already_rated:
            lines.append(f"{self.already_rated:,} left alone: they have a rating")
        if self.without_stars:
            lines.append(f"{self.without_stars:,} without stars")
        if self.failed:
            lines += [f"{len(self.failed):,} failed", *list_some(self.failed.items(), examples)]
        return lines


def write_xmp_sidecars(
    rows: pa.Table,
    ratings: Iterable[Rating],
    named: NamedPlaces,
    edits: Edits,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
) -> StarsReport:
    """Write stars into the sidecars of originals, and return what was done.

    ``IMG_1.jpg.xmp`` for ``IMG_1.jpg``; for a raw ``IMG_1.CR2.xmp`` and ``IMG_1.xmp``, which is Lightroom's name. A
    sidecar that is there keeps every byte but its rating. No original is ever opened for writing. Each file is replaced
    as a whole, so that a kill leaves the old one or the new one.

    Args:
        rows: With the columns ``image_path`` and ``shard``. With ``size`` and ``xxh3``, an image that has changed since
            it was scored gets no stars, for they are those of another picture.
        ratings: One for each row.
        named: Where originals may be looked at, and sidecars written.
        edits: Where changes are noted, so that they can be taken back.
        overwrite: Replace ratings that are there. Without, an image that somebody has rated (in a sidecar or in its own
            file) is left alone; stars that were made of a score are renewed.
        dry_run: Write nothing.

    Raises:
        ConfigurationError: Images lie in tars, beside which no program looks for sidecars.
    """
    inside = len(rows) - rows["shard"].null_count
    if inside:
        raise ConfigurationError(
            f"{inside:,} of the {len(rows):,} images lie in tars; stars go beside loose files only. "
            "Write these with --as folder first, or select images that are files"
        )
    report = StarsReport(dry_run=dry_run, images=len(rows))
    known = rows.select([name for name in ("image_path", "size", "xxh3") if name in rows.column_names]).to_pylist()
    if not dry_run:
        paths = [original_name(row["image_path"]) for row in known]
        remove_drafts_of_sidecars({Path(path).parent for path in paths if path in named})
    for row, rating in zip(known, ratings, strict=True):
        name, path = row["image_path"], Path(original_name(row["image_path"]))
        report.without_stars += rating.stars == 0
        if not rating.stars and not rating.label:
            continue
        if str(path) not in named:
            report.failed[name] = f"it {NOT_NAMED}"
            continue
        try:
            if _has_changed(path, row.get("size"), row.get("xxh3")):
                report.failed[name] = "it has changed since it was scored"
                continue
            _rate_one(path, rating, edits, report, overwrite=overwrite)
        except OSError as error:
            report.failed[name] = error.strerror or str(error)
        except MetadataError as error:
            report.failed[name] = str(error)
    return report


def sidecars_of(path: Path) -> list[Path]:
    """Return where programs look for the sidecars of an image, or those that are there under a name in capitals.

    Example:
        >>> [name.name for name in sidecars_of(Path("IMG_1.CR2"))]
        ['IMG_1.CR2.xmp', 'IMG_1.xmp']
    """
    names = [path.with_name(f"{path.name}.xmp")]
    if path.suffix[1:].lower() in RAW_EXTENSIONS:
        names.append(path.with_suffix(".xmp"))
    capitals = [name.with_suffix(".XMP") for name in names]
    return [big if big.exists() and not name.exists() else name for name, big in zip(names, capitals, strict=True)]


def _has_changed(path: Path, size: int | None, xxh3: str | None) -> bool:
    """Return whether a file is another than was scored; one that is gone is not, nor one of which nothing is known."""
    if size is None or not path.is_file():
        return False
    if path.stat().st_size != size:
        return True
    return bool(xxh3) and xxhash.xxh3_64_hexdigest(path.read_bytes()) != xxh3


def _rate_one(path: Path, rating: Rating, edits: Edits, report: StarsReport, *, overwrite: bool) -> None:
    """Write the sidecars of one image, and count them; all contents are made before the first is written."""
    if not path.is_file():
        raise MetadataError("the image is not there")
    present = {sidecar: sidecar.read_bytes() for sidecar in sidecars_of(path) if sidecar.exists()}
    is_by_score = any(edits.is_by_score(sidecar, content) for sidecar, content in present.items())
    is_kept = not (rating.by_hand or overwrite or is_by_score) and (file_rating(path) or 0) != 0
    if is_kept:
        report.already_rated += 1
        rating = Rating(file_rating(path) or 0, True, rating.label)
    stars, label = rating.stars, rating.label
    if is_kept and not label:
        return
    changes: list[tuple[Path, bytes | None, bytes]] = []
    for sidecar in sidecars_of(path):
        before, is_by_stem = present.get(sidecar), sidecar.stem == path.stem
        new = make_xmp(stars, path.suffix[1:].upper() if is_by_stem else "", by_score=not rating.by_hand)
        if before is not None and not _is_made_here(before, path):
            if is_by_stem and not belongs_to(before, path.suffix[1:]):
                continue
            new = set_rating(before, stars) if stars else before
        changes.append((sidecar, before, set_label(new, label) if label else new))
    changes = [(sidecar, before, after) for sidecar, before, after in changes if before != after]
    if report.dry_run:
        if not all(os.access(sidecar.parent, os.W_OK) for sidecar, _, _ in changes):
            raise MetadataError("its folder cannot be written to")
        old = next((read_rating(content, by_score=True) for content in present.values()), None)
        report.changes.append((str(path), file_rating(path) if old is None else old, stars))
    elif changes:
        edits.note(changes, by_score=not rating.by_hand)
        replace_files([(sidecar, after) for sidecar, _, after in changes])
    report.created += sum(before is None for _, before, _ in changes)
    report.updated += sum(before is not None for _, before, _ in changes)
    report.starred += int(stars != 0 and not is_kept)
    report.labelled += int(bool(label))


def _is_made_here(xmp: bytes, path: Path) -> bool:
    """Return whether a sidecar is Tastemaker's own as it was made, and nobody has put anything into it."""
    rating, label = read_rating(xmp, by_score=True), read_label(xmp)
    if rating is None:
        return False
    extensions = ("", path.suffix[1:].upper())
    made = [make_xmp(rating, extension, by_score=score) for extension in extensions for score in (True, False)]
    return xmp in [set_label(one, label) if label else one for one in made]


def _in_words(rating: int | None) -> str:
    """Return a rating for people.

    Example:
        >>> _in_words(3), _in_words(-1), _in_words(None)
        ('3 stars', 'rejected', 'none')
    """
    if not rating:
        return "none"
    return "rejected" if rating < 0 else f"{rating} star{'s' if rating > 1 else ''}"
