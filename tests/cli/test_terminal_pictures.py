"""Pictures in a terminal: decoded again, they are the pictures; and only sure terminals get them."""

import base64
import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios

import numpy as np
import pytest
from PIL import Image

from tastemaker.cli.terminal_pictures import (
    ROWS,
    detect,
    encode_blocks,
    encode_iterm2,
    encode_kitty,
    encode_sixel,
    line_height,
)


@pytest.fixture
def picture(full_photographs):
    return Image.open(io.BytesIO(full_photographs["rocket.jpg"]))


def distance(image, picture):
    """Mean difference, of 255, between an image and the picture at its size."""
    wanted = picture.convert("RGB").resize(image.size, Image.Resampling.LANCZOS)
    return np.abs(np.asarray(image.convert("RGB"), float) - np.asarray(wanted, float)).mean()


def test_kitty_gets_the_picture_in_pieces_of_4096(picture):
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", encode_kitty(picture))
    assert "".join(f"\x1b_G{keys};{data}\x1b\\" for keys, data in pieces) + "\n" == encode_kitty(picture)
    assert [keys[-3:] for keys, _ in pieces] == ["m=1"] * (len(pieces) - 1) + ["m=0"]
    assert max(len(data) for _, data in pieces) == 4096
    image = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in pieces))))
    assert image.format == "PNG"
    assert image.height == ROWS * line_height()  # drawn as it is: nothing asks kitty to stretch it
    assert distance(image, picture) < 2


def test_iterm2_gets_the_picture_and_its_size(picture):
    match = re.fullmatch(r"\x1b\]1337;File=([^:]*):([^\x07]*)\x07\n", encode_iterm2(picture))
    data = base64.b64decode(match[2])
    assert f"size={len(data)}" in match[1]
    assert distance(Image.open(io.BytesIO(data)), picture) < 5


def decode_sixel(text):
    """Draw sixels as a terminal does."""
    width, height, body = re.fullmatch(r'\x1bPq"1;1;(\d+);(\d+)(.*)\x1b\\\n', text).groups()
    canvas = np.full((-(-int(height) // 6) * 6, int(width), 3), -1.0)
    palette, colour, x, y = {}, None, 0, 0
    for token in re.finditer(r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([?-~])|(\$)|(-)", body):
        defined, red, green, blue, chosen, count, repeated, single, back, down = token.groups()
        if defined:
            palette[defined] = np.array([int(red), int(green), int(blue)]) * 2.55
        elif chosen:
            colour = palette[chosen]
        elif back:
            x = 0
        elif down:
            x, y = 0, y + 6
        else:
            bits, times = ord(repeated or single) - 63, int(count or 1)
            for bit in range(6):
                if bits >> bit & 1:
                    canvas[y + bit, x : x + times] = colour
            x += times
    return canvas[: int(height)]


def test_sixels_draw_the_picture_and_leave_no_hole(picture):
    canvas = decode_sixel(encode_sixel(picture))
    assert canvas.min() >= 0
    assert distance(Image.fromarray(canvas.round().astype(np.uint8)), picture) < 8


def test_half_blocks_are_the_picture_at_two_pixels_a_character(picture):
    lines = encode_blocks(picture).splitlines()
    cell = re.compile(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀")
    rows = []
    for line in lines:
        values = np.array([list(map(int, numbers)) for numbers in cell.findall(line)])
        assert cell.sub("", line) == "\x1b[0m"
        rows += [values[:, :3], values[:, 3:]]
    assert len(lines) == ROWS
    assert distance(Image.fromarray(np.array(rows, np.uint8)), picture) < 8


@pytest.mark.parametrize("size", [(1, 1), (5000, 3), (3, 5000), (7, 7)])
def test_the_smallest_and_the_longest_pictures_are_drawn(size):
    image = Image.new("RGB", size, (10, 200, 30))
    for encode in (encode_kitty, encode_iterm2, encode_blocks):
        assert encode(image)
    assert decode_sixel(encode_sixel(image)).min() >= 0


@pytest.mark.parametrize(
    ("environment", "answer", "found"),
    [
        ({"TERM": "xterm-kitty", "COLORTERM": "truecolor"}, b"", "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, b"", "iterm2"),
        ({"TERM": "foot", "COLORTERM": "truecolor"}, b"\x1b[?62;4;22c", "sixel"),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, b"\x1b[?64;1;22c", "blocks"),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, b"\x1b[?4;1c", "blocks"),
        ({"TERM": "xterm-256color"}, b"", ""),
        ({"TERM": "xterm", "COLORTERM": "24bit", "NO_COLOR": "1"}, b"", ""),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "COLORTERM": "truecolor"}, b"\x1b[?1;4c", "blocks"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, b"\x1b[?1;4c", ""),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, b"\x1b[?1;4c", ""),
    ],
)
def test_only_what_is_sure_is_used(environment, answer, found):
    assert detect(environment, lambda: answer) == found


def test_the_height_of_a_line_is_the_terminals():
    parent, child = os.openpty()
    code = "from tastemaker.cli.terminal_pictures import line_height; print(line_height())"
    for size, expected in (((50, 100, 1000, 1150), 23), ((50, 100, 0, 0), 18), ((0, 0, 0, 0), 18)):
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("4H", *size))
        subprocess.run([sys.executable, "-c", code], stdout=child, check=True)
        assert os.read(parent, 64).split() == [str(expected).encode()]
    os.close(parent)
    os.close(child)
