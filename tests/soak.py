"""A soak: the real program against a faulty Flickr, killed again and again; is its mirror whole?

    python tests/soak.py --photos 2000 --fault-rate 0.25 --kills 10

A quarter of all answers are faulty, and the program is killed (SIGKILL) at random moments and
started again. After each kill, no file under a final name may be anything but whole, and the state
may claim nothing that is not there. In the end the mirror must be whole, byte for byte, with
nothing beside it. Prints a table; the exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sandbox import Faults, Photostream, Sandbox, SandboxPhoto, image_of, sizes_of

ROOT = Path(__file__).resolve().parent.parent
KEY, SECRET = "fc8f309af6bf69bfea94628bce11eadb", "866597e43a98c8c5"

# What passes: the client gets over it by asking again. Pauses without Retry-After would be of 5 to
# 80 seconds each, so that every refusal here says how long.
QUICK_FAULTS = [
    "reset", "cut", "slow", "short_length", "lying_length_long", "no_length", "500", "502", "503",
    ("429", {"retry_after": "1"}), ("503", {"retry_after": "1"}), "105", "106", "201", "0", "html",
    "garbage", "empty",
]  # fmt: skip
# Each of these takes the half minute after which a silent body is given up: a few are enough.
SILENT_FAULTS = ["stall", "trickle"]

# The client asks for a file six times. Five faults in a row would be chance, six the truth.
MOST_FAULTS_IN_A_ROW = 5

MOST_RUNS_TO_THE_END = 6
LONGEST_RUN = 600.0  # seconds
OWN_FILES = {".mirror_flickr.state", ".mirror_flickr.lock"}


@dataclass
class Report:
    """What a soak came to."""

    photos: int = 0
    answers: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    runs: int = 0
    images: int = 0  # that are there and right
    infos: int = 0
    wrong: list[str] = field(default_factory=list)  # files whose content is not the photostream's
    missing: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)  # files and folders that should not be there
    claimed: list[str] = field(default_factory=list)  # by a state, though they were not there
    complaints: list[str] = field(default_factory=list)  # of the program
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether nothing at all is wrong."""
        return not (self.wrong or self.missing or self.beside or self.claimed or self.complaints)

    def __str__(self) -> str:
        faulty = sum(self.faults.values())
        share = faulty / self.answers if self.answers else 0.0
        kinds = [f"{kind} {count:,}" for kind, count in self.faults.most_common()]
        rows = [
            ("answers served", f"{self.answers:,}, {faulty:,} of them faulty ({share:.0%})"),
            *(
                ("" if start else "faults by kind", ", ".join(kinds[start : start + 6]))
                for start in range(0, len(kinds), 6)
            ),
            ("kills, runs", f"{self.kills:,}, {self.runs:,}"),
            ("photos", f"{self.photos:,}"),
            ("files right", f"{self.images:,} images, {self.infos:,} information files"),
            ("files wrong", told(self.wrong)),
            ("files missing", told(self.missing)),
            ("files beside", told(self.beside)),
            ("files claimed, not there", told(self.claimed)),
            ("complaints", told(self.complaints)),
            ("time", f"{self.seconds:.0f} s"),
        ]
        return "\n".join(f"{name:<26}{value}" for name, value in rows)


def told(troubles: list[str]) -> str:
    """How many, and the first few."""
    if not troubles:
        return "none"
    return f"{len(troubles):,}: " + "; ".join(troubles[:5])


def stem_of(photo: SandboxPhoto) -> str:
    """What a photo's files are named after."""
    return hashlib.md5(f"flickr.{photo.id}".encode()).hexdigest()


def image_name_of(photo: SandboxPhoto) -> tuple[str, str]:
    """Name of a photo's image file in the mirror, and the key of the size that it holds."""
    best = max(sizes_of(photo), key=lambda size: size.width * size.height)
    return f"{stem_of(photo)}.{best.name.rpartition('.')[2]}", best.key


def path_of(folder: Path, name: str) -> Path:
    """Where a file is in the mirror."""
    return folder.joinpath(*name[:4], name)


def texts_of(photo: SandboxPhoto, level: int) -> dict[str, object]:
    """What an information file of a level up to 2 should say, without the locales."""
    texts: dict[str, object] = {"title": photo.title}
    if level >= 1:
        texts["description"] = photo.description
    if level >= 2:
        texts["comments"] = list(photo.comments)
    return texts


def flat(value: object) -> list:
    """A list as it is, anything else as the only item of one."""
    return value if isinstance(value, list) else [value]


def texts_in(content: bytes) -> object:
    """What an information file says without the locales; None if it is no information file."""
    try:
        info = json.loads(content)
        labels = [label for each in info.values() for label in flat(each)]
        if not all(set(label) == {"content", "locale"} for label in labels):
            return None
        return {
            key: [label["content"] for label in value] if key == "comments" else value["content"]
            for key, value in info.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class Mirror:
    """The folder that the program writes, and what should be in it."""

    def __init__(self, folder: Path, stream: Photostream, level: int = 2) -> None:
        self.folder = folder
        self.stream = stream
        self.images = {}
        self.infos = {f"{stem_of(photo)}.json": texts_of(photo, level) for photo in stream.photos}
        for photo in stream.photos:
            name, key = image_name_of(photo)
            self.images[name] = hashlib.sha256(
                image_of(photo, key, at_least=stream.image_bytes)[1]
            ).digest()

    def is_right(self, path: Path) -> bool:
        """Whether a file holds what the photostream has under that name, in the right place."""
        if path != path_of(self.folder, path.name):
            return False
        content = path.read_bytes()
        if path.name in self.infos:
            return texts_in(content) == self.infos[path.name]
        return self.images.get(path.name) == hashlib.sha256(content).digest()

    def files(self) -> Iterator[Path]:
        """Every file in the cache."""
        return (path for path in self.folder.parent.rglob("*") if not path.is_dir())

    def check_after_kill(self, report: Report) -> None:
        """After a kill: whole files and temporary ones, and a state that claims no more."""
        for path in self.files():
            if path.name in self.images or path.name in self.infos:
                if not self.is_right(path):
                    report.wrong.append(f"{path.name} after kill {report.kills}")
            elif path.name not in OWN_FILES and path.suffix != ".flickr-part":
                report.beside.append(f"{path.name} after kill {report.kills}")
        state_path = self.folder / ".mirror_flickr.state"
        if state_path.exists():
            for name in names_claimed(json.loads(state_path.read_bytes()), self.stream):
                if not path_of(self.folder, name).is_file():
                    report.claimed.append(f"{name} after kill {report.kills}")

    def check_at_the_end(self, report: Report) -> None:
        """The mirror is whole, byte for byte, with nothing beside it."""
        there = set(self.files())
        for names in (self.images, self.infos):
            for name in names:
                path = path_of(self.folder, name)
                if path not in there:
                    report.missing.append(name)
                elif not self.is_right(path):
                    report.wrong.append(name)
                elif names is self.images:
                    report.images += 1
                else:
                    report.infos += 1
                there.discard(path)
        there -= {self.folder / name for name in OWN_FILES}
        report.beside += [str(path.relative_to(self.folder.parent)) for path in there]


def names_claimed(state: dict, stream: Photostream) -> Iterator[str]:
    """The files that a state says are there; number 1 is the oldest photo."""
    for low, high in state["images"]:
        for photo in stream.photos[low - 1 : high]:
            if photo.id not in state["unavailable_images"]:
                yield image_name_of(photo)[0]
    for ranges in state["infos"].values():
        for low, high in ranges:
            for photo in stream.photos[low - 1 : high]:
                if photo.id not in state["unavailable_infos"]:
                    yield f"{stem_of(photo)}.json"


def start_program(box: Sandbox, cache_path: Path, jobs: int, log: Path) -> subprocess.Popen:
    """Start the program on the sandbox's user."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    with log.open("ab") as output:
        return subprocess.Popen(
            [
                sys.executable, "-m", "flickr", "--username", box.photostream.username,
                "--cache-path", cache_path, "--consumer-key", KEY, "--consumer-secret", SECRET,
                "--info-level", "2", "--jobs", str(jobs), "--debug", "2",
            ],
            env={
                **os.environ,
                "FLICKR_API_URL": box.url,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "PYTHONIOENCODING": "utf-8",
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )  # fmt: skip


def kill_at(process: subprocess.Popen, box: Sandbox, answers: int, delay: float) -> bool:
    """Kill the program once so many answers have been served; False if it ended before."""
    end = time.monotonic() + LONGEST_RUN
    while box.api_calls + box.images < answers and time.monotonic() < end:
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    return process.wait() < 0


def soak(
    photos: int = 2000,
    fault_rate: float = 0.25,
    kills: int = 10,
    seed: int = 0,
    *,
    jobs: int = 32,
    silent: bool = True,
) -> Report:
    """Have a photostream mirrored under faults and kills; return what came of it.

    `silent` has some answers stop halfway, which takes half a minute each.
    """
    chance = random.Random(seed)
    report = Report(photos)
    kinds = QUICK_FAULTS * 5 + (SILENT_FAULTS if silent else [])
    faults = Faults(fault_rate, kinds, seed=seed, per_request_limit=MOST_FAULTS_IN_A_ROW)
    stream = Photostream.generated(photos, seed=seed, png_every=7, gif_every=11)
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as place,
        Sandbox(stream, faults=faults, keep_requests=False) as box,
    ):
        cache_path = Path(place, "cache")
        log = Path(place, "log")
        mirror = Mirror(cache_path / stream.username, stream)
        # The whole takes about two answers a photo: all kills happen before the end.
        most = max(2, round(2 * photos * 0.9 / max(1, kills)))
        while report.kills < kills:
            report.runs += 1
            process = start_program(box, cache_path, jobs, log)
            answers = box.api_calls + box.images + chance.randint(1, most)
            if not kill_at(process, box, answers, chance.uniform(0.0, 0.1)):
                report.complaints.append(f"run {report.runs} ended before it could be killed")
                break
            report.kills += 1
            mirror.check_after_kill(report)
        status = None
        for _ in range(MOST_RUNS_TO_THE_END):
            report.runs += 1
            process = start_program(box, cache_path, jobs, log)
            try:
                status = process.wait(LONGEST_RUN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                status = None
            if status == 0:
                break
        output = log.read_text("utf-8", "replace")
        if status != 0:
            report.complaints.append(f"the last run ended with status {status}: {output[-2000:]}")
        report.complaints += [word for word in ("Traceback", KEY, SECRET) if word in output]
        mirror.check_at_the_end(report)
        report.answers = box.api_calls + box.images
        report.faults = Counter(faults.counts)
    report.seconds = time.monotonic() - started
    return report


def main() -> int:
    """Run a soak and print its table."""
    parser = argparse.ArgumentParser(description="Mirror under faults and kills, then compare.")
    parser.add_argument("--photos", type=int, default=2000, metavar="N")
    parser.add_argument("--fault-rate", type=float, default=0.25, metavar="SHARE")
    parser.add_argument("--kills", type=int, default=10, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--jobs", type=int, default=32, metavar="N")
    parser.add_argument("--no-silence", action="store_true", help="no answer stops halfway")
    options = parser.parse_args()
    report = soak(
        options.photos,
        options.fault_rate,
        options.kills,
        options.seed,
        jobs=options.jobs,
        silent=not options.no_silence,
    )
    print(report)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
