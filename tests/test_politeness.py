"""Pacing, pauses, second attempts, order, interruption and the terminal (issue 4)."""

import contextlib
import fcntl
import itertools
import json
import logging
import os
import pty
import random
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest
from conftest import (
    KEY,
    KEY_ARGUMENTS,
    SECRET,
    HeldClock,
    files_in,
    program_environment,
    wait_until,
)
from hypothesis import example, given
from hypothesis import strategies as st
from sandbox import DESCRIPTIONS, FAULT_KINDS, Photostream, sizes_of

import flickr
from flickr import (
    CachingStrategy,
    CallBudget,
    FlickrApi,
    FlickrError,
    FlickrUnavailable,
    PassingTrouble,
    Service,
    Web,
    back_off_delay,
    pause_length,
    retry_after_seconds,
)

CHANCES = st.floats(0, 1)
DATE = 1_445_412_480  # Wed, 21 Oct 2015 07:28:00 GMT

# What Flickr and its servers get over by themselves.
PASSING = [
    kind for kind in FAULT_KINDS
    if kind in ("500", "502", "503", "105", "106", "201", "0", "html", "empty", "cut", "reset")
]  # fmt: skip


class QuickClock(flickr.Clock):
    """A clock some times as fast as others, for what depends on who waits for whom.

    Under a held clock nobody really waits, and so nobody can be seen not to.
    """

    def __init__(self, speed):
        super().__init__()
        self.speed = speed
        self._start = time.monotonic()

    def at(self, monotonic):
        return (monotonic - self._start) * self.speed

    def now(self):
        return self.at(time.monotonic())

    def date(self):
        return DATE + self.now()

    def sleep(self, seconds):
        super().sleep(seconds / self.speed)


def image_requests(box):
    return [request for request in box.requests if request.kind == "image"]


def photo_of(request):
    """The id of the photo that an image request is for."""
    return request.path.rpartition("/")[2].split("_")[0]


def attempts(box, where):
    """How often the sandbox was asked for what contains this."""
    return sum(where in request.identity for request in box.requests)


def most_at_a_time(requests):
    """The largest number of these requests that were in flight together."""
    steps = [(request.started, 1) for request in requests]
    steps += [(request.finished, -1) for request in requests]
    return max(itertools.accumulate(step for _, step in sorted(steps)), default=0)


def lines_about(caplog, what):
    return [record for record in caplog.records if what in record.getMessage()]


@pytest.fixture(autouse=True)
def all_logged(caplog):
    caplog.set_level(logging.INFO, logger="flickr")


# -------------------------------------------------------------------------------- the budget


@st.composite
def rates_and_arrivals(draw):
    """A limit, and the gaps between the moments at which a call is wanted, to an eighth second."""
    gaps = st.one_of(st.just(0), st.integers(0, 80), st.integers(0, 40_000))
    return draw(st.integers(1, 12)), [gap / 8 for gap in draw(st.lists(gaps, max_size=60))]


def calls_made(limit, gaps):
    """When each call was wanted, and when it was made, by a caller who waits as told."""
    budget = CallBudget(limit)
    now = 0.0
    calls = []
    for gap in gaps:
        now += gap
        wanted = now
        now += budget.wait(now)
        assert budget.wait(now) == 0, "after the wait the call may be made"
        budget.spend(now)
        calls.append((wanted, now))
    return calls


@given(rates_and_arrivals())
@example((1, [0.0, 0.0]))
@example((3, [0.0] * 10))
def test_no_hour_ever_has_more_calls_than_the_limit(plan):
    limit, gaps = plan
    made = [call for _, call in calls_made(limit, gaps)]
    for first in made:
        assert sum(first <= call < first + 3600 for call in made) <= limit


@given(rates_and_arrivals())
@example((2, [0.0, 0.0, 3600.0]))
def test_no_call_waits_that_the_limit_would_let_through(plan):
    limit, gaps = plan
    calls = calls_made(limit, gaps)
    for number, (wanted, made) in enumerate(calls):
        if made > wanted:
            before = [call for _, call in calls[:number]]
            earlier = made - 0.125
            assert sum(earlier - 3600 < call <= earlier for call in before) == limit


@given(rates_and_arrivals())
def test_asking_for_the_wait_costs_nothing(plan):
    limit, gaps = plan
    budget = CallBudget(limit)
    for now in itertools.accumulate(gaps):
        assert budget.wait(now) == 0


@given(rates_and_arrivals(), st.integers(1, 10), st.floats(0, 120))
def test_the_limit_holds_across_runs_of_the_program(plan, calls_a_run, boot):
    limit, gaps = plan
    date, made, spent = DATE + boot, [], {}
    for number, gap in enumerate(gaps):
        if number % calls_a_run == 0:  # a new run; its clock starts anywhere
            now = started = boot * number
            budget = CallBudget(limit)
            budget.recall(spent, now, date)
        wait = gap + budget.wait(now + gap)
        now, date = now + wait, date + wait
        budget.spend(now)
        made.append(date)
        if (number + 1) % calls_a_run == 0:
            for minute, calls in budget.spent(started, now, date).items():
                spent[minute] = spent.get(minute, 0) + calls
    for first in made:
        # Whole minutes are kept, and floating-point numbers are what they are.
        assert sum(first <= call < first + 3599.999 for call in made) <= limit


def test_calls_of_long_ago_or_to_come_do_not_count():
    budget = CallBudget(3)
    minute = DATE // 60
    budget.recall({minute - 61: 3, minute + 1: 3, 7: 3, 10**17: 3}, 5.0, DATE)
    assert budget.wait(5.0) == 0
    budget.recall({minute - 1: 10**18}, 5.0, DATE)
    assert 3480 <= budget.wait(5.0) <= 3600


def test_the_budget_is_flickrs_unless_said_otherwise():
    budget = CallBudget()
    for _ in range(3600):
        assert budget.wait(10.0) == 0
        budget.spend(10.0)
    assert budget.wait(10.0) == 3600
    assert budget.wait(3609.0) == 1
    assert budget.wait(3610.0) == 0


# -------------------------------------------------------------------- lengths of waits, purely


@given(st.integers(1, 5), CHANCES)
def test_back_off_doubles_and_spreads_by_a_quarter(failures, chance):
    middle = 0.5 * 2 ** (failures - 1)
    assert 0.75 * middle <= back_off_delay(failures, chance) <= 1.25 * middle


@given(st.integers(1, 4), CHANCES, CHANCES)
def test_back_off_grows_whatever_the_chance(failures, chance, another):
    assert back_off_delay(failures + 1, another) > back_off_delay(failures, chance)


def test_chance_spreads_back_off_and_pauses():
    assert len({back_off_delay(2, chance / 10) for chance in range(11)}) == 11
    assert len({pause_length(None, 1, chance / 10) for chance in range(11)}) == 11


@given(st.floats(1, 1e6), st.integers(0, 50), CHANCES)
def test_a_pause_is_as_long_as_asked_for(seconds, pauses, chance):
    assert pause_length(seconds, pauses, chance) == seconds


@given(st.floats(0, 1), st.integers(0, 50), CHANCES)
def test_a_pause_asked_for_is_never_none_at_all(seconds, pauses, chance):
    assert pause_length(seconds, pauses, chance) == 1


@given(st.integers(0, 1000), CHANCES)
def test_a_pause_not_asked_for_has_bounds(pauses, chance):
    assert 5 <= pause_length(None, pauses, chance) <= 1.25 * 300


@given(st.integers(0, 4), CHANCES, CHANCES)
def test_pauses_not_asked_for_grow_whatever_the_chance(pauses, chance, another):
    assert pause_length(None, pauses + 1, another) > pause_length(None, pauses, chance)


@pytest.mark.parametrize("header, seconds", [("0", 0), ("1", 1), ("120", 120), (" 7 ", 7)])
def test_retry_after_may_be_seconds(header, seconds):
    assert retry_after_seconds(header, DATE) == seconds


@pytest.mark.parametrize(
    "header",
    [
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "Wednesday, 21-Oct-15 07:28:00 GMT",  # RFC 850: obsolete, but to be understood
    ],
)
def test_retry_after_may_be_a_date(header):
    assert retry_after_seconds(header, DATE - 90) == 90


@given(st.integers(0, 4_000_000_000), st.integers(0, 100_000))
def test_every_date_is_as_far_away_as_it_is(now, seconds):
    assert retry_after_seconds(formatdate(now + seconds, usegmt=True), now) == seconds


def test_a_date_that_has_passed_asks_for_no_time():
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT", DATE + 5) == 0


@pytest.mark.parametrize(
    "header", [None, "", "soon", "-5", "1.5", "1e3", "١٢", "99 Foo 2015", "1 2", "\0", "9" * 5000]
)
def test_rubbish_in_retry_after_is_as_none(header):
    assert retry_after_seconds(header, DATE) is None


@given(st.text(max_size=40))
def test_no_retry_after_is_an_error(header):
    seconds = retry_after_seconds(header, DATE)
    assert seconds is None or seconds >= 0


# ----------------------------------------------------------------------- pauses, over HTTP


def slow_until_refused(box, seconds):
    """Have what is in flight at the first refusal stay there; the refusal itself comes at once."""
    after = itertools.count()

    def see(request):
        is_after = any(each.fault for each in box.requests) and next(after) >= 4
        box.api_delay = box.image_delay = 0.0 if request.fault or is_after else seconds

    box.on_request = see


def sent_into_the_pause(requests, clock, seconds):
    """The requests that came after the first refusal, and before the pause was over."""
    refused = next(index for index, request in enumerate(requests) if request.fault == "429")
    end = clock.at(requests[refused].finished) + seconds
    return [each for each in requests[refused + 1 :] if clock.at(each.started) < end]


# Retry-After, how long that is on the test's clock, and how fast this clock goes.
PAUSES = [
    pytest.param({"retry_after": "30"}, 30, 25, id="seconds"),
    pytest.param({"retry_after": formatdate(DATE + 60, usegmt=True)}, None, 25, id="date"),
    pytest.param({}, 5, 4, id="not-said"),
]


@pytest.mark.parametrize("header, seconds, speed", PAUSES)
def test_a_refusal_from_the_image_server_pauses_all_image_requests(
    sandbox, agent, caplog, header, seconds, speed
):
    box = sandbox(Photostream.generated(24))
    clock = QuickClock(speed)
    slow_until_refused(box, 0.4)
    box.faults.script("/img/", *[None] * 5, ("429", header))
    result = agent(box, image_only=True, jobs=4, clock=clock).run()
    requests = image_requests(box)

    refusal = requests[5]
    length = seconds or 60 - clock.at(refusal.finished)
    assert length > 0.5 * speed, "the pause outlasts what is in flight"
    assert len(sent_into_the_pause(requests, clock, length)) <= 3, "those in flight already"
    assert result.complete and result.images == 24, "no photo is lost"
    assert attempts(box, photo_of(refusal)) == 2
    [line] = lines_about(caplog, "pausing")
    assert line.levelname == "WARNING"
    assert "image server" in line.getMessage()
    if seconds == 30:
        assert "30 s" in line.getMessage()


@pytest.mark.parametrize("header, seconds, speed", PAUSES)
def test_a_refusal_from_the_api_pauses_all_api_calls(sandbox, caplog, header, seconds, speed):
    stream = Photostream.generated(24)
    box = sandbox(stream)
    clock = QuickClock(speed)
    slow_until_refused(box, 0.4)
    box.faults.script("flickr.photos.getInfo", *[None] * 5, ("429", header))
    api = FlickrApi(KEY, SECRET, url=box.url, web=Web(clock))
    with ThreadPoolExecutor(4) as threads:
        ids = [photo.id for photo in stream.photos]
        descriptions = list(threads.map(api.get_photo_description, ids))

    length = seconds or 60 - clock.at(box.requests[5].finished)
    assert length > 0.5 * speed, "the pause outlasts what is in flight"
    assert len(sent_into_the_pause(box.requests, clock, length)) <= 3, "those in flight already"
    assert descriptions == [photo.description for photo in stream.photos], "no answer is lost"
    [line] = lines_about(caplog, "pausing")
    assert line.levelname == "WARNING"
    assert "API" in line.getMessage()


@pytest.mark.parametrize("header", [{}, {"retry_after": "10"}], ids=["not-said", "seconds"])
def test_refusals_of_what_was_in_flight_belong_to_the_same_pause(sandbox, agent, caplog, header):
    box = sandbox(Photostream.generated(12), image_delay=0.2)
    box.faults.script("/img/", *[("429", header)] * 4)
    clock = QuickClock(10)
    result = agent(box, image_only=True, jobs=4, clock=clock).run()
    assert result.complete
    assert len(lines_about(caplog, "pausing")) == 1
    assert [request.fault for request in image_requests(box)[:5]] == ["429"] * 4 + [None]


def test_a_503_with_retry_after_is_a_pause_too(sandbox, agent, caplog):
    box = sandbox(Photostream.generated(2))
    box.faults.script("/img/", ("503", {"retry_after": "40"}))
    clock = HeldClock()
    assert agent(box, image_only=True, jobs=1, clock=clock).run().complete
    assert clock.sleeps == [40]
    assert "40 s" in lines_about(caplog, "pausing")[0].getMessage()


def test_a_pause_of_the_api_does_not_hold_up_the_images(sandbox, agent):
    box = sandbox(Photostream.generated(40), image_delay=0.05)
    clock = QuickClock(20)
    box.faults.script("&page=2&", ("429", {"retry_after": "30"}))
    result = agent(box, image_only=True, jobs=2, per_page=20, clock=clock).run()
    refused, asked_again = (each for each in box.requests if "&page=2&" in each.identity)
    during = [
        each
        for each in image_requests(box)
        if refused.finished < each.started < asked_again.started
    ]
    assert result.complete
    assert clock.at(asked_again.started) >= clock.at(refused.finished) + 30
    assert len(during) >= 10


def test_fewer_images_are_fetched_at_a_time_after_a_pause_and_as_many_again_later(sandbox, agent):
    box = sandbox(Photostream.generated(220), image_delay=0.04)
    box.faults.script("/img/", *[None] * 30, ("429", {"retry_after": "5"}))
    assert agent(box, image_only=True, jobs=8, clock=QuickClock(10)).run().complete
    requests = image_requests(box)
    refusal = requests[30]
    before = requests[:31]
    # Those in flight are over when the pause, of half a second, is.
    after = [each for each in requests if each.started > refusal.finished + 0.45]
    assert most_at_a_time(before) == 8
    assert 1 < most_at_a_time(after[:15]) <= 4
    assert most_at_a_time(after[-40:]) == 8


@pytest.mark.parametrize("header", [{}, {"retry_after": "1"}, {"retry_after": "0"}])
def test_a_photo_is_given_up_after_a_minute_of_pauses_at_the_earliest(sandbox, agent, header):
    stream = Photostream.generated(3)
    box = sandbox(stream)
    clock = HeldClock()
    refused = stream.photos[1]
    box.faults.always(refused.id, ("429", header))
    result = agent(box, image_only=True, jobs=1, clock=clock).run()
    assert sum(clock.sleeps) >= 60
    assert list(result.failed) == [refused.id]
    assert result.images == 2, "the others are mirrored"


def test_pauses_without_word_of_their_length_grow(sandbox):
    box = sandbox(Photostream.generated(1))
    clock = HeldClock()
    box.faults.always("findByUsername", "429")
    api = FlickrApi(KEY, SECRET, url=box.url, web=Web(clock), chance=lambda: 0.0)
    with pytest.raises(FlickrUnavailable):
        api.find_user("sandbox")
    assert clock.sleeps == [5.0 * 2**number for number in range(len(clock.sleeps))]
    assert sum(clock.sleeps) >= 60
    assert box.api_calls == len(clock.sleeps) + 1


def test_an_answer_to_what_was_sent_before_a_pause_does_not_shorten_the_next():
    clock = HeldClock()
    service = Service("The server", clock, chance=lambda: 0.0)
    refused, may_end = threading.Event(), threading.Event()

    def slow_one():
        refused.wait(10)

    with ThreadPoolExecutor() as threads:
        slow = threads.submit(service.ask, slow_one)
        refusals = iter([None, slow.result, may_end.set])

        def refused_twice():
            meanwhile = next(refusals)
            if meanwhile is not None:
                refused.set()
                meanwhile()
            if not may_end.is_set():
                raise flickr.TooManyRequests(None)

        service.ask(refused_twice)
    assert clock.sleeps == [5.0, 10.0]


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_server_that_refuses_everything_ends_the_run_within_hours(
    sandbox, agent, cache_path, jobs
):
    box = sandbox(Photostream.generated(60))
    box.faults.script("/img/", *[None] * 10)
    box.faults.always("/img/", "429")
    clock = QuickClock(1500)
    mirroring = agent(box, jobs=jobs, clock=clock)
    with pytest.raises(flickr.FlickrThrottled, match="again in some hours"):
        mirroring.run()
    assert 30 * 60 < clock.now() < 3 * 3600
    assert mirroring.result.images == 10, "those of before"
    assert len(mirroring.result.failed) < 20

    box.faults.clear()
    box.reset_counts()
    assert agent(box, jobs=jobs, clock=HeldClock()).run().complete
    assert box.images == 50, "the others are made up for by the next run"


def test_refusals_of_single_photos_do_not_end_the_run(sandbox, agent):
    stream = Photostream.generated(20)
    box = sandbox(stream)
    for photo in stream.photos[::2]:
        box.faults.always(f"/{photo.id}_", "429")
    result = agent(box, image_only=True, jobs=1, clock=HeldClock()).run()
    assert len(result.failed) == 10 and result.images == 10


# ------------------------------------------------------------------- the rate of API calls


def test_calls_never_exceed_the_rate_and_the_wait_is_announced_once(sandbox, agent, caplog):
    box = sandbox(Photostream.generated(30), plain=True)  # a call for each photo's sizes
    clock = HeldClock()
    made = []
    box.on_request = lambda request: made.append(clock.now()) if request.kind == "api" else None
    result = agent(box, image_only=True, jobs=1, calls_per_hour=15, clock=clock).run()
    assert result.complete
    assert made == [0.0] * 15 + [3600.0] * 15 + [7200.0] * 2
    lines = [line.getMessage() for line in lines_about(caplog, "an hour")]
    assert len(lines) == 2, "one for each wait"
    ends = [time.strftime("%H:%M", time.localtime(clock._date + wait)) for wait in (3600, 7200)]
    for line, end in zip(lines, ends, strict=True):
        assert "15 calls an hour" in line and "60 min" in line and end in line


def test_the_short_waits_that_follow_a_long_one_are_not_announced(sandbox, agent, caplog):
    box = sandbox(Photostream.generated(26), plain=True)
    clock = HeldClock()
    made = []

    def take_two_seconds_in_the_first_hour(request):
        if request.kind == "api":
            made.append(clock.now())
            if len(made) <= 15:
                clock.sleep(2)

    box.on_request = take_two_seconds_in_the_first_hour
    assert agent(box, image_only=True, jobs=1, calls_per_hour=15, clock=clock).run().complete
    assert made == [2.0 * call for call in range(15)] + [3600 + 2.0 * call for call in range(13)]
    assert len(lines_about(caplog, "an hour")) == 1


def test_callers_at_the_same_time_share_the_budget(sandbox, caplog):
    class Book(CallBudget):
        def spend(self, now):
            made.append(now)
            super().spend(now)

    made = []
    box = sandbox(Photostream.generated(1))
    clock = HeldClock()
    web = Web(clock)
    service = Service("A service", clock, budget=Book(10))

    def ask(_):
        def request():
            with web.get(f"{box.base}/signin") as response:
                return response.status_code

        return service.ask(request)

    with ThreadPoolExecutor(6) as threads:
        assert set(threads.map(ask, range(35))) == {200}
    assert made == sorted(made) and len(made) == 35
    assert all(later - earlier >= 3600 for earlier, later in zip(made, made[10:], strict=False))
    assert made[-1] == 3 * 3600, "and nobody waits longer than the budget asks"
    assert len(lines_about(caplog, "an hour")) == 3


def test_attempts_that_fail_count_as_calls(sandbox):
    box = sandbox(Photostream.generated(1))
    clock = HeldClock()
    box.faults.script("findByUsername", "500", "500")
    api = FlickrApi(KEY, SECRET, url=box.url, web=Web(clock), calls_per_hour=2)
    api.find_user("sandbox")
    assert clock.now() >= 3600
    assert api.calls == box.api_calls == 3


# ------------------------------------------------------- what is tried again, and what is not


def test_images_in_passing_trouble_are_asked_for_until_they_come(sandbox, agent, caplog):
    stream = Photostream.generated(len(PASSING))
    box = sandbox(stream)
    for photo, kind in zip(stream.photos, PASSING, strict=True):
        box.faults.script(photo.id, *[kind] * 4)
    clock = HeldClock()
    result = agent(box, image_only=True, clock=clock).run()
    assert len(PASSING) == 11
    assert result.complete and result.images == len(PASSING)
    assert [attempts(box, photo.id) for photo in stream.photos] == [5] * len(PASSING)
    assert {each.fault for each in image_requests(box)} == {None, *PASSING}
    assert not lines_about(caplog, "failed")


@pytest.mark.parametrize("kind", PASSING)
def test_calls_in_passing_trouble_are_made_until_they_are_answered(sandbox, kind):
    box = sandbox(Photostream.generated(3))
    clock = HeldClock()
    box.faults.script("findByUsername", *[kind] * 4)
    api = FlickrApi(KEY, SECRET, url=box.url, web=Web(clock))
    assert api.find_user("sandbox").username == "sandbox"
    assert box.api_calls == 5
    assert len(clock.sleeps) == 4
    for failures, sleep in enumerate(clock.sleeps, 1):
        assert back_off_delay(failures, 0) <= sleep <= back_off_delay(failures, 1)


@pytest.mark.parametrize("kind", sorted(set(PASSING) - {"reset"}) + ["reset"])
def test_trouble_that_does_not_pass_ends_after_some_attempts(sandbox, kind):
    box = sandbox(Photostream.generated(1))
    box.faults.always("findByUsername", kind)
    api = FlickrApi(KEY, SECRET, url=box.url, web=Web(HeldClock()))
    with pytest.raises(FlickrUnavailable):
        api.find_user("sandbox")
    assert 3 <= box.api_calls <= 10


def test_final_answers_of_the_api_are_not_asked_for_again(sandbox):
    stream = Photostream.generated(2)
    box = sandbox(stream, api_keys=[KEY])
    stream.photos[0].gone = True
    clock = HeldClock()
    api = FlickrApi(KEY, SECRET, url=box.url, web=Web(clock))
    stranger = FlickrApi("wrong", SECRET, url=box.url, web=Web(clock))
    box.faults.script("getList", "404")
    for ask, code in (
        (lambda: api.find_user("nobody"), 1),
        (lambda: api.get_photo_sizes(stream.photos[0].id), 1),
        (lambda: api.get_photos("1@N1"), 2),
        (lambda: stranger.find_user("sandbox"), 100),
        (lambda: api.get_photo_comments(stream.photos[1].id), None),
    ):
        box.reset_counts()
        with pytest.raises(FlickrError) as refusal:
            ask()
        assert refusal.value.code == code
        assert box.api_calls == 1
    assert clock.sleeps == []


@pytest.mark.parametrize("kind", ["404", "410", "unavailable", "redirect_loop", "redirect_scheme"])
def test_final_answers_of_the_image_server_are_not_asked_for_again(sandbox, agent, kind):
    stream = Photostream.generated(2)
    box = sandbox(stream)
    box.faults.always(stream.photos[0].id, kind)
    clock = HeldClock()
    result = agent(box, image_only=True, clock=clock).run()
    assert attempts(box, stream.photos[0].id) == 1
    assert clock.sleeps == []
    assert list(result.failed | result.unavailable) == [stream.photos[0].id]


def test_what_still_fails_is_reported_at_the_end_by_photo_and_stops_no_other(
    sandbox, agent, caplog
):
    stream = Photostream.generated(12)
    box = sandbox(stream)
    lost = [stream.photos[index] for index in (2, 7, 11)]
    for photo, kind in zip(lost, ["500", "reset", "cut"], strict=True):
        box.faults.always(photo.id, kind)
    result = agent(box, image_only=True, jobs=2, clock=HeldClock()).run()
    assert result.images == 9
    assert result.failed.keys() == {photo.id for photo in lost}
    errors = [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]
    assert len(errors) == 3
    assert [line.getMessage() for line in caplog.records[-3:]] == errors, "at the end"
    for photo in lost:
        [error] = [line for line in errors if photo.id in line]
        assert f"https://www.flickr.com/photos/{stream.nsid}/{photo.id}/" in error
        assert attempts(box, photo.id) == 6


# --------------------------------------------------------------------- order, and the line


@pytest.mark.parametrize("strategy", CachingStrategy)
def test_with_one_job_photos_are_mirrored_strictly_one_after_another(sandbox, agent, strategy):
    stream = Photostream.generated(12, comments_every=1)
    box = sandbox(stream)
    agent(box, info_level=2, jobs=1, per_page=5, caching_strategy=strategy).run()
    ids = [photo.id for photo in stream.photos]
    if strategy is CachingStrategy.LIFO:
        ids.reverse()
    asked = [
        request for request in box.requests
        if request.kind == "image" or "getList" in request.method
    ]  # fmt: skip
    assert [each.params.get("photo_id") or photo_of(each) for each in asked] == [
        photo_id for photo_id in ids for _ in ("image", "comments")
    ]
    assert most_at_a_time(asked) == 1


@pytest.mark.parametrize("strategy", CachingStrategy)
def test_with_more_jobs_photos_are_started_in_the_strategys_order(sandbox, agent, strategy):
    stream = Photostream.generated(120)
    box = sandbox(stream, image_delay=0.04)
    jobs = 4
    agent(box, image_only=True, jobs=jobs, per_page=25, caching_strategy=strategy).run()
    ids = [photo.id for photo in stream.photos]
    if strategy is CachingStrategy.LIFO:
        ids.reverse()
    started = [photo_of(request) for request in image_requests(box)]
    assert sorted(started) == sorted(ids)
    # Those that are on their way to the wire may overtake each other.
    most = max(abs(position - ids.index(each)) for position, each in enumerate(started))
    assert most <= 5 * jobs


@pytest.mark.parametrize("jobs", [1, 4, 16])
def test_as_many_images_are_on_their_way_as_there_are_jobs(sandbox, agent, jobs):
    box = sandbox(Photostream.generated(3 * jobs + 5), image_delay=0.15)
    assert agent(box, image_only=True, jobs=jobs).run().complete
    assert box.in_flight_max["image"] == jobs


def test_the_next_page_is_read_while_this_one_downloads(sandbox, agent):
    stream = Photostream.generated(60)
    box = sandbox(stream, image_delay=0.1, api_delay=0.05)
    agent(box, image_only=True, jobs=3, per_page=20).run()
    newest_first = [photo.id for photo in reversed(stream.photos)]
    for page in (2, 3):
        listing = next(each for each in box.requests if f"&page={page}&" in each.identity)
        before = newest_first[20 * (page - 2) : 20 * (page - 1)]
        images = [each for each in image_requests(box) if photo_of(each) in before]
        assert listing.finished < images[-1].started, "so no worker idles at the page's end"


def test_connections_are_kept(sandbox, agent):
    box = sandbox(Photostream.generated(80, videos_every=20), image_delay=0.01, plain=True)
    assert agent(box, image_only=True, jobs=5).run().complete
    # Image workers ask the API too; their calls have connections beside those of images.
    assert box.connections <= 2 * 5 + 4
    box = sandbox(Photostream.generated(80), image_delay=0.01)
    assert agent(box, image_only=True, jobs=5).run().complete
    assert box.connections <= 5 + 2


# --------------------------------------------------------------------- bodies large and slow

MEASURED = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print("peak", peak if sys.platform == "darwin" else peak * 1024)
sys.exit(status)
"""


@pytest.mark.parametrize("videos_every", [0, 1], ids=["photo", "video"])
def test_a_file_of_any_size_is_mirrored_in_little_memory(sandbox, cache_path, videos_every):
    stream = Photostream.generated(1, videos_every=videos_every, image_bytes=150_000_000)
    box = sandbox(stream)
    command = [sys.executable, "-c", MEASURED, *command_of(box, cache_path, "--image-only")]
    done = subprocess.run(
        command,
        env=program_environment(box),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    files = [path for path in files_in(cache_path) if path.suffix != ".json"]
    assert len(files) == 1 + videos_every
    assert all((cache_path / path).stat().st_size >= 150_000_000 for path in files)
    assert int(done.stdout.rpartition("peak ")[2]) < 100_000_000


@pytest.mark.parametrize("kind", ["stall", "trickle"])
def test_a_body_that_stops_coming_is_given_up_and_asked_for_again(sandbox, kind):
    stream = Photostream.generated(1, image_bytes=100_000)
    box = sandbox(stream)
    web = Web(stall=0.5)
    url = (
        f"{box.base}/img/{sizes_of(stream.photos[0])[-1][-2]}/{sizes_of(stream.photos[0])[-1].name}"
    )
    box.faults.script("/img/", kind)

    def request():
        with web.get(url) as response:
            return b"".join(web.chunks(response, 1_000_000))

    with pytest.raises(PassingTrouble):
        request()
    box.faults.script("/img/", kind)
    started = time.monotonic()
    assert Service("A server", web.clock).ask(request) == box.image_bytes_for(url)
    assert time.monotonic() - started >= 0.5
    assert [each.fault for each in box.requests] == [kind, kind, None]


@pytest.mark.parametrize("kind", ["stall", "trickle"])
def test_an_answer_that_stops_coming_is_given_up_and_asked_for_again(sandbox, kind):
    box = sandbox(Photostream.generated(40))
    box.faults.script("getPhotos", kind)
    api = FlickrApi(KEY, SECRET, url=box.url, web=Web(stall=0.5))
    photos, _, _ = api.get_photos(box.photostream.nsid)
    assert len(photos) == 40
    assert [each.fault for each in box.requests] == [kind, None]


def test_the_next_run_counts_the_calls_of_the_last_ones_for_whomever_they_were(
    sandbox, agent, caplog
):
    here = Photostream.generated(6)
    there = Photostream.generated(6, username="other", nsid="7@N01")
    box = sandbox(here, there, plain=True)
    options = {"image_only": True, "calls_per_hour": 20}

    def run(username, minutes):
        """Run so many minutes later; return the seconds that it waited."""
        clock = HeldClock(DATE + 60 * minutes)
        agent(box, username=username, clock=clock, **options).run()
        return clock.now()

    assert run("sandbox", 0) == 0
    assert box.api_calls == 8
    assert run("other", 10) == 0
    assert box.api_calls == 16
    here.add(5)
    assert 3600 - 12 * 60 - 60 <= run("sandbox", 12) <= 3600 - 12 * 60 + 60
    [line] = lines_about(caplog, "an hour")
    assert "48 min" in line.getMessage() or "49 min" in line.getMessage()
    assert run("other", 24 * 60) == 0


# ------------------------------------------------------------------------------ interruption


def command_of(box, cache_path, *arguments):
    name = box.photostream.username
    command = [sys.executable, "-m", "flickr", "--username", name, "--cache-path", str(cache_path)]
    return [*command, *KEY_ARGUMENTS, *arguments]


def state_in(cache_path):
    [path] = cache_path.glob(f"*/{flickr.UserCache.STATE_FILENAME}")
    return json.loads(path.read_bytes())


# Promised are two seconds; the third is for a machine that has much else to do.
AT_ONCE = 3.0


def stop(process, number=signal.SIGINT):
    """Send a signal; return the seconds until the end, and what was written to both outputs."""
    started = time.monotonic()
    process.send_signal(number)
    output = process.communicate(timeout=30)
    return time.monotonic() - started, *output


def has_ended_in_order(process, out, err):
    assert process.returncode == 130
    assert "Traceback" not in out + err and "Error" not in err
    assert "again to go on" in out.splitlines()[-1]
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupt_ends_the_program_in_order_though_all_downloads_hang(
    sandbox, cache_path, number, program
):
    box = sandbox(Photostream.generated(60))
    box.faults.script("/img/", *[None] * 20)
    box.faults.always("/img/", "stall")
    with program(box, "--fifo") as process:
        wait_until(lambda: box.images == 36)
        seconds, out, err = stop(process, number)
    assert has_ended_in_order(process, out, err)
    assert seconds < AT_ONCE
    assert box.images == 36, "no new photo is started"
    assert not list(cache_path.rglob("*.flickr-part"))
    assert len([path for path in files_in(cache_path) if path.suffix == ".jpg"]) == 20

    assert state_in(cache_path)["clean"], "the state is saved"
    box.faults.clear()
    box.reset_counts()
    with program(box, "--fifo") as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert box.images == 40, "what was mirrored is not fetched again"


@pytest.mark.parametrize(
    "where, options",
    [
        ("findByUsername", {"api_delay": 60}),
        ("getSizes", {"plain": True}),
        ("getPhotos", {}),
        ("/img/", {"image_delay": 60}),
    ],
)
def test_an_interrupt_does_not_wait_for_an_answer(sandbox, cache_path, where, options, program):
    box = sandbox(Photostream.generated(60), **options)
    box.faults.always(where, "stall")
    with program(box) as process:
        wait_until(lambda: attempts(box, where) > 0)
        time.sleep(0.3)
        seconds, out, err = stop(process)
    assert has_ended_in_order(process, out, err)
    assert seconds < AT_ONCE
    assert not list(cache_path.rglob("*.flickr-part"))
    assert not out.startswith(":"), "the line names somebody, or nobody"


@pytest.mark.parametrize(
    "arguments, fault, words",
    [
        (["--api-rate", "2"], None, "2 calls an hour"),
        ([], ("429", {"retry_after": "600"}), "pausing for 10 min"),
    ],
    ids=["rate", "pause"],
)
def test_an_interrupt_ends_a_wait(sandbox, program, arguments, fault, words):
    box = sandbox(Photostream.generated(20), plain=True)
    box.faults.always("getSizes", fault)
    with program(box, "--image-only", *arguments) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if words in line:
                break
        time.sleep(0.5)  # what was in flight has arrived
        calls = box.api_calls
        time.sleep(0.5)
        seconds, out, err = stop(process)
    err = "".join(lines) + err
    assert has_ended_in_order(process, out, err)
    assert seconds < AT_ONCE
    assert err.count(words) == 1, "announced once"
    assert box.api_calls == calls


def test_an_interrupt_starts_no_new_photo_where_nothing_is_downloaded_either(
    sandbox, cache_path, program
):
    box = sandbox(Photostream.generated(6000))
    with program(box, "--info-only") as process:
        wait_until(lambda: len(list(cache_path.rglob("*.json"))) > 5)
        seconds, out, err = stop(process)
        named = err.count("Caching information")
    written = len([path for path in files_in(cache_path) if path.suffix == ".json"])
    assert has_ended_in_order(process, out, err)
    assert seconds < AT_ONCE
    assert not list(cache_path.rglob("*.flickr-part"))
    assert state_in(cache_path)["clean"]
    assert written < 6000
    assert named - written <= 16, "only what was being written is dropped"


@pytest.mark.parametrize("info_level", [1, 2])
def test_nothing_is_written_any_more_when_a_stopped_run_has_ended(
    sandbox, agent, cache_path, caplog, info_level
):
    stream = Photostream.generated(600, comments_every=2)
    words = " ".join(DESCRIPTIONS).split()
    for number, photo in enumerate(stream.photos):
        # Seconds of detection are ahead when the run is stopped.
        photo.description = " ".join(random.Random(number).choices(words, k=1500))
    box = sandbox(stream)
    mirroring = agent(box, info_only=True, info_level=info_level, calls_per_hour=10**6)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(mirroring.run)
        wait_until(lambda: lines_about(caplog, "Caching information"))
        mirroring.stop()
        with pytest.raises(flickr.Stopped):
            running.result(timeout=10)
    assert not [each for each in threading.enumerate() if each.name.startswith("information")]
    before = sorted(cache_path.rglob("*"))
    time.sleep(0.3)
    assert sorted(cache_path.rglob("*")) == before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_second_interrupt_ends_the_program_at_once(sandbox, program, first):
    box = sandbox(Photostream.generated(40))
    box.faults.always("/img/", "stall")
    with program(box, "--image-only") as process:
        wait_until(lambda: box.images == 16)
        process.send_signal(first)
        time.sleep(0.2)
        was_running = process.poll() is None
        seconds, out, err = stop(process)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert was_running and seconds < 1.0


# ------------------------------------------------------------------------------ the terminal


class Terminal:
    """A pseudo-terminal that keeps all it is sent, and shows it as a terminal would."""

    def __init__(self, columns=120):
        self._own, self.other = pty.openpty()
        fcntl.ioctl(self.other, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        self._received = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        # Linux says that the other side was closed by an error, other systems by nothing.
        with contextlib.suppress(OSError):
            while some := os.read(self._own, 65536):
                self._received += some

    def close(self):
        """Read what is left once the program has ended."""
        os.close(self.other)
        self._reader.join(10)
        os.close(self._own)

    @property
    def text(self):
        return self._received.decode()

    def lines(self):
        """What stands on the screen, from its first line to its last."""
        shown, line, column = [], [], 0
        for character in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text):
            if character == "\n":
                shown.append("".join(line).rstrip())
                line, column = [], 0
            elif character == "\r":
                column = 0
            else:
                line[column : column + 1] = character
                column += 1
        return [*shown, "".join(line).rstrip()]


LOG_START = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[[A-Z]+\] ")
LOG_LINE = re.compile(
    LOG_START.pattern + "(?:"
    r"Scanning page 1/1\.\.\.|Caching (?:image|information) of photo [0-9a-f]{32}\.\.\."
    r"|Photo [0-9a-f]{32} failed: .*/\))"
)


@pytest.fixture
def terminal():
    return Terminal()


def test_a_terminal_shows_a_bar_and_the_log_above_it_unbroken(sandbox, program, terminal):
    stream = Photostream.generated(40)
    box = sandbox(stream, image_delay=0.15)
    box.faults.always(stream.photos[30].id, "redirect_scheme")
    with program(box, "--jobs", "4", stderr=terminal.other) as process:
        out, _ = process.communicate(timeout=30)
    terminal.close()
    assert process.returncode == 1
    assert out.splitlines()[-1].startswith("sandbox: 39 new images")

    log = [line for line in terminal.lines() if LOG_START.match(line)]
    assert len(log) == 1 + 40 + 40 + 1
    assert all(LOG_LINE.fullmatch(line) for line in log)

    shown = [line for line in re.split(r"[\r\n]", terminal.text) if "photos" in line]
    bars = [line for line in shown if re.search(r"\d/40 ", line)]
    done = [int(re.search(r"(\d+)/40 ", bar)[1]) for bar in bars]
    assert done == sorted(done)
    assert done[-1] == 40
    assert any(0 < number < 40 for number in done)
    assert re.search(r"photos/s|s/ photos", bars[-1]), "the rate"
    assert any(re.search(r"<\d\d:\d\d", bar) for bar in bars), "the time left"
    assert "1 failed" in bars[-1]


def test_the_bar_stands_still_where_nothing_is_new(sandbox, program, terminal, mirror):
    box = sandbox(Photostream.generated(7))
    mirror(box)
    with program(box, stderr=terminal.other) as process:
        out, _ = process.communicate(timeout=30)
    terminal.close()
    assert process.returncode == 0
    assert "0 new images" in out
    assert "Traceback" not in terminal.text


def test_an_interrupt_on_a_terminal_leaves_no_broken_line(sandbox, program, terminal):
    box = sandbox(Photostream.generated(200), image_delay=0.2)
    with program(box, "--image-only", stderr=terminal.other) as process:
        wait_until(lambda: box.images > 40)
        seconds, out, _ = stop(process)
    terminal.close()
    assert has_ended_in_order(process, out, terminal.text)
    assert seconds < AT_ONCE
    assert terminal.lines()[-1] == "", "the cursor is at the start of a line"
    log = [line for line in terminal.lines() if "[INFO]" in line]
    assert log and all(LOG_LINE.fullmatch(line) for line in log)


def test_a_pipe_gets_no_bar_and_no_control_characters(sandbox, mirror):
    stream = Photostream.generated(30)
    stream.photos[4].title = "red \x1b[31mtitle\r\x07"
    box = sandbox(stream, image_delay=0.05)
    box.faults.always(stream.photos[3].id, "redirect_scheme")
    done = mirror(box)
    assert done.returncode == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout + done.stderr)
    assert "photos/s" not in done.stderr and "%|" not in done.stderr
    assert all(LOG_LINE.fullmatch(line) for line in done.stderr.splitlines())


def test_quiet_shows_only_warnings_errors_and_the_last_line(sandbox, cache_path, mirror):
    stream = Photostream.generated(20)
    box = sandbox(stream)
    done = mirror(box, "--quiet")
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    stream.add(3)
    box.faults.script("/img/", ("429", {"retry_after": "1"}))
    box.faults.always(stream.photos[-1].id, "redirect_scheme")
    done = mirror(box, "--quiet")
    warning, error = sorted(done.stderr.splitlines())
    assert "[WARNING]" in warning and "pausing" in warning
    assert " failed: " in error and stream.photos[-1].id in error
    assert len(done.stdout.splitlines()) == 1


def test_quiet_shows_no_bar_on_a_terminal(sandbox, program, terminal):
    box = sandbox(Photostream.generated(20), image_delay=0.1)
    with program(box, "--quiet", stderr=terminal.other) as process:
        out, _ = process.communicate(timeout=30)
    terminal.close()
    assert process.returncode == 0
    assert terminal.text == ""
    assert len(out.splitlines()) == 1
