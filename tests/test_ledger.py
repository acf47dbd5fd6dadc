"""The bookkeeping: which photos have been mirrored, and which page is to be read next.

No HTTP here. The histories that hypothesis plays meet the photostream of the sandbox itself,
asked directly, so that thousands of runs take seconds.
"""

import dataclasses
import json
import random

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sandbox import Photostream, SandboxPhoto

from flickr import CachingStrategy, Ledger, Ranges, Survey, span

LIFO, FIFO = CachingStrategy.LIFO, CachingStrategy.FIFO
both_strategies = pytest.mark.parametrize("strategy", [LIFO, FIFO])

numbers = st.integers(1, 40)
pairs = st.lists(st.tuples(numbers, numbers).map(lambda pair: tuple(sorted(pair))), max_size=6)


def members(ranges):
    return {number for low, high in ranges.pairs for number in range(low, high + 1)}


# ----- sets of numbers -----


@given(pairs, pairs, numbers)
def test_ranges_behave_like_sets_of_numbers(one, other, number):
    left, right = Ranges(one), Ranges(other)
    assert members(left | right) == members(left) | members(right)
    assert members(left & right) == members(left) & members(right)
    assert members(left - right) == members(left) - members(right)
    assert members(left.up_to(number)) == {each for each in members(left) if each <= number}
    assert len(left) == len(members(left))
    assert (number in left) == (number in members(left))
    assert bool(left) == bool(members(left))
    assert left.lowest == min(members(left), default=None)
    assert left.highest == max(members(left), default=None)


@given(pairs)
def test_equal_sets_have_the_same_ranges(one):
    assert Ranges(one) == Ranges((each, each) for each in members(Ranges(one)))
    assert hash(Ranges(one)) == hash(Ranges(reversed(one)))


def test_ranges_that_touch_become_one():
    assert Ranges([(1, 500), (501, 700), (900, 950)]).pairs == ((1, 700), (900, 950))


# ----- the ledger -----


def test_information_at_a_higher_level_counts_at_a_lower_one():
    ledger = Ledger()
    ledger.enter_infos(span(1, 10), 2)
    ledger.enter_infos(span(5, 20), 0)
    assert ledger.done(images=False, info_level=0) == span(1, 20)
    assert ledger.done(images=False, info_level=1) == span(1, 10)
    assert ledger.infos == {2: span(1, 10), 0: span(11, 20)}


def test_done_is_what_has_both_image_and_information():
    ledger = Ledger()
    ledger.enter_images(span(1, 10))
    ledger.enter_infos(span(5, 20), 1)
    assert ledger.done(images=True, info_level=1) == span(5, 10)
    assert ledger.done(images=True, info_level=None) == span(1, 10)
    assert not ledger.done(images=True, info_level=2)


def test_a_ledger_is_read_as_it_was_written():
    ledger = Ledger(anchors={20: "7", 19: "6"}, unavailable_images={"3"})
    ledger.enter_images(span(1, 20))
    ledger.enter_infos(span(3, 9), 1)
    ledger.short = {(12, 14): 1}
    assert Ledger.from_json(json.loads(json.dumps(ledger.to_json()))) == ledger


@pytest.mark.parametrize(
    "damage",
    [
        {"images": None},
        {"images": [[5, 1]]},
        {"images": [[0, 1]]},
        {"images": [["1", "2"]]},
        {"images": [[1]]},
        {"infos": []},
        {"infos": {"one": [[1, 2]]}},
        {"anchors": {"newest": "1"}},
        {"unavailable_infos": 7},
    ],
    ids=str,
)
def test_a_damaged_ledger_is_refused(damage):
    with pytest.raises(ValueError):
        Ledger.from_json({**json.loads(json.dumps(Ledger().to_json())), **damage})


def test_what_no_anchor_could_disprove_is_not_believed():
    ledger = Ledger(images=span(1, 90), anchors={60: "x"})
    assert Ledger.from_json(ledger.to_json()).images == span(1, 60)


# ----- runs against a photostream -----


@dataclasses.dataclass
class Mirror:
    """A mirror in memory: what is on its disk, and its ledger."""

    stream: Photostream
    per_page: int = 5
    images: set = dataclasses.field(default_factory=set)
    infos: dict = dataclasses.field(default_factory=dict)
    ledger: Ledger = dataclasses.field(default_factory=Ledger)
    calls: int = 0
    survey: Survey = None
    seen: set = dataclasses.field(default_factory=set)

    def run(
        self,
        strategy=LIFO,
        images=True,
        info_level=0,
        *,
        between=lambda calls: None,
        cut=lambda page: 0,
        fails=lambda photo: False,
        stop_after=None,
        open_pages=1,
    ):
        """Do one run; return whether it came to its end.

        :param between: Called before each listing call: the photostream may change there.
        :param cut: Rows that a page comes short of, each time that it is asked for.
        :param fails: Whether a photo cannot be had this time.
        :param stop_after: Listing calls after which the run is killed, its last pages
            unsettled.
        """
        self.ledger = saved(self.ledger)
        self.calls = 0
        self.survey = Survey(
            self.ledger,
            images=images,
            info_level=info_level,
            strategy=strategy,
            per_page=self.per_page,
        )
        pending = []
        while (page := self.survey.next_page()) is not None:
            if self.calls == stop_after:
                return False
            between(self.calls)
            self.calls += 1
            assert self.calls < 500, "it goes on for ever"
            rows, _, total = self.stream.page(page, self.per_page)
            if page == 1:
                self.seen = {photo.id for photo in rows_of_all(self.stream)}
            rows = rows[: max(0, len(rows) - cut(page))]
            look = self.survey.receive(page, total, [photo.id for photo in rows])
            if look is None:
                continue
            failed = []
            for number, index in look.photos:
                photo = rows[index]
                if fails(photo):
                    failed.append(number)
                    continue
                if images:
                    self.images.add(photo.id)
                if info_level is not None:
                    self.infos[photo.id] = max(info_level, self.infos.get(photo.id, 0))
            pending.append((look, failed))
            while len(pending) >= open_pages:
                self.settle(*pending.pop(0))
        while pending:
            self.settle(*pending.pop(0))
        return True

    def settle(self, look, failed):
        self.survey.settle(look, failed, failed)

    def lacking(self, images=True, info_level=0):
        """The photos that were there when page 1 was last read, still are, and lack something."""
        here = {photo.id for photo in rows_of_all(self.stream)} & self.seen
        lacking = {each for each in here if images and each not in self.images}
        if info_level is not None:
            lacking |= {each for each in here if self.infos.get(each, -1) < info_level}
        return lacking

    def pages_left(self, images=True, info_level=0):
        total = len(self.stream.photos)
        done = members(saved(self.ledger).done(images, info_level))
        return {(total - n) // self.per_page for n in range(1, total + 1) if n not in done}


def saved(ledger):
    return Ledger.from_json(json.loads(json.dumps(ledger.to_json())))


def rows_of_all(stream):
    return [photo for photo in stream.photos if photo.id not in stream.hidden]


def count_of(stream):
    return len(stream.photos)


def stream_of(count):
    return Photostream(photos=[SandboxPhoto(id=str(1000 + each)) for each in range(count)])


@both_strategies
@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 10, 23])
def test_a_first_run_reads_each_page_and_once_more_the_first(strategy, count):
    mirror = Mirror(stream_of(count))
    assert mirror.run(strategy)
    pages = -(-count // 5)
    assert not mirror.lacking()
    assert mirror.calls == (pages + 1 if pages > 1 else 1)


@both_strategies
@pytest.mark.parametrize("added", [0, 1, 4])
def test_a_mirror_that_is_up_to_date_costs_one_listing_call(strategy, added):
    mirror = Mirror(stream_of(23))
    mirror.run(strategy)
    mirror.stream.add(added)
    mirror.run(strategy)
    assert mirror.calls == 1
    assert not mirror.lacking()


@pytest.mark.parametrize(("strategy", "first_numbers"), [(LIFO, [23, 22, 21]), (FIFO, [1, 2, 3])])
def test_the_strategies_start_at_the_two_ends(strategy, first_numbers):
    survey = Survey(Ledger(), images=True, info_level=0, strategy=strategy, per_page=5)
    stream = stream_of(23)
    look = None
    while look is None or not look.photos:
        page = survey.next_page()
        rows, _, total = stream.page(page, 5)
        look = survey.receive(page, total, [photo.id for photo in rows])
    assert [number for number, _ in look.photos][:3] == first_numbers


@both_strategies
def test_photos_that_failed_are_all_that_the_next_run_reads_for(strategy):
    mirror = Mirror(stream_of(50))
    unlucky = mirror.stream.photos[17].id
    mirror.run(strategy, fails=lambda photo: photo.id == unlucky)
    assert mirror.lacking() == {unlucky}
    mirror.run(strategy)
    assert not mirror.lacking()
    assert mirror.calls <= 3


@both_strategies
def test_switching_the_strategy_keeps_what_was_done(strategy):
    mirror = Mirror(stream_of(100))
    mirror.run(strategy, stop_after=10)
    left = len(mirror.pages_left())
    assert left <= 12
    mirror.run(FIFO if strategy is LIFO else LIFO)
    assert mirror.calls <= left + 2
    assert not mirror.lacking()


def test_images_after_information_read_the_listing_again_and_no_more():
    mirror = Mirror(stream_of(50))
    mirror.run(images=False, info_level=1)
    mirror.run(images=True, info_level=1)
    assert mirror.calls == 11
    assert not mirror.lacking(True, 1)


def test_deleting_recent_photos_costs_no_more_than_a_look_at_page_1():
    mirror = Mirror(stream_of(50))
    mirror.run()
    mirror.stream.remove(mirror.stream.photos[-1].id)
    mirror.stream.remove(mirror.stream.photos[-1].id)
    mirror.stream.add(3)
    mirror.run()
    assert mirror.calls == 1
    assert not mirror.lacking()


@both_strategies
@pytest.mark.parametrize("added", [0, 1, 2, 7, 30])
def test_a_deletion_that_additions_outweigh_is_noticed(strategy, added):
    mirror = Mirror(stream_of(50))
    mirror.run(strategy, stop_after=6)
    mirror.stream.remove(mirror.stream.photos[3].id)
    mirror.stream.add(added)
    assert mirror.run(strategy)
    assert not mirror.lacking()


def test_an_anchor_is_not_proved_by_a_newer_one_of_the_same_run():
    mirror = Mirror(stream_of(1))
    mirror.run(LIFO, True, 2)
    mirror.stream.add(4)
    mirror.run(LIFO, False, 0)
    mirror.stream.add(7)
    mirror.stream.remove(mirror.stream.photos[0].id)
    mirror.run(FIFO, False, 0)
    mirror.run(FIFO, True, 2)
    assert not mirror.lacking(True, 2)


@both_strategies
def test_a_page_cut_short_is_asked_for_again_three_times_at_most(strategy):
    mirror = Mirror(stream_of(20))
    asked = []

    def cut(page):
        asked.append(page)
        return 2 if page == 3 else 0

    mirror.run(strategy, cut=cut)
    assert asked.count(3) == 4
    assert mirror.lacking()
    # Whole again: one look is enough.
    mirror.run(strategy)
    assert not mirror.lacking()
    assert mirror.calls <= 3


@both_strategies
def test_a_page_that_stays_short_is_looked_at_once_more_and_then_believed(strategy):
    mirror = Mirror(stream_of(20))
    mirror.stream.hidden = {mirror.stream.photos[8].id}
    mirror.run(strategy)
    first = mirror.calls
    assert first == 5 + 3
    mirror.run(strategy)
    assert mirror.calls <= 3
    mirror.run(strategy)
    assert mirror.calls == 1
    assert not mirror.lacking()


def test_a_photo_kept_back_among_the_newest_does_not_cost_a_rescan():
    mirror = Mirror(stream_of(50))
    mirror.stream.hidden = {mirror.stream.photos[-2].id}
    mirror.run()
    mirror.run()
    mirror.stream.add(2)
    mirror.run()
    assert mirror.calls == 1
    assert not mirror.lacking()


@both_strategies
def test_photos_added_while_it_runs_are_mirrored_too(strategy):
    mirror = Mirror(stream_of(40))
    mirror.run(strategy, between=lambda calls: mirror.stream.add(1))
    assert not mirror.lacking()
    assert len(mirror.images) >= 40 + mirror.calls - 1


def test_a_listing_that_makes_no_sense_does_not_hold_the_run_for_ever():
    chance = random.Random(1)
    survey = Survey(Ledger(), images=True, info_level=0, strategy=LIFO, per_page=5)
    calls = 0
    while (page := survey.next_page()) is not None:
        calls += 1
        assert calls < 2000
        rows = [str(chance.randrange(10**6)) for _ in range(chance.randrange(9))]
        look = survey.receive(page, chance.randrange(60), rows)
        if look:
            survey.settle(look)


changes = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "hide"]), st.integers(0, 10**6)), max_size=6
)
runs = st.lists(
    st.fixed_dictionaries(
        {
            "strategy": st.sampled_from([LIFO, FIFO]),
            "images": st.booleans(),
            "info_level": st.sampled_from([None, 0, 1, 2]),
            "stop_after": st.none() | st.integers(0, 12),
            "before": changes,
            "during": st.dictionaries(st.integers(0, 12), changes, max_size=2),
            "cut": st.dictionaries(st.integers(1, 8), st.integers(1, 3), max_size=2),
            "unlucky": st.sets(st.integers(0, 30), max_size=3),
            "open_pages": st.integers(1, 3),
        }
    ),
    max_size=6,
)


def change(mirror, todo):
    stream = mirror.stream
    for what, number in todo:
        visible = rows_of_all(stream)
        if what == "add":
            stream.add(number % 8)
        elif what == "remove" and visible:
            stream.remove(visible[number % len(visible)].id)
        elif what == "hide" and len(stream.hidden) < 3:
            # One that was seen before: where a new photo is kept back and another one deleted
            # between two looks, no count tells.
            known = [photo.id for photo in visible if photo.id in mirror.seen]
            stream.hidden |= set(known[number % len(known) :][:1]) if known else set()


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 40), runs)
def test_after_a_completed_run_no_photo_is_missing(count, history):
    mirror = Mirror(stream_of(count))
    for each in history:
        assume(each["images"] or each["info_level"] is not None)
        change(mirror, each["before"])
        cuts = dict(each["cut"])

        def cut(page, cuts=cuts):
            # Short for up to three times on end, as three repeats can mend.
            cuts[page] = cuts.get(page, 0) - 1
            return 2 if cuts[page] >= 0 else 0

        mirror.run(
            each["strategy"],
            each["images"],
            each["info_level"],
            stop_after=each["stop_after"],
            between=lambda calls, each=each: change(mirror, each["during"].get(calls, [])),
            cut=cut,
            fails=lambda photo, each=each: int(photo.id) % 31 in each["unlucky"],
            open_pages=each["open_pages"],
        )
    # Two runs without trouble: the first one may leave a page that stays short for the next.
    for strategy in (FIFO, LIFO):
        assert mirror.run(strategy, True, 2)
        assert not mirror.survey.unsettled
    assert not mirror.lacking(True, 2)
    # And a third finds nothing left to be read, if any photo of page 1 is there to tell by.
    if mirror.stream.page(1, mirror.per_page)[0] or not count_of(mirror.stream):
        mirror.run(LIFO, True, 2)
        assert mirror.calls == 1


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, 60),
    st.lists(
        st.tuples(st.sampled_from([LIFO, FIFO]), st.integers(0, 14), st.integers(0, 12)),
        max_size=5,
    ),
    st.sampled_from([LIFO, FIFO]),
)
@example(count=10, stops=[(FIFO, 2, 10)], last=LIFO)
def test_a_run_costs_two_listing_calls_more_than_the_pages_left(count, stops, last):
    mirror = Mirror(stream_of(count))
    for strategy, stop_after, added in [*stops, (last, None, 0)]:
        left = mirror.pages_left()
        mirror.run(strategy, stop_after=stop_after)
        assert mirror.calls <= len(left) + 2
        mirror.stream.add(added)
    assert not mirror.lacking()
