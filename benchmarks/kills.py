"""Kills: every command that writes is killed at chosen system calls and at random moments, and given again.

    python benchmarks/kills.py [--calls 300] [--moments 100] [--seed 0] [--commands score-folder select-links ...]

Needs strace and, for the commands at s3://, moto. Each command runs to its end twice, and once under strace, which
notes its system calls. For a kill, the folder is put back as it was before, and the command runs in a process that is
killed as it begins one of these calls, or after a share of its time; one in four is killed twice. Then the command is
given again, and every file has to be what it was without a kill: rows, copies, lists, pages, and the user's own
pictures. No draft may be left. The same seed chooses the same calls; which thread comes to one first may differ.
"""

import argparse
import atexit
import contextlib
import functools
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TASTEMAKER_EXECUTOR": "local"}
os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "TASTEMAKER_REMOTE_WAIT_S": "0.02"}

import duckdb  # noqa: F401 - what a command needs is loaded once, before the processes fork
import numpy as np
import openvino  # noqa: F401
import pyarrow.parquet as pq
from common import print_machine
from hub_server import HubServer
from huggingface_hub import constants as hub_constants
from safetensors.numpy import load_file, save_file
from tiny import make_pictures, make_tiny_shards, picture
from web_server import moto_server

import tastemaker.explorer.report
import tastemaker.runs.rescore  # noqa: F401
from tastemaker import FilePartitioningStage, ImageReaderStage, ImageWriterStage, Pipeline
from tastemaker.__main__ import main as tastemaker_main
from tastemaker.explorer.index import Filter
from tastemaker.explorer.service import Explorer
from tastemaker.models.hub import file_sha256, weights_path
from tastemaker.models.published import find_scorer
from tastemaker.models.records import Scorer
from tastemaker.storage.place import Place
from tastemaker.storage.unfinished import DRAFT_PREFIX
from tastemaker.testing import random_predictor, write_random_models

CALLS = (
    *(
        "openat",
        "write",
        "pwrite64",
        "ftruncate",
        "fsync",
        "fdatasync",
        "close",
        "flock",
        "fcntl",
        "fchmod",
        "utimensat",
    ),
    *("rename", "renameat2", "unlink", "unlinkat", "mkdir", "rmdir", "link", "linkat", "symlink", "symlinkat"),
    *("copy_file_range", "sendfile", "sendto", "sendmsg", "writev"),
)
"""System calls that may change a file or an object: candidates for the last that a process makes."""

TRIES = 6
"""A kill that comes behind the end of a command is chosen anew, so often."""


def cli(*arguments: str) -> None:
    """Run a command in this process."""
    sys.argv = ["tastemaker", *arguments]
    try:
        tastemaker_main()
    except SystemExit as end:
        if end.code:
            raise


def score(inputs: str = "photos", output: str = "out") -> None:
    cli("score", inputs, "-o", output)


def select(*options: str) -> None:
    cli("select", "scores", *options)


def pipeline() -> None:
    stages = [FilePartitioningStage("shards"), ImageReaderStage(), ImageWriterStage("out", 2)]
    Pipeline("killed", stages=stages).run(checkpoint_path="checkpoint")


def export() -> None:
    explorer = Explorer(["scores"])
    explorer.export(Filter(), "out", "folder", "50%")
    while explorer.exports.state()["state"] == "running":
        time.sleep(0.005)
    if explorer.exports.state()["state"] != "done":
        raise RuntimeError(explorer.exports.state()["message"])
    explorer.close()


def at_store(*arguments: str) -> None:
    cli(*arguments, "--storage-options", json.dumps({"endpoint_url": os.environ["KILLS_STORE"]}))


def pull() -> None:
    sys.modules["own"] = types.SimpleNamespace(TINY=offered_scorer())  # type: ignore[assignment]
    hub_constants.ENDPOINT, hub_constants.HF_HUB_OFFLINE = os.environ["KILLS_HUB"], False
    cli("scorers", "pull", "--model-dir", "models", "--scorer", "own:TINY")


def offered_scorer() -> Scorer:
    """Return the default scorer with the digests of the random weights."""
    known = find_scorer()
    assert known.backbone.text is not None
    models = (known.backbone, known.backbone.text.tokenizer, known.head)
    offered = os.environ["KILLS_OFFERED"]
    tower, tokenizer, head = (replace(model, sha256=file_sha256(weights_path(model, offered))) for model in models)
    text = replace(known.backbone.text, tokenizer=tokenizer)
    return replace(known, backbone=replace(tower, text=text), head=head)


def serve_hub() -> tuple[int, str]:
    """Start a hub with random weights in a process of its own; return that and its address."""
    offered = os.environ["KILLS_OFFERED"]
    tower = weights_path(find_scorer().backbone, offered)
    rest = np.random.default_rng(0).integers(0, 256, 40_000_000, np.uint8)  # some pieces of a download
    save_file(load_file(tower) | {"text_model.embeddings.token_embedding.weight": rest}, tower)
    read, write = os.pipe()
    child = os.fork()
    if child:
        with open(read) as answer:
            return child, answer.readline().strip()
    with HubServer() as hub:
        models = offered_scorer().files
        for name in {model.id for model in models}:
            own = {model.filename: weights_path(model, offered).read_bytes() for model in models if model.id == name}
            repo = hub.add_repo(name, own)
            repo.refs |= {model.revision or "main": repo.refs["main"] for model in models if model.id == name}
        os.write(write, f"{hub.url}\n".encode())
        os.close(write)
        signal.pause()
    os._exit(0)


def scored() -> None:
    score("photos", "scores")


def change_photos() -> None:
    score()
    Path("photos/new.jpg").write_bytes(picture(100))
    Path("photos/3.jpg").write_bytes(picture(101))
    Path("photos/4.jpg").write_bytes(b"no image")
    Path("photos/7.jpg").unlink()


def move_photos() -> None:
    score()
    Path("photos").rename("elsewhere")
    Path("elsewhere/3.jpg").write_bytes(picture(101))


def rated() -> None:
    make_pictures(Path("photos"), [f"{n}.jpg" for n in range(24)])
    scored()
    lines = [f"{n}.jpg,{1 + n % 5}" for n in range(24)]
    Path("ratings.csv").write_text("\n".join(["image,rating", *lines, ""]))


def with_head() -> None:
    scored()
    save_file(random_predictor(768, np.random.default_rng(9)), "head.safetensors")


def with_recipe() -> None:
    scored()
    Path("recipe.yaml").write_text("steps: [width > 20, best of group, aesthetic_score top 40% per format]")


@dataclass
class Command:
    """A command, what there is before it, and what became of its kills."""

    run: Callable[[], None]
    before: Callable[[], None] = lambda: None
    in_store: bool = False
    results: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, int]] = field(default_factory=list)
    seconds: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def of(function: Callable[..., None], *arguments: str) -> Callable[[], None]:
    return functools.partial(function, *arguments)


COMMANDS = {
    "score-folder": Command(score),
    "score-shards": Command(of(score, "shards")),
    "score-changed": Command(score, change_photos),
    "score-moved": Command(of(score, "elsewhere"), move_photos),
    "filter-shards": Command(of(cli, "filter", "shards", "-o", "out", "--top", "50%", "--images-per-tar", "2")),
    "filter-folder": Command(of(cli, "filter", "photos", "-o", "out", "--top", "50%")),
    "filter-again": Command(
        of(cli, "filter", "photos", "-o", "out", "--top", "3", "--as", "webdataset"),
        of(cli, "filter", "photos", "-o", "out", "--top", "50%"),
    ),
    "select-folder": Command(of(select, "--top", "50%", "--to", "out", "--as", "folder"), scored),
    "select-tars": Command(
        of(select, "--top", "9", "--to", "out", "--as", "webdataset", "--images-per-tar", "2", "--overwrite"),
        lambda: (scored(), select("--top", "50%", "--to", "out", "--as", "folder"))[0],
    ),
    "select-links": Command(of(select, "--top", "50%", "--to", "out", "--as", "links"), scored),
    "select-manifest": Command(of(select, "--top", "50%", "--to", "out.parquet", "--as", "manifest"), scored),
    "select-list": Command(
        of(select, "--where", "lower(image_id) <> 'x'", "--top", "50%", "--to", "out.csv", "--as", "manifest"), scored
    ),
    "select-recipe": Command(of(select, "--recipe", "recipe.yaml", "--to", "out", "--as", "folder"), with_recipe),
    "select-varied": Command(of(select, "--varied", "4", "--to", "out", "--as", "folder"), scored),
    "select-pdf": Command(of(select, "--top", "50%", "--to", "sheet.pdf", "--as", "pdf"), scored),
    "select-undo": Command(
        of(select, "--to", "out", "--undo"),
        lambda: (scored(), select("--top", "50%", "--to", "out", "--as", "folder"))[0],
    ),
    "select-xmp": Command(of(select, "--as", "xmp"), scored),
    "undo-xmp": Command(of(select, "--as", "xmp", "--undo"), lambda: (scored(), select("--as", "xmp"))[0]),
    "report": Command(of(cli, "report", "scores", "-o", "page.html"), scored),
    "demo": Command(of(cli, "demo", "--output", "out")),
    "rescore-words": Command(of(cli, "rescore", "scores", "--scorer", "clip-score", "--scorer", "a: b | c"), scored),
    "rescore": Command(of(cli, "rescore", "scores", "--scorer", "head.safetensors"), with_head),
    "learn": Command(of(cli, "learn", "scores", "--from", "ratings.csv", "-o", "mine.safetensors"), rated),
    "pull": Command(pull),
    "export": Command(export, scored),
    "pipeline": Command(pipeline),
    "score-to-s3": Command(of(at_store, "score", "s3://bucket/photos", "-o", "s3://bucket/out"), in_store=True),
    "filter-to-s3": Command(
        of(at_store, "filter", "s3://bucket/shards", "-o", "s3://bucket/out", "--top", "50%", "--images-per-tar", "2"),
        in_store=True,
    ),
}


class World:
    """The folder that commands run in, as it was before, and the store."""

    def __init__(self, root: Path, store_port: int) -> None:
        self.here, self.log, self._before, self._port = root / "here", root / "log", root / "before", store_port
        self._inputs = root / "inputs"
        make_pictures(self._inputs / "photos", [*(f"{n}.jpg" for n in range(12)), "below/a.png"])
        shards = make_tiny_shards(self._inputs / "shards", shards=5)
        (shards / "3.tar").write_bytes((shards / "3.tar").read_bytes()[:2000])
        (self._inputs / "tmp").mkdir()
        os.environ["TASTEMAKER_MODEL_DIR"] = str(write_random_models(root / "models"))
        os.environ["KILLS_OFFERED"] = str(write_random_models(root / "offered"))
        os.environ["XDG_DATA_HOME"] = os.environ["XDG_CACHE_HOME"] = str(root / "home")
        os.environ["KILLS_STORE"] = f"http://127.0.0.1:{store_port}"
        self.hub, os.environ["KILLS_HUB"] = serve_hub()
        tempfile.tempdir = os.environ["TMPDIR"] = str(self.here / "tmp")

    def make(self, command: Command) -> None:
        """Make what there is before a command."""
        self._put(self._inputs)
        if code := os.waitpid(self.start(command.before), 0)[1]:
            raise RuntimeError(f"what comes before the command ended with {code}: {self.log.read_text()}")
        shutil.rmtree(self._before, ignore_errors=True)
        shutil.copytree(self.here, self._before, symlinks=True)

    def reset(self, command: Command) -> None:
        """Put everything back as it was before a command."""
        self._put(self._before)
        if command.in_store:
            self._ask("POST", "/moto-api/reset")
            self._ask("PUT", "/bucket")
            for path in filter(Path.is_file, self._before.rglob("*")):
                self._ask("PUT", f"/bucket/{path.relative_to(self._before)}", path.read_bytes())

    def start(self, action: Callable[[], None], *, stopped: bool = False) -> int:
        """Start a process that does something here, and return its number; stopped, it begins when it is told to."""
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            with self.log.open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            os.chdir(self.here)
            if stopped:
                os.kill(os.getpid(), signal.SIGSTOP)
            action()
            code = 0
        except BaseException:  # noqa: BLE001 - the process ends here, and not in the code of its parent
            traceback.print_exc()
        finally:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def read(self, command: Command) -> dict[str, Any]:
        """Return name -> content of every file here, and in the store."""
        if command.in_store:
            os.waitpid(self.start(_fetch_store), 0)
        paths = sorted(path for path in self.here.rglob("*") if not path.is_dir() or path.is_symlink())
        named = ((path.relative_to(self.here).as_posix(), path) for path in paths)
        return {name: _content(path) for name, path in named if not _is_note(name)}

    def _put(self, folder: Path) -> None:
        shutil.rmtree(self.here, ignore_errors=True)
        shutil.copytree(folder, self.here, symlinks=True)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        connection.request(method, path, body)
        answer = connection.getresponse()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.read()!r}")
        connection.close()


def _fetch_store() -> None:
    """Write every object of the store into the folder ``bucket``."""
    bucket = Place.at("s3://bucket", {"endpoint_url": os.environ["KILLS_STORE"]})
    for entry in bucket.list():
        path = Path("bucket") / entry.place.relative_to(bucket)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry.place.read())


def _is_note(name: str) -> bool:
    """Return whether a file is a note of the program, with times in it, a lock or a cache."""
    is_state = re.search(r"(^|/)_tastemaker/(run|index|metrics|start)[^/]*$", name) or name.endswith(".lock")
    return bool(is_state) or name.startswith("cache/")


def _content(path: Path) -> object:
    """Return what a file says: of rows the rows and their metadata, of our records what they list."""
    if path.name.startswith(DRAFT_PREFIX) or path.parent.name == "checkpoint":  # which has times of files
        return "is there"
    if path.is_symlink():
        return os.readlink(path)
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        metadata = {k: json.loads(v) for k, v in (table.schema.metadata or {}).items() if k != b"ARROW:schema"}
        metadata.get(b"tastemaker", {}).pop("parity", None)  # of a sample that depends on the time that there is
        sources = metadata.get(b"tastemaker.sources", {})  # the demo makes its own, each time with other times
        sources["files"] = [entry[:2] for entry in sources.get("files", [])]
        return table.to_pylist(), metadata
    if path.name == "files.jsonl":  # names, sizes and hashes; versions differ, and so do hashes of files with the time
        entries = map(json.loads, path.read_text().splitlines())
        return sorted(entry[: 2 if entry[0].endswith(".safetensors") else 3] for entry in entries)
    if path.suffix == ".safetensors":  # its notes have the time
        return {name: array.tobytes() for name, array in load_file(path).items()}
    return path.read_bytes()


def trace(world: World, command: Command, *options: str) -> tuple[int, list[str]]:
    """Run a command under strace; return how it ended, as `os.waitpid` says, and the lines of strace."""
    child, log = world.start(command.run, stopped=True), world.log.with_name("strace")
    os.waitpid(child, os.WUNTRACED)
    arguments = ["strace", "-f", "-y", "-s", "0", "-o", str(log), *options, "-p", str(child)]
    tracer = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    while "TracerPid:\t0" in Path(f"/proc/{child}/status").read_text():
        time.sleep(0.002)
    os.kill(child, signal.SIGCONT)
    status = os.waitpid(child, 0)[1]
    tracer.wait()
    return status, log.read_text(errors="replace").splitlines()


def list_calls(lines: list[str], here: Path) -> list[tuple[str, int]]:
    """Return the calls that have to do with files here, or with sockets: the name, and how manieth of its thread."""
    seen, found = Counter[tuple[str, str]](), []
    for line in lines:
        if match := re.match(r"(\d+) +(\w+)\(", line):
            thread, name = match.groups()
            seen[thread, name] += 1
            if str(here) in line or "socket:" in line or "<TCP" in line:
                found.append((name, seen[thread, name]))
    return found


def prepare(world: World, command: Command) -> None:
    """Find out what a command makes, which calls it makes for that, and how long it takes."""
    world.make(command)
    for number in range(2):
        world.reset(command)
        begun = time.monotonic()
        if code := os.waitpid(world.start(command.run), 0)[1]:
            raise RuntimeError(f"without a kill it ended with {code}: {world.log.read_text()}")
        command.seconds = time.monotonic() - begun
        found = world.read(command)
        if number and (differ := [name for name in found if found[name] != command.results.get(name)]):
            raise RuntimeError(f"two runs without a kill differ in {differ}")
        command.results = found
    world.reset(command)
    _, lines = trace(world, command, "-e", f"trace={','.join(CALLS)}")
    command.calls = list_calls(lines, world.here)


def kill_at_call(world: World, command: Command, rng: random.Random) -> str:
    """Run a command that is killed as it begins a call; return which, empty where it came to its end before."""
    name = rng.choice(sorted({name for name, _ in command.calls}))
    number = rng.choice([number for other, number in command.calls if other == name])
    status, _ = trace(world, command, "-e", f"trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={number}")
    return f"{name} {number}" if os.WIFSIGNALED(status) else ""


def kill_at_moment(world: World, command: Command, rng: random.Random) -> str:
    """Run a command that is killed after a share of its time; return after how many seconds, empty as above."""
    seconds, child = rng.random() * command.seconds, world.start(command.run)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return f"{seconds:.3f} s" if os.WIFSIGNALED(os.waitpid(child, 0)[1]) else ""


Kill = Callable[[World, Command, random.Random], str]


def try_kill(world: World, command: Command, kill: Kill, rng: random.Random) -> None:
    """Kill a command once or twice, give it again, and note what differs from a command that was not killed."""
    for _ in range(TRIES):
        world.reset(command)
        moments = [kill(world, command, rng) for _ in range(rng.choice((1, 1, 1, 2)))]
        if any(moments):
            break
    else:
        command.kills["came too late"] += 1
        return
    command.kills["at a call" if kill is kill_at_call else "at a moment"] += 1
    command.kills["twice"] += all(moments) and len(moments) == 2
    status = os.waitpid(world.start(command.run), 0)[1]
    found = world.read(command)
    problems = [f"given again it ended with {status}: {world.log.read_text()[-400:]}"] if status else []
    ways = {"is missing": command.results.keys() - found.keys(), "is too much": found.keys() - command.results.keys()}
    ways["differs"] = {name for name in found.keys() & command.results.keys() if found[name] != command.results[name]}
    problems += [f"{name} {way}" for way, names in ways.items() for name in sorted(names)]
    drafts = [str(p.relative_to(world.here)) for p in world.here.rglob("*") if DRAFT_PREFIX in p.name]
    problems += [f"{name} is left" for name in drafts + [f"tmp/{p.name}" for p in (world.here / "tmp").iterdir()]]
    if problems:
        command.problems.append(f"killed at {', '.join(filter(None, moments))}: {'; '.join(dict.fromkeys(problems))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=300, help="kills at chosen system calls, of all commands together")
    parser.add_argument("--moments", type=int, default=100, help="kills at random moments")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="*", choices=COMMANDS, default=list(COMMANDS))
    arguments = parser.parse_args()
    print_machine("duckdb", "pyarrow", "obstore")
    print(f"{'command':16} {'s':>5} {'calls':>6} {'at calls':>8} {'at moments':>10} {'twice':>5}  problems")
    chosen = arguments.commands
    kills = [(chosen[n % len(chosen)], kill_at_call) for n in range(arguments.calls)]
    kills += [(chosen[n % len(chosen)], kill_at_moment) for n in range(arguments.moments)]
    root = Path(tempfile.mkdtemp()).resolve()  # a TemporaryDirectory would go with the first child
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, root)
        world = World(root, stack.enter_context(moto_server()))
        stack.callback(os.kill, world.hub, signal.SIGKILL)
        for name in chosen:
            command = COMMANDS[name]
            prepare(world, command)
            for number, (other, kill) in enumerate(kills):
                if other == name:
                    try_kill(world, command, kill, random.Random(f"{arguments.seed} {number}"))
            counts = command.kills
            print(
                f"{name:16} {command.seconds:5.1f} {len(command.calls):6,} {counts['at a call']:8} "
                f"{counts['at a moment']:10} {counts['twice']:5}  {len(command.problems)}",
                flush=True,
            )
            for problem, times in Counter(command.problems).items():
                print(f"    {times} times {problem}", flush=True)
    done = [sum(command.kills[what] for command in COMMANDS.values()) for what in ("at a call", "at a moment")]
    found = sum(len(command.problems) for command in COMMANDS.values())
    print(f"{done[0]} kills at calls, {done[1]} at moments, {found} ended otherwise than without a kill")


if __name__ == "__main__":
    main()
