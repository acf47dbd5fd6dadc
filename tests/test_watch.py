"""Watching for new photos, and several users in one run (issue 6).

Texts are digits, which take no time to tell the language of.
"""

import logging
import signal
import time

import pytest
from conftest import (
    KEY_ARGUMENTS,
    HeldClock,
    assert_one_line,
    bytes_of,
    calls,
    digest_of,
    files_in,
    interrupted,
    run_python,
    wait_until,
)
from sandbox import Photostream, SandboxPhoto

import flickr

SMALL = {"title": "", "description": "", "comments": [], "width": 64, "height": 64}


def stream_of(count, username="sandbox", number=1):
    """A photostream of small photos, without words."""
    photos = [SandboxPhoto(str(number * 1_000_000 + each), **SMALL) for each in range(count)]
    return Photostream(username, f"{number}2345678@N01", photos)


def upload(stream, count=1, **fields):
    return stream.add(count, **(SMALL | fields))


def image_path(cache_path, photo, username="sandbox"):
    digest = digest_of(photo)
    return cache_path.joinpath(username, *digest[:4], f"{digest}.jpg")


@pytest.fixture
def told(caplog):
    """Return the log's messages of a level: `told(logging.ERROR)`."""
    caplog.set_level(logging.DEBUG, "flickr")
    return lambda level: [each.getMessage() for each in caplog.records if each.levelno == level]


# ------------------------------------------------------------------------ watch: the option


def arguments(*options):
    return flickr.get_arguments(["--username", "manhhai", *options])


def test_without_the_option_nothing_is_watched():
    assert arguments().watch is None


def test_a_watch_looks_every_300_seconds_unless_said_otherwise():
    assert arguments("--watch").watch == 300
    assert arguments("--watch", "--quiet").watch == 300


@pytest.mark.parametrize("seconds", [1, 60, 86_400])
def test_a_watch_looks_as_often_as_told(seconds):
    assert arguments("--watch", str(seconds)).watch == seconds


@pytest.mark.parametrize("seconds", ["0", "-5", "soon", "0.5", ""])
def test_a_watch_of_less_than_a_second_is_refused_in_one_line(seconds, refusal):
    complaint = refusal("--username", "manhhai", "--watch", seconds)
    assert "--watch" in complaint and "1 or more" in complaint


# ---------------------------------------------------------------------- watch: the program


def test_a_new_photo_appears_in_the_mirror_by_itself(sandbox, program, cache_path):
    box = sandbox(stream_of(3))
    with program(box, "--watch", 1) as process:
        assert "3 new images" in process.stdout.readline()
        for _ in range(2):
            [new] = upload(box.photostream)
            wait_until(image_path(cache_path, new).is_file)
            assert image_path(cache_path, new).read_bytes() == bytes_of(new)
            assert "1 new image and 1 new information file" in process.stdout.readline()


def test_looks_that_find_nothing_say_nothing_and_cost_one_call_each(sandbox, program):
    box = sandbox(stream_of(3))
    with program(box, "--watch", 1) as process:
        process.stdout.readline()
        box.reset_counts()
        wait_until(lambda: box.api_calls >= 2)
        stdout, _ = interrupted(process)
    assert set(calls(box)) == {"getPhotos"}
    assert box.images == 0
    starts = [request.started for request in box.requests]
    assert starts[1] - starts[0] > 0.9
    assert len(stdout.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_watch_ends_at_once_with_status_130_and_a_last_line(
    sandbox, program, number
):
    box = sandbox(stream_of(3))
    with program(box, "--watch") as process:
        assert "3 new images" in process.stdout.readline()
        begun = time.monotonic()
        interrupted(process, number)
        assert time.monotonic() - begun < 5
    assert box.api_calls == 2


def test_a_watch_says_that_it_goes_on_looking(sandbox, program):
    with program(sandbox(stream_of(1)), "--watch") as process:
        process.stdout.readline()
        _, stderr = interrupted(process)
    assert "Looking for new photos every 5 min from now on" in stderr


def test_a_look_that_fails_is_logged_and_tried_again(sandbox, program, cache_path):
    box = sandbox(stream_of(3))
    with program(box, "--watch", 1) as process:
        process.stdout.readline()
        box.faults.script("getPhotos", "404")
        [new] = upload(box.photostream)
        wait_until(image_path(cache_path, new).is_file)
        _, stderr = interrupted(process)
    [error] = [line for line in stderr.splitlines() if "[ERROR]" in line]
    assert "sandbox: the look for new photos failed: Flickr's API answers HTTP 404" in error


def test_a_mirror_that_fails_at_first_is_made_up_for_by_the_watch(sandbox, program, cache_path):
    box = sandbox(stream_of(3))
    box.faults.script("getPhotos", "404")
    with program(box, "--watch", 1) as process:
        assert "3 new images" in process.stdout.readline()
    assert len(list(files_in(cache_path))) == 6


def test_several_users_are_watched_in_turn(sandbox, program, cache_path):
    one, other = stream_of(2, "one", 1), stream_of(2, "other", 2)
    box = sandbox(one, other)
    with program(box, "--watch", 1, "--username", "other") as process:
        assert process.stdout.readline().startswith("one: 2 new images")
        assert process.stdout.readline().startswith("other: 2 new images")
        box.reset_counts()
        [new] = upload(other)
        wait_until(image_path(cache_path, new, "other").is_file)
        assert process.stdout.readline().startswith("other: 1 new image")
        wait_until(lambda: box.api_calls >= 4)
        interrupted(process)
    asked = [request.params["user_id"] for request in box.requests if request.kind == "api"]
    assert asked[:4] == [one.nsid, other.nsid, one.nsid, other.nsid]
    assert set(calls(box)) == {"getPhotos"}


def test_a_failed_look_at_one_user_does_not_keep_from_the_next(sandbox, program, cache_path):
    one, other = stream_of(2, "one", 1), stream_of(2, "other", 2)
    box = sandbox(one, other)
    with program(box, "--watch", 1, "--username", "other") as process:
        process.stdout.readline()
        process.stdout.readline()
        box.faults.always(f"user_id={one.nsid}", "404")
        [new] = upload(other)
        wait_until(image_path(cache_path, new, "other").is_file)
        _, stderr = interrupted(process)
    assert "one: the look for new photos failed" in stderr
    assert "other: the look" not in stderr


# ---------------------------------------------------------------------- watch: the library


def test_a_watch_gives_the_result_of_each_look(sandbox, agent, cache_path):
    box = sandbox(stream_of(3))
    watcher = agent(box, clock=HeldClock())
    watcher.run()
    box.reset_counts()
    looks = watcher.watch(60)
    assert next(looks).images == 0
    new = upload(box.photostream, 2)
    assert next(looks).images == 2
    assert next(looks).images == 0
    assert calls(box) == {"getPhotos": 3}
    for photo in new:
        assert image_path(cache_path, photo).read_bytes() == bytes_of(photo)


def test_a_watch_waits_before_each_look(sandbox, agent, clock):
    watcher = agent(sandbox(stream_of(3)), clock=clock)
    watcher.run()
    looks = watcher.watch(60)
    next(looks)
    next(looks)
    assert clock.sleeps == [60, 60]


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_look_costs_one_call_at_every_level(sandbox, agent, level):
    box = sandbox(stream_of(3))
    for photo in box.photostream.photos:
        photo.comments = ["1"]
    watcher = agent(box, info_level=level, clock=HeldClock())
    watcher.run()
    box.reset_counts()
    next(watcher.watch(60))
    assert calls(box) == {"getPhotos": 1}


@pytest.mark.parametrize("option", ["verify_image", "refresh"])
def test_what_goes_through_all_photos_does_so_once(sandbox, agent, option):
    box = sandbox(stream_of(5))
    watcher = agent(box, per_page=2, clock=HeldClock(), **{option: True})
    watcher.run()
    box.reset_counts()
    next(watcher.watch(60))
    assert calls(box) == {"getPhotos": 1}


def test_a_watch_gives_nothing_for_a_look_that_failed_and_goes_on(sandbox, agent, told, clock):
    box = sandbox(stream_of(3))
    watcher = agent(box, clock=clock)
    watcher.run()
    [new] = upload(box.photostream)
    box.faults.script("getPhotos", "404", "404")
    assert next(watcher.watch(60)).images == 1
    assert clock.sleeps == [60, 60, 60]
    assert len(told(logging.ERROR)) == 2


def test_a_watch_outlasts_a_flickr_that_is_down_for_long(sandbox, agent, told):
    box = sandbox(stream_of(3))

    class Noon(HeldClock):
        """Flickr comes back while the fourth look is waited for."""

        def sleep(self, seconds):
            super().sleep(seconds)
            if self.sleeps.count(60) == 4 and seconds == 60:
                box.start()

    watcher = agent(box, clock=Noon())
    watcher.run()
    upload(box.photostream)
    box.stop()
    assert next(watcher.watch(60)).images == 1
    assert len(told(logging.ERROR)) == 3


def test_an_image_that_fails_in_one_look_is_fetched_by_the_next(sandbox, agent, cache_path):
    box = sandbox(stream_of(3))
    watcher = agent(box, clock=HeldClock())
    watcher.run()
    [new] = upload(box.photostream)
    box.faults.always(f"/{new.id}_", "500")
    looks = watcher.watch(60)
    assert list(next(looks).failed) == [new.id]
    box.faults.clear()
    result = next(looks)
    assert (result.images, result.complete) == (1, True)
    assert image_path(cache_path, new).read_bytes() == bytes_of(new)


def test_a_stopped_watch_ends_and_may_go_on_later(sandbox, agent):
    box = sandbox(stream_of(3))
    watcher = agent(box)
    watcher.run()
    watcher.stop()
    begun = time.monotonic()
    with pytest.raises(flickr.Stopped):
        next(watcher.watch(300))
    assert time.monotonic() - begun < 5


# --------------------------------------------------------------------------- several users


@pytest.fixture
def three(sandbox):
    """A sandbox of three users: one, two and three, with as many photos."""
    names = ("one", "two", "three")
    return sandbox(*[stream_of(each, names[each - 1], each) for each in (1, 2, 3)])


def images_in(cache_path, username):
    return len([path for path in files_in(cache_path / username) if path.suffix == ".jpg"])


def assert_all_mirrored(box, cache_path):
    for stream in box.photostreams:
        for photo in stream.photos:
            path = image_path(cache_path, photo, stream.username)
            assert path.read_bytes() == bytes_of(photo)


def test_several_users_are_mirrored_in_the_order_given(three, mirror, cache_path):
    run = mirror(three, "--username", "three", "--username", "two")
    assert run.returncode == 0
    lines = run.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["one", "three", "two"]
    assert_all_mirrored(three, cache_path)


def test_users_are_mirrored_one_after_another(three, mirror):
    mirror(three, "--username", "two", "--username", "three")
    users = [each.params["user_id"] for each in three.requests if "getPhotos" in each.method]
    assert users == [stream.nsid for stream in three.photostreams]


def test_a_file_of_usernames_is_read_without_its_blank_lines(three, mirror, cache_path, tmp_path):
    path = tmp_path / "users.txt"
    path.write_text("\n  two\n\n\t\nthree  \n\n", "utf-8")
    run = mirror(three, "--username-file", path)
    assert run.returncode == 0
    assert [line.partition(":")[0] for line in run.stdout.splitlines()] == ["one", "two", "three"]
    assert_all_mirrored(three, cache_path)


@pytest.mark.parametrize(
    "content", [b"two\r\nthree", b"two\nthree", b"\xef\xbb\xbftwo\r\nthree\r\n"]
)
def test_a_file_of_usernames_is_understood_whatever_editor_wrote_it(tmp_path, content):
    path = tmp_path / "users.txt"
    path.write_bytes(content)
    assert flickr.get_arguments(["--username-file", str(path)]).usernames == ["two", "three"]


def test_a_username_of_any_script_may_stand_in_the_file(tmp_path):
    path = tmp_path / "users.txt"
    path.write_text("Bảo tàng\nmuseum of ☃\n", "utf-8")
    usernames = flickr.get_arguments(["--username-file", str(path)]).usernames
    assert usernames == ["Bảo tàng", "museum of ☃"]


def test_a_user_who_is_named_twice_is_mirrored_once(three, mirror, tmp_path):
    path = tmp_path / "users.txt"
    path.write_text("one\ntwo\ntwo\n", "utf-8")
    run = mirror(three, "--username", "two", "--username-file", path)
    assert [line.partition(":")[0] for line in run.stdout.splitlines()] == ["one", "two"]


def test_one_users_failure_does_not_stop_the_next(three, mirror, cache_path):
    run = mirror(three, "--username", "three", username="nobody")
    assert run.returncode == 1
    assert "error: nobody: Flickr refuses: User not found" in run.stderr
    assert images_in(cache_path, "three") == 3


def test_the_exit_status_is_that_of_the_failure_wherever_it_is(three, mirror, cache_path):
    assert mirror(three, "--username", "nobody", "--username", "two").returncode == 1
    assert images_in(cache_path, "one") == 1
    assert images_in(cache_path, "two") == 2


def test_the_exit_status_is_the_worst(three, mirror, cache_path):
    assert mirror(three, "--cache-directory-depth", 2).returncode == 0
    run = mirror(three, "--username", "nobody", "--username", "three")
    assert run.returncode == 2
    assert "--cache-directory-depth 2" in run.stderr
    assert images_in(cache_path, "three") == 3


def test_photos_that_failed_of_one_user_show_in_the_exit_status(three, mirror, cache_path):
    three.photostreams[0].photos[0].gone = True
    run = mirror(three, "--username", "two")
    assert run.returncode == 1
    assert "1 unavailable" in run.stdout.splitlines()[0]
    assert "nothing failed" in run.stdout.splitlines()[1]


def test_several_users_share_one_connection_to_the_api(three, mirror):
    run = mirror(three, "--username", "two", "--username", "three", "--info-only", "--jobs", 1)
    assert run.returncode == 0
    assert three.api_calls == 6
    assert three.connections == 1


def test_several_users_share_the_budget_of_api_calls(three, agent, clock):
    first = agent(three, username="one", calls_per_hour=3, clock=clock)
    first.run()
    assert clock.now() < 60
    agent(three, username="two", share_with=first).run()
    # The fourth call had to wait for the first to be an hour ago.
    assert 3600 <= clock.now() < 3700
    assert three.api_calls == 4


def test_what_each_user_cost_is_counted_by_itself(three, agent):
    first = agent(three, username="one", clock=HeldClock())
    second = agent(three, username="two", share_with=first)
    assert [first.run().calls, second.run().calls] == [2, 2]


def test_an_agent_that_shares_has_a_folder_and_options_of_its_own(three, agent, cache_path):
    first = agent(three, username="one", clock=HeldClock(), image_only=True)
    first.run()
    agent(three, username="two", share_with=first, info_only=True).run()
    assert {path.suffix for path in files_in(cache_path / "one")} == {".jpg"}
    assert {path.suffix for path in files_in(cache_path / "two")} == {".json"}


def test_to_stop_one_agent_that_shares_is_to_stop_its_run(three, agent):
    first = agent(three, username="one", clock=HeldClock())
    first.run()
    second = agent(three, username="three", share_with=first, jobs=1)
    three.on_request = lambda request: request.kind == "image" and second.stop()
    with pytest.raises(flickr.Stopped):
        second.run()
    three.on_request = None
    assert first.run().complete
    assert second.run().complete


def test_an_interrupt_ends_the_run_for_all_users(sandbox, program, cache_path):
    box = sandbox(stream_of(40, "one", 1), stream_of(2, "two", 2), image_delay=0.3)
    with program(box, "--jobs", 2, "--username", "two") as process:
        wait_until(lambda: box.images > 0)
        interrupted(process)
    assert not (cache_path / "two").exists()


@pytest.mark.parametrize("content", ["", "\n \n\t\n"])
def test_a_file_without_usernames_is_one_line_and_status_2(tmp_path, content):
    path = tmp_path / "users.txt"
    path.write_text(content)
    run = run_python("-m", "flickr", "--username-file", path, *KEY_ARGUMENTS)
    assert_one_line(run, "--username", status=2)


@pytest.mark.parametrize("kind", ["missing", "a folder", "not UTF-8"])
def test_a_file_of_usernames_that_cannot_be_read_is_one_line_and_status_2(tmp_path, kind):
    path = tmp_path / "users.txt"
    if kind == "a folder":
        path.mkdir()
    elif kind == "not UTF-8":
        path.write_bytes("Zoë\n".encode("latin-1"))
    run = run_python("-m", "flickr", "--username-file", path, *KEY_ARGUMENTS)
    assert_one_line(run, path, status=2)
