"""Names of pictures on pages, in any script."""

import pytest
from PIL import Image, ImageDraw

from tastemaker.selections.lettering import FONT_FOLDERS, draw_text, find_font

NAMES = ("東.jpg", "京.jpg", "Фото.jpg", "Фата.jpg", "صورة.jpg", "🎉.jpg", "🎊.jpg", "हिन्दी.jpg", "ภาพ.jpg", "Łódź.jpg")
NAMES += ("a\u202egpj.exe", "caf\udce9.jpg")  # one that turns what follows, and half a letter


@pytest.mark.parametrize("folders", [(), FONT_FOLDERS])
def test_no_two_names_look_the_same_whatever_fonts_there_are(folders):
    seen = set()
    for name in NAMES:
        picture = Image.new("RGB", (300, 60), "white")
        draw_text(ImageDraw.Draw(picture), (0, 0), name, (0, 0, 0), 19, width=300, lines=2, folders=folders)
        seen.add(picture.tobytes())
    assert len(seen) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_letters_that_no_font_has_are_escapes(name):
    written = find_font(name, 19, ()).wrap(name, 10_000, 1)
    assert written.encode("latin-1", "backslashreplace").decode("unicode_escape") == name
    assert all(find_font(name, 19, ()).has(letter) for letter in written)


def test_text_is_broken_between_words_and_in_a_word_that_is_too_long():
    font = find_font("n", 19, ())
    width = font.font.getlength("nnnnnnnn")
    assert font.wrap("nnn nnn nnn", width, 3) == "nnn nnn\nnnn"
    assert font.wrap("n" * 10, width, 3) == "nnnnnnnn\nnn"
    assert font.wrap("n" * 40, width, 2) == "nnnnnnnn\nnnnnn..."
