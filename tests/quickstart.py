#!/usr/bin/env python3
"""See mirror-flickr at work, or test it, with nothing but Python 3.10 or newer.

    python3 tests/quickstart.py demo
    python3 tests/quickstart.py test

Everything needed goes into the folder .venv of the clone, the first time; the system's own Python
is left alone. The demo runs the real program against a stand-in for Flickr on this machine, and
needs neither an API key nor Flickr.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
SCRIPTS = VENV / ("Scripts" if os.name == "nt" else "bin")
SUFFIX = ".exe" if os.name == "nt" else ""
VENV_PYTHON = SCRIPTS / f"python{SUFFIX}"
STAMP = VENV / "quickstart.json"

USERNAME = "sandbox"
PHOTOS = 40

# Run by a Python of its own, which ends when its standard input does, so with this script at the
# latest. The arguments: the folder of sandbox.py, the number of photos, the username.
SERVE_SANDBOX = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path.insert(0, sys.argv[1])
from sandbox import Photostream, Sandbox
photos = Photostream.generated(
    int(sys.argv[2]), username=sys.argv[3], videos_every=15, png_every=7, gif_every=13
)
with Sandbox(photos) as sandbox:
    print(sandbox.url, flush=True)
    sys.stdin.read()
"""


class Failure(Exception):
    """What ends the script, in words for people."""


# ------------------------------------------------------------- the virtual environment


def output_of(command: Sequence[str | os.PathLike[str]]) -> str | None:
    """Return what a command prints, None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def run_quietly(command: Sequence[str | os.PathLike[str]], environment: dict[str, str]) -> None:
    """Run a command whose output matters only if it fails."""
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        sys.stderr.write(done.stdout)
        raise Failure(f"this failed: {' '.join(map(str, command))}")


def ready_venv(extra: str) -> None:
    """See to it that the project, with an extra or "", is installed in .venv."""
    wanted = wanted_stamp()
    extras = {extra} - {""}
    try:
        stamp = json.loads(STAMP.read_bytes())
        installed = set(stamp.pop("extras"))
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        stamp, installed = {}, set()

    version = output_of([VENV_PYTHON, "-c", "import sys; print(sys.version)"])
    is_sound = version == sys.version.strip()
    if is_sound and stamp == wanted and extras <= installed:
        check = "import importlib.metadata as m; m.version('mirror-flickr')"
        if output_of([VENV_PYTHON, "-c", check]) is not None:
            return
    if not is_sound or stamp.get("root", str(ROOT)) != str(ROOT):
        make_venv()
        installed = set()
    extras |= installed
    STAMP.unlink(missing_ok=True)
    print("Installing the project and what it needs into .venv ...", file=sys.stderr, flush=True)
    target = f"{ROOT}[{','.join(sorted(extras))}]" if extras else str(ROOT)
    run_quietly(
        [*pip_command(), "install", "--disable-pip-version-check", "-e", target],
        # With an isolated build, nothing else than pip need be there. A virtual environment
        # has no place for "user" installs, whatever the settings say.
        {**os.environ, "PIP_USE_PEP517": "1", "PIP_USER": "0"},
    )
    STAMP.write_text(json.dumps({**wanted, "extras": sorted(extras)}))


def wanted_stamp() -> dict[str, str]:
    """Return what an environment that is up to date was made from."""
    version = re.search(
        "^__version__ = .*$", (ROOT / "flickr.py").read_text(encoding="utf-8"), re.MULTILINE
    )
    source = (ROOT / "setup.py").read_bytes() + (version.group().encode() if version else b"")
    return {
        "root": str(ROOT),
        "python": sys.version,
        "source": hashlib.sha256(source).hexdigest(),
    }


def make_venv() -> None:
    """Make .venv anew, with pip in it where this Python can do that."""
    if Path(sys.prefix) == VENV:
        raise Failure("this .venv is not sound: leave it (deactivate), and run this again")
    print("Making the virtual environment .venv ...", file=sys.stderr, flush=True)
    if VENV.is_symlink() or VENV.is_file():
        VENV.unlink()
    shutil.rmtree(VENV, ignore_errors=True)
    has_venv, has_pip = map(importlib.util.find_spec, ("venv", "ensurepip"))
    # Debian's python3 comes without ensurepip unless python3-venv is installed.
    if has_venv and not has_pip and outer_pip_version() < (22, 3):
        has_venv = None
    if not has_venv:
        raise Failure(
            "this Python cannot make a virtual environment with pip in it: install the package"
            " python3-venv (Debian, Ubuntu: sudo apt install python3-venv), and run this again"
        )
    options = [] if has_pip else ["--without-pip"]
    run_quietly([sys.executable, "-m", "venv", *options, VENV], dict(os.environ))


def outer_pip_version() -> tuple[int, ...]:
    """Return the version of this Python's own pip, (0,) if it has none."""
    answer = output_of([sys.executable, "-m", "pip", "--version"])
    match = re.match(r"pip (\d+)\.(\d+)", answer or "")
    return tuple(map(int, match.groups())) if match else (0,)


def pip_command() -> list[str | os.PathLike[str]]:
    """Return how pip is run so that it installs into .venv."""
    if output_of([VENV_PYTHON, "-m", "pip", "--version"]) is not None:
        return [VENV_PYTHON, "-m", "pip"]
    if outer_pip_version() >= (22, 3):
        return [sys.executable, "-m", "pip", "--python", VENV_PYTHON]
    shutil.rmtree(VENV, ignore_errors=True)
    raise Failure("there is no pip: install the package python3-venv, and run this again")


# ------------------------------------------------------------------------------ the demo


class Sandbox:
    """The stand-in for Flickr, in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE_SANDBOX, str(ROOT / "tests"), str(PHOTOS), USERNAME],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.api_url = self._process.stdout.readline().strip()
        if not self.api_url:
            self.close()
            raise Failure("the sandbox does not start")

    def counts(self) -> tuple[int, int]:
        """Return the numbers of API calls and image requests so far."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        base = self.api_url.partition("/services/")[0]
        with opener.open(f"{base}/sandbox/stats", timeout=10) as response:
            stats = json.load(response)
        return stats["api_calls"], stats["images"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def cache_folder(given: str | None) -> Iterator[Path]:
    """Give the folder to mirror into; one of the script's own is removed afterwards."""
    if given is not None:
        yield Path(given).resolve()
        return
    folder = tempfile.mkdtemp(prefix="mirror-flickr-demo-")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def demo(program: str | None, folder: str | None) -> int:
    """Mirror the sandbox's photostream twice and show what came of it."""
    if program is None:
        ready_venv("")
        program = str(SCRIPTS / f"mirror_flickr{SUFFIX}")
    with cache_folder(folder) as cache, contextlib.closing(Sandbox()) as sandbox:
        say(f"1. Mirror {PHOTOS} photos of a stand-in for Flickr, with their comments")
        run_program(program, cache, sandbox)
        calls, images = sandbox.counts()
        show_mirror(cache / USERNAME)
        print(f"Flickr's stand-in counted {calls} API calls and {images} image requests.")

        say("3. The same command again: nothing is fetched")
        run_program(program, cache, sandbox)
        calls_now, images_now = sandbox.counts()
        calls, images = calls_now - calls, images_now - images
        print(f"Flickr's stand-in counted {calls} API calls and {images} image requests.")
        if calls > 2 or images:
            raise Failure("the second run should have cost 2 API calls and fetched no image")
    return 0


def say(what: str) -> None:
    print(f"\n=== {what}\n", flush=True)


def run_program(program: str, cache: Path, sandbox: Sandbox) -> None:
    """Run mirror_flickr as a user does."""
    options = ["--username", USERNAME, "--info-level", "2", "--cache-path", str(cache)]
    # The sandbox takes any key.
    options += ["--consumer-key", "any", "--consumer-secret", "any"]
    print(f"$ export FLICKR_API_URL={sandbox.api_url}")
    print(f"$ mirror_flickr {' '.join(options)}", flush=True)
    environment = {**os.environ, "FLICKR_API_URL": sandbox.api_url}
    for name in ("NO_PROXY", "no_proxy"):
        environment[name] = "127.0.0.1"
    # Its log, which it writes to standard error, shall stay in order with what is said here.
    try:
        process = subprocess.Popen(
            [program, *options],
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        raise Failure(f"{program}: {error.strerror}") from None
    try:
        status = process.wait()
    except BaseException:
        # Ctrl-C reached the program too; it ends in order within seconds.
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        process.kill()
        raise
    if status:
        raise Failure(f"mirror_flickr ended with exit status {status}")


def show_mirror(folder: Path) -> None:
    """Show part of a user's folder, one information file, and the languages found."""
    say(f"2. What was mirrored into {folder}")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    shown = files[:11]
    for path in shown:
        print(f"{path.stat().st_size:>9,} bytes  {path.relative_to(folder).as_posix()}")
    if len(files) > len(shown):
        print(f"      ... and {len(files) - len(shown)} more")

    languages: collections.Counter[str] = collections.Counter()
    example, most = None, (0, 0)
    for path in sorted(folder.rglob("*.json")):
        info = json.loads(path.read_bytes())
        locales = [
            label["locale"]
            for label in (info["title"], info["description"], *info["comments"])
            if label["content"]
        ]
        languages.update(locales)
        # The one with most languages, of these the one with the longest title, shows most.
        if (len(set(locales)), len(info["title"]["content"])) > most:
            example, most = path, (len(set(locales)), len(info["title"]["content"]))
    if example is not None:
        print(f"\n$ cat {example.relative_to(folder).as_posix()}")
        print(example.read_text(encoding="utf-8"))

    kinds = collections.Counter(path.suffix for path in files if not path.name.startswith("."))
    print("Files:    ", ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    found = ", ".join(f"{count} {language}" for language, count in languages.most_common())
    print(f"Languages: {len(languages)} in {languages.total()} texts: {found}")


# ----------------------------------------------------------------------------- the tests


def test(arguments: Sequence[str]) -> int:
    """Run the tests; return pytest's exit status."""
    ready_venv("test")
    command = [str(VENV_PYTHON), "-m", "pytest", "-q", *arguments]
    process = subprocess.Popen(command, cwd=ROOT)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # pytest got it too, and reports what it has.
            continue


def main() -> int:
    """Do what was asked for on the command line; return the exit status."""
    if sys.version_info < (3, 10):  # noqa: UP036
        raise Failure(f"this needs Python 3.10 or newer; it runs in {sys.version.split()[0]}")
    # A terminal that cannot show every script of the world shows question marks.
    sys.stdout.reconfigure(errors="replace")
    parser = argparse.ArgumentParser(
        description="See mirror-flickr at work, or test it. What that needs is installed into"
        " the folder .venv of the clone."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    demo_parser = commands.add_parser(
        "demo", help="mirror a stand-in for Flickr on this machine, and show what came of it"
    )
    demo_parser.add_argument(
        "folder", nargs="?", help="cache to mirror into, and to keep (default: a temporary one)"
    )
    demo_parser.add_argument(
        "--program", help="the mirror_flickr to run (default: this clone's, in .venv)"
    )
    commands.add_parser("test", help="run the tests; what follows is handed to pytest")
    options, rest = parser.parse_known_args()
    if options.command == "test":
        return test(rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return demo(options.program, options.folder)


def end(*_: object) -> None:
    sys.exit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"{Path(__file__).name}: error: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
