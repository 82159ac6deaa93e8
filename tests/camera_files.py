"""Raws written by hand, small and whole: no camera's file may be in the repository."""

import io
import struct

import numpy as np
from PIL import Image

LAYOUTS = {1: "B", 3: "H", 4: "I", 5: "II", 10: "ii"}
IDENTITY = (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1)


def directory(at, tags):
    """Return a TIFF directory for position ``at``; tags are {number: (type, values or bytes)}."""
    entries, values, values_at = b"", b"", at + 2 + 12 * len(tags) + 4
    for number, (kind, value) in sorted(tags.items()):
        packed = value if isinstance(value, bytes) else struct.pack(f"<{len(value)}{LAYOUTS[kind][0]}", *value)
        count = len(value) // len(LAYOUTS.get(kind, "B"))
        if len(packed) > 4:
            packed, values = struct.pack("<I", values_at + len(values)), values + packed + bytes(len(packed) % 2)
        entries += struct.pack("<HHI", number, kind, count) + packed.ljust(4, b"\0")
    return struct.pack("<H", len(tags)) + entries + bytes(4) + values


def make_dng(size=(600, 450), preview=None, *, orientation=1, make=b"Handmade", is_dng=True, extra=None):
    """Return a DNG (or, without its version, another maker's raw) of 16-bit sensor values, directories first."""
    width, height = size
    sensor = np.linspace(100, 3900, width * height, dtype=np.uint16).tobytes()
    main_at, sub_at, raw_at = 8, 1024, 2048
    picture = {
        254: (4, [0]), 256: (4, [width]), 257: (4, [height]), 258: (3, [16]), 259: (3, [1]), 262: (3, [32803]),
        273: (4, [raw_at]), 277: (3, [1]), 278: (4, [height]), 279: (4, [len(sensor)]), 33421: (3, [2, 2]),
        33422: (1, [0, 1, 1, 2]), 50714: (3, [0]), 50717: (4, [4095]),
    }  # fmt: skip
    main = {254: (4, [1]), 271: (2, make + b"\0"), 272: (2, b"Model\0"), 274: (3, [orientation]), 330: (4, [sub_at])}
    if is_dng:
        main |= {50706: (1, [1, 4, 0, 0]), 50708: (2, b"Model\0"), 50721: (10, IDENTITY), 50728: (5, (1,) * 6)}
        main |= {50778: (3, [21])}
    if preview is not None:
        columns, rows = Image.open(io.BytesIO(preview)).size
        main |= {256: (4, [columns]), 257: (4, [rows]), 258: (3, [8, 8, 8]), 259: (3, [7]), 262: (3, [6])}
        main |= {273: (4, [raw_at + len(sensor)]), 277: (3, [3]), 278: (4, [rows]), 279: (4, [len(preview)])}
    head = struct.pack("<2sHI", b"II", 42, main_at) + directory(main_at, main | (extra or {}))
    assert len(head) <= sub_at
    head = head.ljust(sub_at, b"\0") + directory(sub_at, picture)
    return head.ljust(raw_at, b"\0") + sensor + (preview or b"")


def make_raf(jpeg):
    """Return the head of a Fujifilm raw, with its preview."""
    return b"FUJIFILMCCD-RAW 0201".ljust(84, b"\0") + struct.pack(">II", 160, len(jpeg)) + bytes(68) + jpeg


def make_cr3(**directories):
    """Return the head of a Canon raw: its boxes with directories of EXIF, as `directory` takes them."""
    boxes = [struct.pack(">I", 24) + b"ftypcrx \0\0\0\1crx isom"]
    for name, tags in directories.items():
        block = struct.pack("<2sHI", b"II", 42, 8) + directory(8, tags)
        boxes.append(struct.pack(">I", len(block) + 8) + name.encode() + block)
    return b"".join(boxes)
