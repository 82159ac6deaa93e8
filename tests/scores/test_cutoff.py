"""Cuts by share and count, as people write them and as they are made."""

import numpy as np
import pytest

from tastemaker.errors import ConfigurationError
from tastemaker.scores.cutoff import Top, mark_best, parse_top


def test_shares_and_counts_are_told_apart():
    assert parse_top("20%") == Top(share=0.2)
    assert parse_top("1_000") == Top(count=1000)
    assert parse_top(" 1,234,000 ") == Top(count=1_234_000)
    for nonsense in ("0", "-3", "0%", "101%", "many", "", "1.5", "5,5", "1,00", ",100"):
        with pytest.raises(ConfigurationError):
            parse_top(nonsense)


def test_of_equal_scores_the_first_are_kept_and_nan_never_is():
    scores = np.array([np.nan, 5, 7, 5, 5], np.float32)
    assert mark_best(scores, Top(count=3)).tolist() == [False, True, True, True, False]
    assert mark_best(scores, Top(share=0.5)).tolist() == [False, True, True, False, False]
    assert mark_best(scores, Top(count=99)).sum() == 4
    assert mark_best(np.empty(0, np.float32), Top(share=0.2)).tolist() == []
