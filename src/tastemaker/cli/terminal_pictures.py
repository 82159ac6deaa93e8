"""Small pictures in a terminal, as text that makes it draw them."""

from __future__ import annotations

import base64
import io
import os
import re
import select
import struct
import sys
from collections.abc import Callable, Mapping
from itertools import groupby

import numpy as np
from PIL import Image

ROWS = 8
"""Height of a picture, in lines of text."""

_WIDEST = 4.0
"""Width by height of a picture at most; a wider one is shown whole, and lower."""

_SENT_HEIGHT = 256
_USUAL_LINE_HEIGHT, _TALLEST_LINE = 18, 48
_KITTY_CHUNK = 4096
_ANSWER_S = 0.5
_SIXEL_FEATURE = "4"
_DEVICE_ATTRIBUTES = re.compile(rb"\x1b\[\?([0-9;]*)c")


def encode_kitty(image: Image.Image) -> str:
    """Return an image for kitty's graphics protocol: PNG as base64, in pieces.

    It is sent at the size to draw it in: told a number of lines alone, older kittys stretch it.

    Source: https://sw.kovidgoyal.net/kitty/graphics-protocol/
    """
    text = base64.b64encode(_save(_fit(image, ROWS * line_height()), "PNG")).decode()
    pieces = [text[start : start + _KITTY_CHUNK] for start in range(0, len(text), _KITTY_CHUNK)]
    escapes = []
    for number, piece in enumerate(pieces):
        keys = "a=T,f=100,q=2," if number == 0 else ""
        escapes.append(f"\x1b_G{keys}m={int(number < len(pieces) - 1)};{piece}\x1b\\")
    return "".join(escapes) + "\n"


def encode_iterm2(image: Image.Image) -> str:
    """Return an image for iTerm2's inline images.

    Source: https://iterm2.com/documentation-images.html
    """
    data = _save(_fit(image, _SENT_HEIGHT), "JPEG")
    arguments = f"inline=1;size={len(data)};height={ROWS};preserveAspectRatio=1"
    return f"\x1b]1337;File={arguments}:{base64.b64encode(data).decode()}\x07\n"


def encode_sixel(image: Image.Image) -> str:
    """Return an image as sixels: bands of six lines, in each a pass for every colour that it has.

    Source: https://vt100.net/docs/vt3xx-gp/chapter14.html
    """
    indexed = _fit(image, ROWS * line_height()).quantize(255)
    pixels = np.asarray(indexed)  # (height, width)
    palette = np.asarray(indexed.getpalette()).reshape(-1, 3)
    parts = [f'\x1bPq"1;1;{indexed.width};{indexed.height}']
    for colour in np.unique(pixels):
        red, green, blue = (round(int(value) / 2.55) for value in palette[colour])  # per cent
        parts.append(f"#{colour};2;{red};{green};{blue}")
    for top in range(0, indexed.height, 6):
        band = pixels[top : top + 6]
        bits = 1 << np.arange(len(band))
        parts += [f"#{colour}{_shorten_runs(bits @ (band == colour))}$" for colour in np.unique(band)]
        parts.append("-")
    return "".join(parts) + "\x1b\\\n"


def encode_blocks(image: Image.Image) -> str:
    """Return an image as half blocks: a character is two pixels, one above the other, in 24-bit colours."""
    small = _fit(image, 2 * ROWS)
    pixels = np.asarray(small)
    lines = []
    for y in range(0, small.height, 2):
        cells = []
        for upper, lower in zip(pixels[y], pixels[min(y + 1, small.height - 1)], strict=True):
            cells.append("\x1b[38;2;{};{};{};48;2;{};{};{}m▀".format(*upper, *lower))
        lines.append("".join(cells) + "\x1b[0m\n")
    return "".join(lines)


ENCODERS: dict[str, Callable[[Image.Image], str]] = {
    "kitty": encode_kitty,
    "iterm2": encode_iterm2,
    "sixel": encode_sixel,
    "blocks": encode_blocks,
}
"""What a terminal may understand -> how an image is said in it."""


def detect(environment: Mapping[str, str], ask: Callable[[], bytes]) -> str:
    """Return the key of `ENCODERS` that the terminal understands for sure; empty where it is none.

    Args:
        environment: As the shell has it.
        ask: Returns the terminal's device attributes, see `ask_terminal`.
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if term in ("", "dumb"):
        return ""
    if "TMUX" not in environment and not term.startswith(("screen", "tmux")):  # these hide what is around them
        if term in ("xterm-kitty", "xterm-ghostty") or "KITTY_WINDOW_ID" in environment or program == "ghostty":
            return "kitty"
        if program in ("iTerm.app", "WezTerm"):
            return "iterm2"
        answer = _DEVICE_ATTRIBUTES.search(ask())
        if answer and _SIXEL_FEATURE in answer[1].decode().split(";")[1:]:
            return "sixel"
    has_colours = environment.get("COLORTERM") in ("truecolor", "24bit") and not environment.get("NO_COLOR")
    return "blocks" if has_colours else ""


def ask_terminal() -> bytes:
    """Return what the terminal answers to the question for its device attributes; empty where it does not."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        return b""
    if not sys.stdin.isatty():
        return b""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    answer = b""
    try:
        tty.setcbreak(keyboard)
        os.write(sys.stdout.fileno(), b"\x1b[c")
        while not answer.endswith(b"c") and select.select([keyboard], [], [], _ANSWER_S)[0]:
            answer += os.read(keyboard, 64)
    finally:
        termios.tcsetattr(keyboard, termios.TCSAFLUSH, before)
    return answer


def line_height() -> int:
    """Return the height of a line of text in pixels; the usual one where the terminal does not say."""
    try:
        import fcntl
        import termios

        size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, bytes(8))
    except (ImportError, OSError):  # Windows; no terminal
        return _USUAL_LINE_HEIGHT
    lines, _, _, height = struct.unpack("4H", size)
    return min(height // lines, _TALLEST_LINE) if lines and height >= lines else _USUAL_LINE_HEIGHT


def _fit(image: Image.Image, height: int) -> Image.Image:
    small = image.convert("RGB")
    small.thumbnail((max(1, round(height * _WIDEST)), height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return small


def _save(image: Image.Image, file_format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format)
    return file.getvalue()


def _shorten_runs(bits: np.ndarray) -> str:
    """Return sixels as characters, ``!12~`` for twelve equal ones."""
    runs = [(value, len(list(run))) for value, run in groupby(bits.tolist())]
    return "".join(f"!{count}{chr(63 + value)}" if count > 3 else chr(63 + value) * count for value, count in runs)
