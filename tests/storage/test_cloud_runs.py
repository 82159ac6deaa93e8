"""Runs with input and output in Google's and Azure's stores (emulators of them): the rows and files of a local run."""

# ruff: noqa: F811 - fixtures are arguments

import re

import pytest
from remote_runs import keep, local_files, rows_of, run, shards, tars_of  # noqa: F401 - fixtures
from remote_servers import _impatient, azure_port, cloud, google_port  # noqa: F401 - fixtures
from web_server import Fault

from tastemaker.errors import ConfigurationError, RemoteError
from tastemaker.storage.place import Place

pytestmark = pytest.mark.network


def test_rows_and_tars_are_those_of_a_local_run_and_the_next_run_has_nothing_to_do(tmp_path, shards, cloud, model_dir):
    url = cloud.upload(shards, "in/")
    keep([str(shards)], tmp_path / "out", model_dir, top=4)
    keep([url], f"{cloud.url}/out", model_dir, cloud, top=4)
    here, there = local_files(tmp_path / "out"), cloud.files("out")
    assert len(rows_of(there)) == 3
    assert rows_of(there) == rows_of(here)
    assert tars_of(there)
    assert tars_of(there) == tars_of(here)
    assert run([url], f"{cloud.url}/out", model_dir, cloud).images_scored_now == 0


@pytest.mark.parametrize("status", [401, 503])
def test_a_store_that_goes_on_failing_is_told_by_its_status(cloud, status):
    cloud.server.always = Fault(status=status)
    cloud.server.faulty |= {"HEAD"}
    with pytest.raises(RemoteError) as caught:
        Place.of(f"{cloud.url}/0.tar", cloud.options).stat()
    given_up = "" if status == 401 else " (given up after 3 tries)"
    said = rf"{cloud.url}/0.tar cannot be looked at: .*\b{status}\b.*{re.escape(given_up)}"
    assert re.fullmatch(said, str(caught.value))
    assert ": ," not in str(caught.value)


def test_a_place_that_is_not_there_and_wrong_credentials_are_one_line(cloud, model_dir, shards):
    with pytest.raises(ConfigurationError, match="no bucket 'nothere'") as caught:
        run([str(shards / "0.tar")], f"{cloud.scheme}://nothere/out", model_dir, cloud)
    assert "\n" not in str(caught.value)
    cloud.server.always = Fault(status=403)
    cloud.server.faulty |= {"HEAD"}
    with pytest.raises((ConfigurationError, RemoteError)) as caught:
        run([f"{cloud.url}/0.tar"], f"{cloud.url}/out", model_dir, cloud)
    assert "\n" not in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)
