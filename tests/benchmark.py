#!/usr/bin/env python3
"""Measure the mirror's speed, and what it costs, against curl on the same line.

    python3 tests/benchmark.py

A stand-in for Flickr runs in a process of its own, as far away as Flickr is: 150 ms an API call,
60 ms an image, 40 ms a new connection. The real program mirrors 1,000 photos of 200 KB from it;
curl, with 16 transfers at a time, fetches the same addresses. They take turns, so that whatever
else the machine does meets both, and the best run of each counts.

Needs what the program needs, and nothing else; curl is used where there is one.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import itertools
import json
import os
import platform
import py_compile
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
from sandbox import COMMENTS, DESCRIPTIONS, TITLES, Photostream, Sandbox, Size, sizes_of

ROOT = Path(__file__).resolve().parent.parent

API_DELAY = 0.150  # seconds
IMAGE_DELAY = 0.060
CONNECT_DELAY = 0.040
IMAGE_BYTES = 200_000

CURL_TRANSFERS = 16
STRESS_TRANSFERS = 64

MEGABYTE = 1_000_000


# ------------------------------------------------------------------------- the photostream


def letters_of(text: str) -> str:
    """A text's letters alone: all that a language is told by."""
    return "".join(filter(str.isalpha, text))


def different_texts(templates: Iterable[str], chance: random.Random) -> Iterator[str]:
    """Texts without end, each with letters of its own.

    The mirror looks at texts that differ only in their digits once. A photostream made from a
    handful of sentences would flatter it; in these a sentence's words, or its characters where
    it has few words, stand in another order each time. In what order is nothing to langdetect,
    so that each is as hard as its sentence.
    """
    sentences = [re.sub(r"\{[^}]*\}", "", text) for text in templates]
    known: set[str] = set()
    for sentence in itertools.cycle(text for text in sentences if len(letters_of(text)) > 5):
        space = " " if sentence.count(" ") > 3 else ""
        words = re.findall(r"<[^>]*>|\S+" if space else "<[^>]*>|.", sentence)
        for attempt in itertools.count(1):
            chance.shuffle(words)
            text = space.join(words).strip()
            if letters_of(text) not in known:
                break
            if attempt % 20 == 0:  # all orders may have been used
                words.append(chance.choice(words))
        known.add(letters_of(text))
        yield text


def photostream(count: int, image_bytes: int) -> Photostream:
    """The photos to be mirrored; no two of their texts are the same, digits aside."""
    stream = Photostream.generated(count, image_bytes=image_bytes)
    chance = random.Random(count)
    texts = {
        kind: different_texts(templates, chance)
        for kind, templates in (("title", TITLES), ("text", DESCRIPTIONS), ("comment", COMMENTS))
    }
    for photo in stream.photos:
        photo.title = next(texts["title"])
        if photo.description:
            photo.description = next(texts["text"])
        photo.comments = [next(texts["comment"]) for _ in photo.comments]
    return stream


# ----------------------------------------------------------------------------- the sandbox


def pixels_of(size: Size) -> int:
    return size.width * size.height


def serve(count: int, image_bytes: int) -> None:
    """Be the sandbox's process: tell the addresses, and at each line read the counts so far."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stream = photostream(count, image_bytes)
    sandbox = Sandbox(
        stream,
        api_delay=API_DELAY,
        image_delay=IMAGE_DELAY,
        connect_delay=CONNECT_DELAY,
        keep_requests=False,
    )
    with sandbox:
        # Each photo's largest image, of equal ones the first, in the order of the mirror.
        largest = [max(sizes_of(photo), key=pixels_of) for photo in reversed(stream.photos)]
        urls = [f"{sandbox.base}/img/{size.server}/{size.name}" for size in largest]
        print(json.dumps({"url": sandbox.url, "image_urls": urls}), flush=True)
        for _ in sys.stdin:
            used = resource.getrusage(resource.RUSAGE_SELF)
            answer = {"cpu": used.ru_utime + used.ru_stime, **sandbox.stats()}
            print(json.dumps(answer), flush=True)


class Server:
    """The sandbox, in a process of its own that ends with this one."""

    def __init__(self, count: int, image_bytes: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(count), str(image_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        said = json.loads(self._process.stdout.readline())
        self.url: str = said["url"]
        self.image_urls: list[str] = said["image_urls"]

    def counts(self) -> dict:
        """What the sandbox has counted so far, and the CPU seconds that it has used."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


# ---------------------------------------------------------------------------------- the runs


@dataclass
class Run:
    """What one run took.

    `cpu` is in seconds, the children's included; `children_peak` is that of the largest child;
    `busy` is the share of one core that the sandbox took meanwhile.
    """

    seconds: float
    cpu: float = 0.0
    main_peak: int = 0  # bytes
    children_peak: int = 0
    calls: int = 0
    images: int = 0
    busy: float = 0.0


# The real program, which at its end tells what it and its children have used.
MEASURED = """
import atexit, json, os, resource, sys
sys.path.insert(0, sys.argv.pop(1))
path = sys.argv.pop(1)
def tell():
    own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    with open(path, "w") as file:
        json.dump({
            "cpu": own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
            "main_peak": own.ru_maxrss, "children_peak": children.ru_maxrss,
        }, file)
atexit.register(tell)
import flickr
sys.argv[0] = "mirror_flickr"
sys.exit(flickr.main())
"""


def timed(server: Server, work: Callable[[], None]) -> Run:
    """Do some work, and return what it took."""
    before = server.counts()
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    after = server.counts()
    return Run(
        seconds,
        calls=after["api_calls"] - before["api_calls"],
        images=after["images"] - before["images"],
        busy=(after["cpu"] - before["cpu"]) / seconds,
    )


def mirror(server: Server, folder: Path, arguments: Sequence[str], count: int) -> Run:
    """Run the real program, which should fetch so many images."""
    report = folder.parent / "usage.json"
    command = [sys.executable, "-c", MEASURED, str(ROOT), str(report)]
    command += ["--username", "sandbox", "--cache-path", str(folder)]
    command += ["--consumer-key", "any", "--consumer-secret", "any", *arguments]

    log = folder.parent / "log.txt"

    def work() -> None:
        with log.open("w") as output:
            done = subprocess.run(
                command,
                env=environment(FLICKR_API_URL=server.url),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        if done.returncode:
            sys.exit(f"The program failed:\n{log.read_text()[-2000:]}")

    run = timed(server, work)
    used = json.loads(report.read_bytes())
    run.cpu = used["cpu"]
    unit = 1 if sys.platform == "darwin" else 1024
    run.main_peak, run.children_peak = used["main_peak"] * unit, used["children_peak"] * unit
    if run.images != count:
        sys.exit(f"The program fetched {run.images} images of {count}")
    return run


def environment(**variables: str) -> dict[str, str]:
    """The environment, without proxies on the way to the sandbox."""
    return {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **variables}


def curl(server: Server, urls: Sequence[str], folder: Path | None, transfers: int) -> Run:
    """Have curl fetch the addresses into files in a folder, or into nothing."""
    with tempfile.NamedTemporaryFile("w", suffix=".curl") as settings:
        for url in urls:
            output = folder / url.rpartition("/")[2] if folder else os.devnull
            settings.write(f'url = "{url}"\noutput = "{output}"\n')
        settings.flush()
        command = ["curl", "--silent", "--show-error", "--fail", "--parallel"]
        command += ["--parallel-max", str(transfers), "--config", settings.name]
        return finished(timed(server, lambda: check(command)), urls, folder)


def check(command: Sequence[str]) -> None:
    """Run a command that must not fail."""
    # curl may show how far it is, even where it is told to be silent.
    done = subprocess.run(
        command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stderr[-2000:]}")


def plain_loop(server: Server, urls: Sequence[str], folder: Path | None, transfers: int) -> Run:
    """As `curl`, with requests in as many threads as transfers."""
    local = threading.local()

    def fetch(url: str) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.trust_env = False
        answer = local.session.get(url, timeout=30)
        answer.raise_for_status()
        if folder:
            (folder / url.rpartition("/")[2]).write_bytes(answer.content)

    def work() -> None:
        with concurrent.futures.ThreadPoolExecutor(transfers) as threads:
            list(threads.map(fetch, urls))

    return finished(timed(server, work), urls, folder)


def finished(run: Run, urls: Sequence[str], folder: Path | None) -> Run:
    """The run, if it fetched everything."""
    fetched = len(list(folder.iterdir())) if folder else run.images
    if run.images != len(urls) or fetched < len(urls):
        sys.exit(f"{fetched} files came in {run.images} answers; there are {len(urls)} images")
    return run


# --------------------------------------------------------------------------------- the table


def best(runs: Iterable[Run]) -> Run:
    """The shortest of some runs."""
    return min(runs, key=lambda run: run.seconds)


def row(name: str, value: str, target: str = "", verdict: bool | None = None) -> None:
    """Print a line of the table."""
    mark = {True: "met", False: "MISSED", None: ""}[verdict]
    print(f"{name:<56}{value:>14}  {target:<9} {mark}".rstrip(), flush=True)


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


@contextlib.contextmanager
def scratch() -> Iterator[Callable[[], Path]]:
    """Give names of new folders, on one disk for all runs.

    They stay to the end: for a minute after files were removed, ext4 takes longer to make new
    ones.
    """
    with tempfile.TemporaryDirectory(prefix="mirror-flickr-benchmark-") as root:
        numbers = itertools.count()

        def new() -> Path:
            folder = Path(root, str(next(numbers)))
            folder.mkdir()
            # What the runs before left to be written to the disk is not the next one's cost.
            os.sync()
            return folder / "files"

        yield new


KINDS = (  # name, arguments, most times as long as curl takes
    ("images alone", ("--image-only",), 1.2),
    ("images and titles (default)", (), 1.35),
    ("images, titles and descriptions (level 1)", ("--info-level", "1"), 1.6),
)


def benchmark(options: argparse.Namespace) -> bool:
    """Run everything, print the table; return whether all targets are met."""
    has_curl = shutil.which("curl") is not None
    rival = curl if has_curl else plain_loop
    rival_name = "curl" if has_curl else "a loop of requests"
    if not has_curl:
        print("There is no curl here: a loop of requests in 16 threads takes its place.\n")
    print(
        f"{options.photos:,} photos of {options.image_bytes / 1000:,.0f} KB;"
        f" {API_DELAY * 1000:.0f} ms an API call, {IMAGE_DELAY * 1000:.0f} ms an image,"
        f" {CONNECT_DELAY * 1000:.0f} ms a connection;\n"
        f"best of {options.runs}, in turns; {os.cpu_count()} cores,"
        f" Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )
    jobs = ["--jobs", str(options.jobs)]
    # As pip does when it installs the program.
    py_compile.compile(str(ROOT / "flickr.py"))
    server = Server(options.photos, options.image_bytes)
    rival_runs: list[Run] = []
    runs: dict[str, list[Run]] = {name: [] for name, _, _ in KINDS}
    again: list[Run] = []
    with contextlib.closing(server), scratch() as new:
        urls = server.image_urls
        for _ in range(options.runs):
            folder = new()
            folder.mkdir()
            rival_runs.append(rival(server, urls, folder, CURL_TRANSFERS))
            for name, arguments, _ in KINDS:
                folder = new()
                runs[name].append(mirror(server, folder, [*jobs, *arguments], options.photos))
                if not arguments:
                    again.append(mirror(server, folder, jobs, 0))
        # Into nothing: the disk shall not be the bottleneck either.
        stress = best(rival(server, urls, None, STRESS_TRANSFERS) for _ in range(options.runs))

    fastest = best(rival_runs)
    is_met = True

    def judge(name: str, value: float, most: float, text: str) -> None:
        nonlocal is_met
        is_met &= value <= most
        row(name, text, f"<= {most:g}", value <= most)

    heading(f"Time, as a multiple of {rival_name} with {CURL_TRANSFERS} transfers")
    row(rival_name, f"{fastest.seconds:.2f} s")
    for name, _, most in KINDS:
        run = best(runs[name])
        ratio = run.seconds / fastest.seconds
        judge(name, ratio, most, f"{ratio:.2f} ({run.seconds:.2f} s)")
    median = statistics.median(run.seconds for run in rival_runs)
    row(f"{rival_name}, median", f"{median:.2f} s")

    heading("Cost of the mirror, its children included")
    for name, _, _ in KINDS:
        run = best(runs[name])
        row(f"CPU a photo: {name}", f"{run.cpu * 1000 / options.photos:.1f} ms")
    everything = list(itertools.chain(*runs.values(), again))
    main_peak = max(run.main_peak for run in everything) / MEGABYTE
    judge("peak memory, main process (MB)", main_peak, 100, f"{main_peak:.0f}")
    children_peak = max(run.children_peak for run in everything) / MEGABYTE
    judge("peak memory, largest child (MB)", children_peak, 100, f"{children_peak:.0f}")
    for name, _, _ in KINDS:
        row(f"API calls: {name}", f"{best(runs[name]).calls:,}")

    heading("The same again (images and titles)")
    rerun = best(again)
    row("time", f"{rerun.seconds:.2f} s")
    row("API calls, images", f"{rerun.calls}, {rerun.images}")

    heading("The sandbox, which must not be the bottleneck")
    floor = options.photos * IMAGE_DELAY / CURL_TRANSFERS
    row("time that its delays alone make, 16 transfers", f"{floor:.2f} s")
    ratio = stress.seconds / fastest.seconds
    text = f"{ratio:.2f} ({stress.seconds:.2f} s)"
    judge(f"{rival_name} with {STRESS_TRANSFERS} transfers, into nothing", ratio, 0.6, text)
    row(f"its share of a core: {rival_name} with {STRESS_TRANSFERS}", f"{stress.busy:.0%}")
    row(f"  {rival_name} with {CURL_TRANSFERS}", f"{fastest.busy:.0%}")
    for name, _, _ in KINDS:
        busy = best(runs[name]).busy
        judge(f"  {name}", busy, 0.5, f"{busy:.0%}")
    return is_met


def main() -> int:
    """Read the command line, run the benchmark; 1 if a target is missed."""
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]), int(sys.argv[3]))
        return 0
    parser = argparse.ArgumentParser(description="Measure the mirror against curl.")
    parser.add_argument("--photos", type=int, default=1000, metavar="N")
    parser.add_argument("--jobs", type=int, default=16, metavar="N", help="of the mirror")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="of each, the best counts")
    parser.add_argument("--image-bytes", type=int, default=IMAGE_BYTES, metavar="N")
    options = parser.parse_args()
    return 0 if benchmark(options) else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
