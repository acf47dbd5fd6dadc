"""The command line: options, keys, log lines, exit statuses (waypoints 8, 9, 12, 13 and 15)."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from conftest import (
    KEY,
    KEY_ARGUMENTS,
    KEYS,
    ROOT,
    SECRET,
    assert_one_line,
    digest_of,
    files_in,
    interrupted,
    program_environment,
    run_python,
    save_keys,
    wait_until,
)
from sandbox import Photostream, SandboxPhoto

import flickr

LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[(INFO|WARNING|ERROR|DEBUG)\] .+")

KEY_PROMPT = "Enter your Flickr API key: "
SECRET_PROMPT = "Enter your Flickr API secret: "


@pytest.fixture
def box(sandbox):
    """A sandbox of three photos; without titles there are no languages to tell."""
    return sandbox(Photostream(photos=[SandboxPhoto(each) for each in ("1001", "1002", "1003")]))


@pytest.fixture
def empty(sandbox):
    """A sandbox with an empty photostream, for what comes before the first photo."""
    return sandbox(Photostream())


def arguments(*options, username="manhhai"):
    return flickr.get_arguments(["--username", username, *options])


# ------------------------------------------------------------------------------- options


def test_the_options_have_the_specifications_defaults():
    defaults = {
        "username": "manhhai",
        "cache_path": "~/.flickr",
        "cache_directory_depth": 4,
        "consumer_key": None,
        "consumer_secret": None,
        "debug": 3,
        "fifo": False,
        "lifo": False,
        "image_only": False,
        "info_level": 0,
        "info_only": False,
        "save_api_keys": False,
        "verify_image": False,
    }
    assert defaults.items() <= vars(arguments()).items()


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        (["--cache-path", "/srv/mirror"], "cache_path", "/srv/mirror"),
        (["--cache-directory-depth", "0"], "cache_directory_depth", 0),
        (["--cache-directory-depth", "32"], "cache_directory_depth", 32),
        (["--consumer-key", "foo"], "consumer_key", "foo"),
        (["--consumer-secret", "bar"], "consumer_secret", "bar"),
        (["--debug", "0"], "debug", 0),
        (["--debug", "4"], "debug", 4),
        (["--fifo"], "fifo", True),
        (["--lifo"], "lifo", True),
        (["--image-only"], "image_only", True),
        (["--image-only", "--info-level", "0"], "image_only", True),
        (["--info-only"], "info_only", True),
        (["--info-only", "--info-level", "2"], "info_level", 2),
        (["--info-level", "1"], "info_level", 1),
        (["--save-api-keys"], "save_api_keys", True),
        (["--verify-image"], "verify_image", True),
    ],
)
def test_an_option_is_read(options, name, value):
    assert getattr(arguments(*options), name) == value


def test_the_arguments_are_a_namespace_and_those_of_the_program_by_default(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["flickr.py", "--username", "manhhai", "--info-level", "2"])
    options = flickr.get_arguments()
    assert type(options).__name__ == "Namespace"
    assert (options.username, options.info_level) == ("manhhai", 2)


WRONG = {
    "no username": [],
    "an empty username": ["--username", ""],
    "a username of spaces": ["--username", "  "],
    "a username left out": ["--username"],
    "both strategies": ["--username", "u", "--fifo", "--lifo"],
    "both only": ["--username", "u", "--image-only", "--info-only"],
    "images with information": ["--username", "u", "--image-only", "--info-level", "1"],
    "images with comments": ["--username", "u", "--info-level", "2", "--image-only"],
    "a level too low": ["--username", "u", "--info-level", "-1"],
    "a level too high": ["--username", "u", "--info-level", "9"],
    "a level that is no number": ["--username", "u", "--info-level", "all"],
    "a level that is half a number": ["--username", "u", "--info-level", "1.5"],
    "an empty level": ["--username", "u", "--info-level", ""],
    "a depth too low": ["--username", "u", "--cache-directory-depth", "-1"],
    "a depth too high": ["--username", "u", "--cache-directory-depth", "33"],
    "a depth that is no number": ["--username", "u", "--cache-directory-depth", "deep"],
    "a debug level too low": ["--username", "u", "--debug", "-1"],
    "a debug level too high": ["--username", "u", "--debug", "5"],
    "a debug level that is no number": ["--username", "u", "--debug", "info"],
    "a huge number": ["--username", "u", "--debug", "9" * 5000],
    "digits of another script": ["--username", "u", "--debug", "٣"],
    "an empty cache path": ["--username", "u", "--cache-path", ""],
    "an empty key": ["--username", "u", "--consumer-key", ""],
    "an empty secret": ["--username", "u", "--consumer-secret", " "],
    "an unknown option": ["--username", "u", "--sepia"],
    "an unknown argument": ["--username", "u", "manhhai"],
    "an abbreviation of two": ["--username", "u", "--info"],
    "a line break": ["--username", "u", "--debug", "1\nmirror_flickr: all is well"],
    "a terminal's escape": ["--username", "u", "--debug", "\x1b[2J"],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_on_the_command_line_is_one_line_and_status_2(wrong, refusal):
    refusal(*WRONG[wrong])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("no username", ["--username"]),
        ("both strategies", ["--fifo", "--lifo"]),
        ("both only", ["--image-only", "--info-only"]),
        ("images with information", ["--image-only", "--info-level"]),
        ("a level too high", ["--info-level", "9", "0"]),
        ("a depth too high", ["--cache-directory-depth", "33", "0", "32"]),
        ("a debug level too high", ["--debug", "5", "0", "4"]),
        ("an empty username", ["--username", "empty"]),
        ("an unknown option", ["--sepia"]),
    ],
)
def test_the_line_names_what_is_wrong(wrong, named, refusal):
    line = refusal(*WRONG[wrong])
    assert all(word in line for word in named), line


@pytest.mark.parametrize("wrong", ["no username", "both strategies", "a level too high"])
def test_the_program_ends_with_status_2_before_any_request(box, cache_path, wrong):
    run = run_python("-m", "flickr", *WRONG[wrong], *KEY_ARGUMENTS, box=box)
    assert_one_line(run, status=2)
    assert box.requests == []


# ------------------------------------------------------------------------ help and version


OPTIONS = (
    "--username", "--image-only", "--info-only", "--info-level", "--fifo", "--lifo",
    "--cache-path", "--cache-directory-depth", "--verify-image", "--consumer-key",
    "--consumer-secret", "--save-api-keys", "--debug", "--version",
)  # fmt: skip


def test_the_help_stands_in_groups_and_has_every_option(capsys):
    with pytest.raises(SystemExit) as exit:
        flickr.get_arguments(["--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: mirror_flickr ")
    headings = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert len(headings) >= 5, headings
    for option in OPTIONS:
        assert re.search(rf"^  {option}\b", text, re.MULTILINE), option


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as exit:
        flickr.get_arguments(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"mirror_flickr {flickr.__version__}\n"


def test_the_module_the_script_and_the_command_are_the_same_program():
    beside = Path(sys.executable).parent
    ways = [[sys.executable, "-m", "flickr"], [str(ROOT / "flickr.py")]]
    command = shutil.which("mirror_flickr", path=str(beside))
    if command:
        ways.append([command])
    # The script's first line asks for python3: let it be this one.
    environment = program_environment(PATH=f"{beside}{os.pathsep}{os.environ['PATH']}")
    helps = [
        subprocess.run(
            [*way, "--help"], env=environment, capture_output=True, text=True, timeout=30
        )
        for way in ways
    ]
    assert [each.returncode for each in helps] == [0] * len(ways), helps
    assert len({each.stdout for each in helps}) == 1
    assert helps[0].stdout.startswith("usage: mirror_flickr ")


# ----------------------------------------------------------------------------- a whole run


def test_a_run_that_mirrors_everything_ends_with_status_0(box, mirror, cache_path):
    run = mirror(box)
    assert run.returncode == 0, run.stderr
    assert len(list(files_in(cache_path))) == 6


@pytest.mark.parametrize(
    ("option", "what"), [("--image-only", "image"), ("--info-only", "information")]
)
def test_the_log_lines_are_those_of_the_transcripts(box, mirror, option, what):
    lines = mirror(box, option).stderr.splitlines()
    assert all(LOG_LINE.fullmatch(line) for line in lines), lines
    told = [line.split(" ", 2)[2] for line in lines]
    assert told[0] == "[INFO] Scanning page 1/1..."
    assert sorted(told[1:]) == sorted(
        f"[INFO] Caching {what} of photo {digest_of(photo)}..." for photo in box.photostream.photos
    )


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_lower_debug_level_shows_no_progress(box, mirror, level):
    run = mirror(box, "--image-only", "--debug", str(level))
    assert run.returncode == 0
    assert run.stderr == ""


def test_the_last_line_sums_up_what_was_done(box, mirror):
    last = mirror(box, "--info-level", "2").stdout.splitlines()[-1]
    assert "sandbox" in last
    assert "3 new images" in last
    assert "3 new information files" in last
    assert "3 photos" in last
    assert f"{box.api_calls} API calls" in last
    assert "0 new images" in mirror(box, "--info-level", "2").stdout.splitlines()[-1]


def test_key_and_secret_are_in_no_output_and_no_file_at_the_highest_debug_level(
    box, mirror, cache_path
):
    box.faults.script("findByUsername", "reset")
    run = mirror(box, "--debug", "4", "--info-level", "2")
    assert run.returncode == 0
    assert "DEBUG" in run.stderr
    written = b"".join(path.read_bytes() for path in cache_path.rglob("*") if path.is_file())
    for secret in (KEY, SECRET):
        assert secret not in run.stdout + run.stderr
        assert secret.encode() not in written


def test_key_and_secret_are_in_no_complaint(sandbox, mirror):
    box = sandbox(Photostream.generated(1), api_keys=["another"])
    run = mirror(box, "--debug", "4")
    assert run.returncode == 1
    assert "Invalid API Key" in run.stderr
    assert KEY not in run.stdout + run.stderr
    assert SECRET not in run.stdout + run.stderr


def test_an_unknown_user_is_one_line_and_status_1(box, mirror, cache_path):
    run = mirror(box, username="Elena Shumilova")
    assert_one_line(run, "User not found", "Elena Shumilova")
    assert list(files_in(cache_path)) == []


def test_a_cache_path_that_is_a_file_is_one_line_that_names_it(box, mirror, cache_path):
    cache_path.write_text("I was here first.")
    assert_one_line(mirror(box), cache_path)
    assert cache_path.read_text() == "I was here first."


def test_photos_that_could_not_be_mirrored_are_named_and_the_status_is_1(box, mirror):
    gone = box.photostream.photos[1]
    gone.gone = True
    run = mirror(box, "--image-only")
    assert run.returncode == 1
    troubles = [line for line in run.stderr.splitlines() if "[INFO]" not in line]
    assert troubles
    assert all(gone.id in line for line in troubles)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_ends_with_status_130_and_can_go_on(
    sandbox, mirror, program, cache_path, number
):
    box = sandbox(Photostream.generated(40), image_delay=0.3)
    with program(box, "--image-only") as process:
        wait_until(lambda: box.images > 0)
        interrupted(process, number)
    done = len(list(files_in(cache_path)))
    assert done < 40
    box.image_delay = 0.0
    box.reset_counts()
    assert mirror(box, "--image-only").returncode == 0
    assert len(list(files_in(cache_path))) == 40
    assert box.images == 40 - done


@pytest.fixture
def hanging(sandbox, program):
    """A sandbox all of whose images hang, and the program while it waits for eight of them."""
    box = sandbox(Photostream.generated(8, image_bytes=200_000))
    box.faults.always("/img/", "stall")
    with program(box, "--image-only") as process:
        wait_until(lambda: box.images == 8)
        time.sleep(0.3)  # until every download has begun to hang
        yield box, process


def test_an_interrupt_does_not_wait_for_downloads_that_hang(hanging, cache_path):
    _, process = hanging
    begun = time.monotonic()
    interrupted(process)
    assert time.monotonic() - begun < 5
    assert list(cache_path.rglob("*.jpg")) == []


def test_half_files_of_an_interrupted_run_are_gone_after_the_next(hanging, mirror, cache_path):
    box, process = hanging
    interrupted(process)
    box.faults.clear()
    assert mirror(box, "--image-only").returncode == 0
    left = [path.name for path in cache_path.rglob("*") if path.is_file()]
    assert sorted(name for name in left if not name.startswith(".mirror_flickr")) == sorted(
        f"{digest_of(photo)}.jpg" for photo in box.photostream.photos
    )


# ------------------------------------------------------------------------------- the keys


class Terminal:
    """The program on a terminal of its own: what it shows, and a keyboard.

    :ivar shown: Everything that the terminal has shown.
    """

    def __init__(self, box, *command):
        self.shown = ""
        self._ours, theirs = pty.openpty()
        self.program = subprocess.Popen(
            [sys.executable, "-m", "flickr", *map(str, command)],
            env=program_environment(box),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=self._take_the_terminal,
        )
        os.close(theirs)

    @staticmethod
    def _take_the_terminal():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        # Tests that run in the background may have been started deaf to Ctrl-C.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def read_until(self, text):
        """Read on until the terminal shows a text; AssertionError if the program ends before."""
        limit = time.monotonic() + 20
        while text not in self.shown:
            assert self._read(limit - time.monotonic()), f"no {text!r} in {self.shown!r}"

    def answer(self, prompt, text):
        """Type a text once the terminal shows the prompt."""
        self.read_until(prompt)
        os.write(self._ours, text.encode())

    def end(self):
        """Read what is left and return the exit status."""
        limit = time.monotonic() + 20
        while self._read(limit - time.monotonic()):
            pass
        return self.program.wait(timeout=5)

    def close(self):
        os.close(self._ours)
        if self.program.poll() is None:
            self.program.kill()
        self.program.wait(timeout=5)

    def _read(self, seconds):
        if not select.select([self._ours], [], [], max(0.0, seconds))[0]:
            return False
        try:
            piece = os.read(self._ours, 4096)
        except OSError:  # the program has closed its side
            return False
        self.shown += piece.decode("utf-8", "replace")
        return bool(piece)


@pytest.fixture
def terminal(cache_path):
    """Run the program on a terminal: `terminal(box, "--fifo")`."""
    with contextlib.ExitStack() as running:

        def start(box, *options):
            command = ["--username", box.photostream.username, "--cache-path", cache_path, *options]
            return running.enter_context(contextlib.closing(Terminal(box, *command)))

        yield start


def saved_keys(cache_path):
    return json.loads((cache_path / "flickr_keys").read_text())


def keys_sent(box):
    return {request.params["api_key"] for request in box.requests if request.kind == "api"}


def test_the_prompts_are_the_specifications_and_what_is_typed_is_not_echoed(empty, terminal):
    screen = terminal(empty)
    screen.answer(KEY_PROMPT, f"{KEY}\n")
    screen.answer(SECRET_PROMPT, f"{SECRET}\n")
    assert screen.end() == 0
    assert keys_sent(empty) == {KEY}
    assert KEY not in screen.shown
    assert SECRET not in screen.shown


def test_only_the_missing_secret_is_asked_for(empty, terminal, cache_path):
    screen = terminal(empty, "--consumer-key", KEY, "--save-api-keys")
    screen.answer(SECRET_PROMPT, f"{SECRET}\n")
    assert screen.end() == 0
    assert KEY_PROMPT not in screen.shown
    assert saved_keys(cache_path) == KEYS


def test_only_the_missing_key_is_asked_for(empty, terminal, cache_path):
    save_keys(cache_path, consumer_secret=SECRET)
    screen = terminal(empty, "--save-api-keys")
    screen.answer(KEY_PROMPT, f"{KEY}\n")
    assert screen.end() == 0
    assert SECRET_PROMPT not in screen.shown
    assert keys_sent(empty) == {KEY}
    assert saved_keys(cache_path) == KEYS


def test_keys_that_were_typed_are_not_saved_unless_asked(empty, terminal, cache_path):
    screen = terminal(empty)
    screen.answer(KEY_PROMPT, f"{KEY}\n")
    screen.answer(SECRET_PROMPT, f"{SECRET}\n")
    assert screen.end() == 0
    assert not (cache_path / "flickr_keys").exists()


@pytest.mark.parametrize("typed", ["\n", "\x04"], ids=["empty", "Ctrl-D"])
def test_an_empty_answer_and_the_end_of_input_at_the_prompt_are_one_line_and_status_2(
    empty, terminal, typed
):
    screen = terminal(empty)
    screen.answer(KEY_PROMPT, typed)
    assert screen.end() == 2
    assert "Traceback" not in screen.shown
    assert screen.shown.rpartition(KEY_PROMPT)[2].strip().count("\n") == 0
    assert empty.requests == []


def test_an_interrupt_at_the_prompt_ends_with_status_130(empty, terminal):
    screen = terminal(empty)
    screen.answer(KEY_PROMPT, "\x03")  # Ctrl-C
    assert screen.end() == 130
    assert "Traceback" not in screen.shown


def test_keys_come_from_the_file_where_no_option_gives_them(empty, mirror, cache_path):
    save_keys(cache_path, consumer_key="key-of-the-file", consumer_secret="secret-of-the-file")
    assert mirror(empty, keys=()).returncode == 0
    assert keys_sent(empty) == {"key-of-the-file"}


def test_an_option_counts_more_than_the_file(empty, mirror, cache_path):
    save_keys(cache_path, consumer_key="key-of-the-file", consumer_secret="secret-of-the-file")
    assert mirror(empty, keys=("--consumer-key", KEY)).returncode == 0
    assert keys_sent(empty) == {KEY}


def test_key_and_secret_may_come_from_different_places(empty, mirror, cache_path):
    save_keys(cache_path, consumer_key=KEY)
    run = mirror(empty, "--save-api-keys", keys=("--consumer-secret", SECRET))
    assert run.returncode == 0, run.stderr
    assert saved_keys(cache_path) == KEYS


def test_the_keys_are_saved_as_json_for_the_next_run(empty, mirror, cache_path):
    assert mirror(empty, "--save-api-keys").returncode == 0
    assert saved_keys(cache_path) == KEYS
    empty.reset_counts()
    assert mirror(empty, keys=()).returncode == 0
    assert keys_sent(empty) == {KEY}


def test_keys_are_not_saved_unless_asked(empty, mirror, cache_path):
    mirror(empty)
    assert not (cache_path / "flickr_keys").exists()


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_saved_keys_are_for_their_user_only(empty, mirror, cache_path, umask):
    assert mirror(empty, "--save-api-keys", umask=umask).returncode == 0
    assert mode_of(cache_path / "flickr_keys") == 0o600


def test_saved_keys_that_others_could_read_are_replaced_by_some_that_they_can_not(
    empty, mirror, cache_path
):
    path = save_keys(cache_path, consumer_key="old", consumer_secret="old")
    path.chmod(0o644)
    reader = path.open()
    assert mirror(empty, "--save-api-keys", umask=0).returncode == 0
    assert mode_of(path) == 0o600
    assert saved_keys(cache_path) == KEYS
    with reader:  # who had the old file open does not see the new keys
        assert KEY not in reader.read()


WATCHED = """
import os, sys, threading, flickr
folder, found, looking = sys.argv[1], set(), threading.local()

def look(event, arguments):
    if getattr(looking, "now", False):
        return
    looking.now = True
    try:
        for entry in os.scandir(folder):
            if entry.is_file() and entry.stat().st_mode & 0o077:
                with open(entry.path, "rb") as file:
                    if b"SECRET" in file.read():
                        found.add(event)
    except OSError:
        pass
    finally:
        looking.now = False

sys.addaudithook(look)
status = flickr.main(sys.argv[2:])
print("readable at:", found)
sys.exit(status)
"""


@pytest.mark.parametrize("before", [None, 0o644])
def test_the_saved_keys_are_readable_by_others_at_no_moment(empty, cache_path, before):
    if before is not None:
        save_keys(cache_path, consumer_key="old", consumer_secret="old").chmod(before)
    watched = WATCHED.replace("SECRET", SECRET)
    options = ["--username", "sandbox", "--cache-path", cache_path, "--save-api-keys"]
    run = run_python("-c", watched, cache_path, *options, *KEY_ARGUMENTS, box=empty, umask=0)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "readable at: set()"


def test_without_a_terminal_and_without_keys_one_line_says_how_to_give_them(
    empty, mirror, cache_path
):
    run = mirror(empty, keys=())
    assert_one_line(run, "--consumer-key", "--consumer-secret", "--save-api-keys", status=2)
    assert empty.requests == []


def test_keys_are_not_read_from_a_pipe(empty, mirror):
    run = mirror(empty, keys=(), stdin=None, input=f"{KEY}\n{SECRET}\n")
    assert_one_line(run, status=2)
    assert KEY not in run.stderr


def test_with_its_input_closed_the_program_complains_the_same(empty, cache_path):
    command = [sys.executable, "-m", "flickr", "--username", "u", "--cache-path", str(cache_path)]
    run = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command],
        env=program_environment(empty),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert_one_line(run, "--consumer-key", status=2)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"consumer_key": 5, "consumer_secret": "s"}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
    ],
    ids=["cut", "list", "number", "binary", "deep"],
)
def test_a_damaged_file_of_keys_is_named_in_one_line(empty, cache_path, mirror, content):
    cache_path.mkdir()
    (cache_path / "flickr_keys").write_bytes(content)
    (cache_path / "flickr_keys").chmod(0o600)
    assert_one_line(mirror(empty, keys=()), cache_path / "flickr_keys", status=2)
    assert empty.requests == []


def test_a_damaged_file_of_keys_does_not_matter_where_both_keys_are_given(
    empty, cache_path, mirror
):
    cache_path.mkdir()
    (cache_path / "flickr_keys").write_bytes(b"{")
    assert mirror(empty, "--save-api-keys").returncode == 0
    assert saved_keys(cache_path) == KEYS


def test_a_users_folder_is_never_taken_for_the_file_of_keys(sandbox, mirror, cache_path):
    box = sandbox(Photostream.generated(1, username="flickr_keys"))
    assert mirror(box, "--image-only", "--save-api-keys").returncode == 0
    assert saved_keys(cache_path) == KEYS
