"""What the tests share: a Flickr of their own, the real program, and a clock that does not wait."""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import hypothesis
import pytest
from sandbox import Sandbox, SandboxPhoto, image_of, sizes_of

# A release is judged by the same histories each time; everybody else plays new ones.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


ROOT = Path(__file__).resolve().parent.parent

if importlib.util.find_spec("flickr") is None:
    sys.path.insert(0, str(ROOT))

import flickr  # noqa: E402

KEY = "fc8f309af6bf69bfea94628bce11eadb"
SECRET = "866597e43a98c8c5"

# What would send a test's requests elsewhere than to its sandbox.
DIVERSIONS = (
    "FLICKR_API_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Take out of the environment what would make a test depend on its machine."""
    for name in DIVERSIONS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class HeldClock(flickr.Clock):
    """A clock in which sleeping takes no time: it only moves the hands.

    :ivar sleeps: The seconds that each sleeper asked for.
    """

    def __init__(self, date: float = 1_600_000_000.0) -> None:
        super().__init__()
        self.sleeps: list[float] = []
        self._moved = 0.0
        self._date = date
        self._lock = threading.Lock()

    def now(self) -> float:
        with self._lock:
            return self._moved

    def date(self) -> float:
        return self._date + self.now()

    def sleep(self, seconds: float) -> None:
        self.check()
        with self._lock:
            self.sleeps.append(seconds)
            self._moved += max(0.0, seconds)


@pytest.fixture
def clock():
    """A held clock."""
    return HeldClock()


@pytest.fixture
def sandbox():
    """Start a sandbox: `sandbox(Photostream.generated(5), plain=True)`; stopped at the end."""
    with contextlib.ExitStack() as running:
        yield lambda *streams, **options: running.enter_context(Sandbox(*streams, **options))


@pytest.fixture
def cache_path(tmp_path):
    """The cache path of a test; the program makes it."""
    return tmp_path / "cache"


@pytest.fixture
def agent(cache_path):
    """Make an agent for a sandbox's first user: `agent(box, info_level=2)`."""

    def make(box, username=None, **options):
        options.setdefault("cache_root_path_name", cache_path)
        options.setdefault("api_url", box.url)
        return flickr.FlickrUserPhotostreamMirroringAgent(
            username or box.photostream.username, KEY, SECRET, **options
        )

    return make


@pytest.fixture
def run(agent):
    """Run an agent at a time when Flickr never makes one wait, all counts starting at 0."""

    def go(box, **options):
        box.reset_counts()
        options = {"cache_directory_depth": 0, "clock": HeldClock()} | options
        return agent(box, **options).run()

    return go


# ------------------------------------------------------------------------------ the program


def program_environment(box: Sandbox | None = None, **variables: str) -> dict[str, str]:
    """Return an environment in which the program is the module that the tests import."""
    paths = [str(Path(flickr.__file__).resolve().parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment |= {"PYTHONIOENCODING": "utf-8"}
    if box is not None:
        environment["FLICKR_API_URL"] = box.url
    return environment | variables


def run_python(*arguments: object, box: Sandbox | None = None, variables=None, **options):
    """Run Python with these arguments, no terminal and nothing to read; return what it did."""
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=program_environment(box, **(variables or {})),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=30,
        **options,
    )


KEY_ARGUMENTS = ("--consumer-key", KEY, "--consumer-secret", SECRET)


@pytest.fixture
def mirror(cache_path):
    """Run the program on a sandbox's first user: `mirror(box, "--fifo")`, then look at it.

    :param keys: The arguments that give the API keys.
    """

    def run(box, *arguments, username=None, keys: Iterable[str] = KEY_ARGUMENTS, **options):
        name = box.photostream.username if username is None else username
        command = ["-m", "flickr", "--username", name, "--cache-path", cache_path, *keys]
        return run_python(*command, *arguments, box=box, **options)

    return run


@pytest.fixture
def program(cache_path):
    """Run the program meanwhile: `with program(box, "--watch") as process:`.

    It does not survive the block.
    """

    @contextlib.contextmanager
    def start(box, *arguments, keys: Iterable[str] = KEY_ARGUMENTS, stderr=subprocess.PIPE):
        command = ["--username", box.photostream.username, "--cache-path", cache_path, *keys]
        with subprocess.Popen(
            [sys.executable, "-m", "flickr", *map(str, command), *map(str, arguments)],
            env=program_environment(box),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            encoding="utf-8",
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    return start


def wait_until(happened: Callable[[], object]) -> None:
    """Wait for what a program does meanwhile."""
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


def interrupted(process: subprocess.Popen, number: int = signal.SIGINT) -> tuple[str, str]:
    """Interrupt a program, which says so and ends with status 130; return its output and log."""
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "interrupted" in stdout.splitlines()[-1]
    assert "Traceback" not in stderr
    return stdout, stderr


def assert_one_line(run: subprocess.CompletedProcess, *words: object, status: int = 1) -> None:
    """The program says in one line what is wrong, with these words in it, and nothing else."""
    assert run.returncode == status, run.stderr
    assert run.stdout == ""
    [line] = run.stderr.splitlines()
    assert run.stderr == f"{line}\n"
    assert line.startswith("mirror_flickr: error: ")
    assert "Traceback" not in line
    for word in words:
        assert str(word) in line


@pytest.fixture
def refusal(capsys):
    """Have a command line refused: `refusal("--debug", "5")` is the line that says why."""

    def refuse(*arguments):
        with pytest.raises(SystemExit) as ending:
            flickr.get_arguments(list(arguments))
        assert ending.value.code == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert re.fullmatch(r"mirror_flickr: error: [^\x00-\x1f]+\n", shown.err)
        return shown.err

    return refuse


KEYS = {"consumer_key": KEY, "consumer_secret": SECRET}


def save_keys(cache_path: Path, **keys: str) -> Path:
    """Write the file of keys, with others than the tests' own if any are given; return it."""
    cache_path.mkdir(parents=True, exist_ok=True)
    path = cache_path / "flickr_keys"
    path.write_text(json.dumps(keys or KEYS))
    path.chmod(0o600)
    return path


# ------------------------------------------------------------------------------ the mirror


def files_in(folder: Path) -> Iterator[Path]:
    """Give the files of a mirror, relative to its folder, its own hidden ones left out."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            yield relative


def digest_of(photo: SandboxPhoto) -> str:
    """What a photo's files are named after."""
    return hashlib.md5(f"flickr.{photo.id}".encode()).hexdigest()


def path_of(cache_path: Path, photo: SandboxPhoto, suffix: str = ".json") -> Path:
    """Where a file of a photo stands in a mirror that `run` made."""
    return cache_path / "sandbox" / f"{digest_of(photo)}{suffix}"


def info_of(cache_path: Path, photo: SandboxPhoto) -> dict:
    """The information on a photo in a mirror that `run` made."""
    return json.loads(path_of(cache_path, photo).read_text(encoding="utf-8"))


def bytes_of(photo: SandboxPhoto) -> bytes:
    """The image that should be mirrored, of the size with most pixels."""
    best = max(sizes_of(photo), key=lambda size: size.width * size.height)
    return image_of(photo, best.key)[1]


def calls(box: Sandbox) -> dict[str, int]:
    """API calls by the last part of the method's name."""
    return {method.rpartition(".")[2]: count for method, count in box.calls.items()}
