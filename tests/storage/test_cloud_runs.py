"""Runs with input and output in each kind of store (emulators of them): the rows and files of a local run."""

# ruff: noqa: F811 - fixtures are arguments

import re

import pytest
from remote_runs import keep, kept_here, rows_of, run, shards, tars_of  # noqa: F401 - fixtures
from remote_servers import BUCKETS, _impatient, azure_port, cloud, google_port, moto_port, open_bucket  # noqa: F401
from web_server import Fault

from tastemaker.errors import ConfigurationError, RemoteError
from tastemaker.storage.place import Place

pytestmark = pytest.mark.network


@pytest.mark.parametrize("scheme", BUCKETS)
def test_rows_and_tars_are_those_of_a_local_run_and_only_what_changed_is_done_again(
    request, scheme, shards, kept_here, model_dir
):
    with open_bucket(scheme, request) as bucket:
        url = bucket.upload(shards, "in/")
        keep([url], f"{bucket.url}/out", model_dir, bucket, top=4)
        there = bucket.files("out")
        assert len(rows_of(there)) == 3
        assert rows_of(there) == rows_of(kept_here)
        assert tars_of(there) == tars_of(kept_here) != {}
        bucket.store.put("in/0.tar", (shards / "2.tar").read_bytes())
        bucket.store.delete("out/rows/1.parquet")
        assert run([url], f"{bucket.url}/out", model_dir, bucket).images_scored_now == 6


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
