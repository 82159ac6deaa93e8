"""Rate pictures that were uploaded to Immich, with the stars that Tastemaker would write beside the originals.

    IMMICH_API_KEY=... python examples/rate_in_immich.py scores/ http://192.168.1.5:2283 --where "aesthetic_score > 5"

The stars are those of `tastemaker select scores/ --as xmp`: yours from the explorer, and by score for pictures that
nobody has rated. A picture is known by the SHA-1 of its bytes, which is what Immich keeps of an upload. The API key
needs the permissions `asset.upload` (to ask which pictures are there; nothing is uploaded) and `asset.update`.
"""

import argparse
import hashlib
import json
import os
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

from tastemaker import ScoreTable, Selection, write_stars

AT_ONCE = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scores", help="directory of rows")
    parser.add_argument("server", help="such as http://192.168.1.5:2283")
    parser.add_argument(
        "--where", default="status = 'kept'", help="which pictures: a condition in SQL over the columns"
    )
    parser.add_argument("--dry-run", action="store_true", help="count, and change nothing")
    arguments = parser.parse_args()

    plan = write_stars(ScoreTable(arguments.scores), Selection(where=arguments.where), dry_run=True)
    stars = {path: new for path, _, new in plan.changes if new > 0}
    assets = find_assets(arguments.server, list(stars))
    by_stars = defaultdict(list)
    for path, asset in assets.items():
        by_stars[stars[path]].append(asset)
    for rating, ids in sorted(by_stars.items()):
        for start in range(0, 0 if arguments.dry_run else len(ids), AT_ONCE):
            ask(arguments.server, "PUT", "assets", {"ids": ids[start : start + AT_ONCE], "rating": rating})
    print(
        f"{len(assets):,} of {len(stars):,} pictures are in Immich", "" if arguments.dry_run else "and have their stars"
    )
    for path in sorted(stars.keys() - assets.keys()):
        print(f"  not there: {path}")


def find_assets(server: str, paths: list[str]) -> dict[str, str]:
    """Return path -> Immich's id, of the pictures that it has and that are not in its trash."""
    found = {}
    for start in range(0, len(paths), AT_ONCE):
        some = paths[start : start + AT_ONCE]
        asked = [{"id": path, "checksum": hashlib.sha1(Path(path).read_bytes()).hexdigest()} for path in some]
        for result in ask(server, "POST", "assets/bulk-upload-check", {"assets": asked})["results"]:
            if result.get("assetId") and not result.get("isTrashed"):
                found[result["id"]] = result["assetId"]
    return found


def ask(server: str, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return what the server answers; nothing where it has nothing to say."""
    headers = {"x-api-key": os.environ["IMMICH_API_KEY"], "Content-Type": "application/json"}
    url = f"{server.rstrip('/')}/api/{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or b"{}")


if __name__ == "__main__":
    main()
