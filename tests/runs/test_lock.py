"""One run writes to a directory, or several to slices of it; a dead process holds nothing."""

import os
import threading
import time

import pytest

from tastemaker.errors import ConfigurationError
from tastemaker.runs.lock import only_run_on
from tastemaker.runs.options import Slice, slice_of_slurm_array
from tastemaker.storage.place import Place


@pytest.fixture(params=["local", "remote"])
def output(request, tmp_path):
    """A directory of this machine, and one that says that it lies behind a URL."""
    if request.param == "local":
        return Place.of(tmp_path)
    return Place.of(f"memory://{tmp_path.name}")


def test_a_second_run_is_refused_and_told_who_runs(output):
    with (
        only_run_on(output),
        pytest.raises(ConfigurationError, match="another run is writing") as error,
        only_run_on(output),
    ):
        pass
    assert "--wait" in str(error.value)
    assert f"process {os.getpid()} on" in str(error.value)
    with only_run_on(output):
        pass  # the first has let go


def test_a_second_run_waits_if_it_is_told_to(output):
    order = []

    def second():
        with only_run_on(output, wait=True):
            order.append("second")

    with only_run_on(output):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.5)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_slices_run_beside_each_other_and_a_whole_run_beside_none(output, monkeypatch):
    monkeypatch.setattr("tastemaker.runs.lock._GRACE_S", 0.3)
    with only_run_on(output, Slice(0, 3)), only_run_on(output, Slice(1, 3)):
        for part in (None, Slice(1, 3), Slice(1, 2)):
            with pytest.raises(ConfigurationError, match="another run"), only_run_on(output, part):
                pass
    with only_run_on(output), pytest.raises(ConfigurationError, match="another run"), only_run_on(output, Slice(0, 3)):
        pass
    with only_run_on(output, Slice(1, 2)):
        pass  # nobody holds anything any more


SLURM = {"ID": "3", "MIN": "0", "MAX": "7", "STEP": "1", "COUNT": "8"}


def slurm(**changes):
    return {f"SLURM_ARRAY_TASK_{name}": value for name, value in (SLURM | changes).items() if value is not None}


def test_a_slurm_array_says_which_slice_a_task_does():
    assert slice_of_slurm_array(slurm()) == Slice(3, 8)
    assert slice_of_slurm_array(slurm(ID="12", MIN="10", MAX="14", STEP="2", COUNT="3")) == Slice(1, 3)
    assert slice_of_slurm_array(slurm(STEP=None, COUNT=None)) == Slice(3, 8)


@pytest.mark.parametrize(
    "environment", [{}, slurm(ID=None), slurm(ID="x"), slurm(COUNT="3"), slurm(MIN="0", STEP="2", COUNT="4")]
)
def test_an_array_with_gaps_and_no_array_are_errors(environment):
    with pytest.raises(ConfigurationError, match="Slurm"):
        slice_of_slurm_array(environment)


@pytest.mark.parametrize(("index", "total"), [(-1, 4), (4, 4), (0, 0)])
def test_a_slice_that_is_none_is_refused(index, total):
    with pytest.raises(ConfigurationError, match="counts from 0"):
        Slice(index, total)
