"""Languages: locales, labels, and telling what language a text is in (waypoint 4)."""

import random
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import langdetect
import pytest
from conftest import run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox import Photostream

import flickr
from flickr import Label, Locale

# ------------------------------------------------------------------------------- locales


def test_a_locale_is_written_as_its_alpha3_language():
    assert str(Locale("vie")) == "vie"


def test_a_locale_from_a_string_becomes_alpha3_and_keeps_its_country():
    assert str(Locale.from_string("fr-CA")) == "fra-CA"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("en", "eng"),
        ("eng", "eng"),
        ("eng-US", "eng-US"),
        ("en-gb", "eng-GB"),
        ("VIE", "vie"),
        ("Fr-ca", "fra-CA"),
        ("zh-cn", "zho-CN"),
        ("zh-tw", "zho-TW"),
        ("fre", "fra"),
        ("ger", "deu"),
        ("GER-at", "deu-AT"),
        ("chi", "zho"),
        ("dut", "nld"),
        ("cze-CZ", "ces-CZ"),
        ("haw", "haw"),
    ],
)
def test_a_language_may_be_written_by_any_of_its_codes_in_any_case(text, written):
    assert str(Locale.from_string(text)) == written
    assert repr(Locale.from_string(text)) == written


def test_the_repr_of_a_locale_is_what_str_gives():
    assert repr(Locale("fr", "ca")) == str(Locale("fr", "ca")) == "fra-CA"


def test_a_locale_tells_its_two_codes_and_lets_neither_be_changed():
    locale = Locale("fre", "ca")
    assert (locale.language_code, locale.country_code) == ("fra", "CA")
    assert Locale("vi").country_code is None
    with pytest.raises(AttributeError):
        locale.language_code = "deu"
    with pytest.raises(AttributeError):
        locale.country_code = "FR"


def test_equal_locales_are_equal_and_hash_alike_however_they_were_written():
    assert Locale("fr", "CA") == Locale.from_string("fre-ca") == Locale("FRA", "Ca")
    assert len({Locale("fr", "CA"), Locale.from_string("fre-ca"), Locale("FRA", "Ca")}) == 1


def test_locales_that_differ_in_language_or_country_are_not_equal():
    assert Locale("fra") != Locale("deu")
    assert Locale("fra") != Locale("fra", "CA")
    assert Locale("fra", "FR") != Locale("fra", "CA")


def test_a_locale_is_not_equal_to_its_own_text():
    assert Locale("fra") != "fra"
    assert Locale("fra") not in ["fra", None, 1]


@pytest.mark.parametrize("code", ["xx", "zzz", "qqq", "english", "e", "", "fr_CA", "fr-CA", "🇫🇷"])
def test_an_unknown_language_is_an_error_that_names_it(code):
    with pytest.raises(ValueError) as caught:
        Locale(code)
    assert repr(code) in str(caught.value)
    assert "language" in str(caught.value)


@pytest.mark.parametrize("code", ["XX", "CAN", "france", "", "C", "1A", "ÄÖ"])
def test_an_unknown_country_is_an_error_that_names_it(code):
    with pytest.raises(ValueError) as caught:
        Locale("fra", code)
    assert repr(code) in str(caught.value)
    assert "country" in str(caught.value)


@pytest.mark.parametrize("code", [None, 5, b"fra", ["fra"]])
def test_a_language_that_is_no_text_is_an_error(code):
    with pytest.raises((ValueError, TypeError)):
        Locale(code)


@pytest.mark.parametrize(
    "text", ["", "-", "fra-", "-CA", "fra-CA-QC", "fra_CA", "fra CA", " fra", "fra\n", "fra--CA"]
)
def test_a_malformed_locale_is_an_error(text):
    with pytest.raises(ValueError):
        Locale.from_string(text)


@pytest.mark.parametrize("text", [None, 5, b"fra"])
def test_a_locale_from_something_else_than_text_is_an_error(text):
    with pytest.raises(ValueError):
        Locale.from_string(text)


@given(
    st.sampled_from(["vi", "vie", "fre", "fra", "de", "ger", "zh", "nld"]),
    st.sampled_from([None, "CA", "fr", "Vn"]),
)
def test_a_locale_survives_being_written_and_read(language, country):
    locale = Locale(language, country)
    assert Locale.from_string(str(locale)) == locale
    assert str(Locale.from_string(str(locale))) == str(locale)


# -------------------------------------------------------------------------------- labels


def test_a_label_is_english_by_default():
    label = Label("Hello, World!")
    assert label.content == "Hello, World!"
    assert type(label.locale) is Locale
    assert str(label.locale) == "eng"


def test_a_label_keeps_the_locale_that_it_was_given():
    label = Label("Rạch Bến Nghé, Bến Chương Dương", Locale("vie"))
    assert label.content == "Rạch Bến Nghé, Bến Chương Dương"
    assert str(label.locale) == "vie"


def test_a_label_without_locale_is_english_whatever_it_says():
    assert str(Label("Rạch Bến Nghé, Bến Chương Dương").locale) == "eng"


def test_a_label_can_not_be_changed():
    label = Label("Hello, World!")
    with pytest.raises(AttributeError):
        label.content = "Bye"
    with pytest.raises(AttributeError):
        label.locale = Locale("fra")


def test_a_label_shows_as_in_the_specification():
    label = Label("Hello, World!")
    assert repr(label) == f"<Label object at {hex(id(label))}>"


# ----------------------------------------------------------------------------- detection


@pytest.mark.parametrize(
    ("text", "locale"),
    [
        # The specification's own texts.
        ("SAIGON 1974 - Rạch Bến Nghé, Bến Chương Dương", "vie"),
        ("Đoàn công tác SV ĐH Kiến Trúc Sài Gòn tại Côn Đảo, tháng 3-1976", "vie"),
        (
            "Giờ thể dục của học sinh trường Thiếu sinh quân\n"
            "Binh Duong – Thu Dau Mot\n    Date : 1920-1929",
            "vie",
        ),
        (
            ".\nnơi này thời Pháp thuộc:\n[http://www.flickr.com/photos/13476480@N07/4722795861/]",
            "vie",
        ),
        ("Dear PhamOrama:Cám ơn bạn đã hỏi thăm, tôi vẫn sống ở VN từ 1975.", "vie"),
        (
            "Hi, Manh Hai nhung ngay ong miet mai o DHKT toi o CDSP bay gio toi dau dau voi"
            " nhung ban ve nha va co so thuong mai con ong thi sao. Co la Civil Engineer o hai"
            " ngoai?",
            "vie",
        ),
        (
            "Internet ngon nhieu gio cua toi, nen thu that hom nay moi re-install. Manh Hai post"
            " tam anh &quot;so cute&quot;. Con nit ben nay khon lanh hon tuoi nho cua chung ta"
            " nhieu lam. Co ut Tami Pham cua toi moi len 7 va hoc lop 2 ma gioi nhu tuoi toi luc"
            " lop5. Chuc Ban va gia dinh mot nam moi an khang, thinh vuong.",
            "vie",
        ),
        ("[https://www.flickr.com/photos/13476480@N07/1718051545/in/photostream/]", "eng"),
        ("Huế 1920-1929 - Chez un grand mandarin : avant le repas", "fra"),
        # And others.
        ("What a wonderful view! I grew up two streets from here.", "eng"),
        ("Das Haus links steht heute nicht mehr, und niemand weiß warum.", "deu"),
        ("Снято на плёнку. Спасибо всем, кто помог найти это место!", "rus"),
        ("とても懐かしい風景ですね。", "jpn"),
        ("¡Qué recuerdos! Mi abuelo trabajaba en esa fábrica.", "spa"),
    ],
)
def test_the_language_of_a_text_is_told(text, locale):
    assert str(flickr.detect_locale(text)) == locale


def test_simplified_and_traditional_chinese_are_told_apart_by_country():
    assert flickr.detect_locale("奶奶说，这条巷子八十年来没有变过。") == Locale("zho", "CN")
    assert flickr.detect_locale("臺灣的鐵路車站與舊時代的記憶，攝於戰後。") == Locale("zho", "TW")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t ",
        "1931",
        "12.–14. 3. 1920",
        "…!?",
        "👏👏👏",
        "<b></b>",
        '<img src="https://live.staticflickr.com/65535/1_a.jpg" alt="Làng quê ở Việt Nam" />',
        '<a href="https://www.flickr.com/photos/tags/seine/" rel="noreferrer nofollow"></a>',
        "&quot;&amp;&#39;&#x27;&nbsp;",
        "https://www.flickr.com/photos/tags/le-marche-aux-fleurs-du-dimanche/",
        "http://example.org/ein-haus-das-es-nicht-mehr-gibt www.beispiel.de/noch-eines",
    ],
)
def test_a_text_with_nothing_left_to_look_at_is_english(text):
    assert str(flickr.detect_locale(text)) == "eng"


@pytest.mark.parametrize(
    ("prose", "dressed"),
    [
        (
            "Vu de la rive gauche.",
            'Vu de la <a href="https://example.org/the-house-of-the-king-and-the-queen"'
            ' title="the view from the other side of the river">rive gauche</a>.',
        ),
        (
            "Das Haus steht nicht mehr",
            "<blockquote><strong>Das Haus</strong> steht <em>nicht</em> mehr</blockquote>",
        ),
        ("Gracias por las fotos", "&quot;Gracias&quot; por &amp; las &lt; fotos&nbsp;&hellip;"),
        (
            "nơi này thời Pháp thuộc",
            "nơi này thời Pháp thuộc https://www.example.org/this-is-the-house-that-jack-built"
            " [http://www.flickr.com/photos/the-library-of-congress-and-the-british-library/]",
        ),
    ],
)
def test_markup_entities_and_addresses_do_not_count(prose, dressed):
    assert flickr.detect_locale(dressed) == flickr.detect_locale(prose)
    assert flickr.detect_locale(dressed) != Locale("eng")


def test_what_is_no_markup_counts():
    assert str(flickr.detect_locale("<3 Ich liebe dieses Bild & alles daran < 5 Minuten")) == "deu"


def test_an_address_ends_where_the_words_go_on():
    text = "https://example.org/a\nMagnifique lumière, bravo et merci pour le partage"
    assert str(flickr.detect_locale(text)) == "fra"


@pytest.mark.parametrize(
    "content",
    [
        "  <b>Xin chào</b> &amp; chúc mừng năm mới &quot;2020&quot;\r\n\thttp://x.org  ",
        ".\nnơi này thời Pháp thuộc:\n[http://www.flickr.com/photos/13476480@N07/4722795861/]",
        "e\u0301 is not \u00e9",
        "\x00 \ufeff \u202e",
    ],
)
def test_the_content_is_kept_to_the_letter(content):
    photo = flickr.FlickrPhoto("1", content)
    photo.description = content
    photo.comments = [content]
    for label in (photo.title, photo.description, *photo.comments):
        str(label.locale)  # looking at it changes nothing
        assert label.content == content


SHORT_TEXTS = [
    "Hanoi 1973",
    "La Vang",
    "IMG_0042",
    "Saigon",
    "Peter Pan",
    "no",
    "Amsterdam 2",
    "Da",
]


def test_the_same_text_has_the_same_language_every_time():
    first = [flickr.detect_locale(text) for text in SHORT_TEXTS]
    for _ in range(5):
        flickr.detect_language_tag.cache_clear()
        assert [flickr.detect_locale(text) for text in SHORT_TEXTS] == first


def test_the_language_does_not_depend_on_what_was_looked_at_before():
    def locales(texts):
        flickr.detect_language_tag.cache_clear()
        return {text: flickr.detect_locale(text) for text in texts}

    assert locales(SHORT_TEXTS) == locales(reversed(SHORT_TEXTS))


def test_another_process_tells_the_same_language():
    program = f"import flickr; print([flickr.detect_locale(t) for t in {SHORT_TEXTS!r}])"
    there = run_python("-c", program, variables={"PYTHONHASHSEED": "1"})
    assert there.stdout.strip() == repr([flickr.detect_locale(text) for text in SHORT_TEXTS])


def test_another_user_of_langdetect_is_neither_disturbed_nor_disturbs(monkeypatch):
    expected = [flickr.detect_locale(text) for text in SHORT_TEXTS]
    for seed in (None, 7, 8):
        monkeypatch.setattr(langdetect.DetectorFactory, "seed", seed)
        drawn = random.getstate()
        flickr.detect_language_tag.cache_clear()
        assert [flickr.detect_locale(text) for text in SHORT_TEXTS] == expected
        assert langdetect.DetectorFactory.seed == seed
        assert random.getstate() == drawn
    langdetect.detector_factory.init_factory()
    assert langdetect.detector_factory._factory.seed == 8


def test_the_libraries_for_languages_are_loaded_at_first_use():
    program = "import flickr, sys; print({'langdetect', 'pycountry'} & set(sys.modules))"
    assert run_python("-c", program).stdout.strip() == "set()"


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=300))
def test_every_text_has_a_language_and_it_stays_the_same(text):
    locale = flickr.detect_locale(text)
    flickr.detect_language_tag.cache_clear()
    assert flickr.detect_locale(text) == locale
    assert Locale.from_string(str(locale)) == locale


@pytest.mark.parametrize("piece", ["<a ", "&", "<", "&#", "http://", "<b>", "[www."])
def test_a_long_and_odd_text_takes_no_longer_than_a_long_one(piece):
    # A pattern that went back and forth over this would take minutes.
    text = piece * 200_000 + "Magnifique lumière, bravo et merci pour le partage"
    assert isinstance(flickr.detect_locale(text), Locale)


# ------------------------------------------------------------- langdetect, at less cost


def plain_langdetect(text):
    """What langdetect says of a text by itself, seeded."""
    factory = langdetect.DetectorFactory()
    factory.load_profile(langdetect.detector_factory.PROFILES_DIRECTORY)
    factory.set_seed(0)

    def detect(text):
        detector = factory.create()
        detector.append(text)
        try:
            return detector.detect()
        except langdetect.lang_detect_exception.LangDetectException:
            return "en"

    return detect(text) if isinstance(text, str) else [detect(each) for each in text]


# Words of some scripts, in no order that makes sense.
WORDS = [
    "the", "pont", "đường", "Saigon", "für", "og", "año", "WOW", "İstanbul", "ă", "Ț", "ŠŽ",
    "нет", "улица", "Київ", "стара", "вулиця", "Οδός", "ქუჩა", "河内", "の写真", "ひろば", "서울",
    "거리", "شارع", "قديم", "خیابان", "רחוב", "ישן", "ถนน", "सड़क", "রাস্তা", "சாலை",
]  # fmt: skip


def odd_texts():
    chance = random.Random(7)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, 9))) for _ in range(150)]


def test_the_language_is_the_one_that_langdetect_itself_tells():
    photos = Photostream.generated(120).photos
    texts = [text for photo in photos for text in (photo.title, photo.description)]
    texts += ["Brilliant !", "WOW!!", "IMG_0001", "Huế 1920-1929", "genial la foto *.*", "no"]
    texts += odd_texts()
    texts = [text for text in texts if any(map(str.isalpha, flickr.prose_of(text)))]
    expected = plain_langdetect([flickr.prose_of(text) for text in texts])
    assert [flickr.detect_language_tag(flickr.letters_of(text)) for text in texts] == expected


def test_texts_that_differ_in_digits_and_punctuation_are_looked_at_once():
    flickr.detect_language_tag.cache_clear()
    for text in ("Le pont de Saigon, 1938 (3)", "Le pont de Saigon: 1974!", "Le pont de Saigon 99"):
        flickr.detect_locale(text)
    assert flickr.detect_language_tag.cache_info().misses == 1


def test_languages_are_detected_in_processes_as_in_this_one():
    texts = [photo.title for photo in Photostream.generated(40).photos]
    labels = [Label.detecting(text) for text in texts]
    detector = flickr.LanguageDetector(processes=2)
    try:
        detector.detect(labels)
        assert [str(label._locale) for label in labels] == [
            str(flickr.detect_locale(text)) for text in texts
        ]
    finally:
        detector.close()


def looked_at_here():
    return flickr.detect_language_tag.cache_info().misses


def test_what_was_foreseen_is_known_when_it_is_asked_for():
    texts = [photo.title for photo in Photostream.generated(60).photos] + ["1938"]
    expected = [flickr.detect_locale(text) for text in texts]
    labels = [Label.detecting(text) for text in texts]
    flickr.detect_language_tag.cache_clear()
    detector = flickr.LanguageDetector(processes=1)
    try:
        detector.start()
        detector.foresee(labels)
        detector.detect(labels[-5:])
        # What was asked for at once has come by the time that the last is there.
        detector._processes[0]._process.kill()
        detector.detect(labels)
        assert [label.locale for label in labels] == expected
        assert looked_at_here() == 1, "none but those without letters"
    finally:
        detector.close()


def test_without_a_process_languages_are_detected_all_the_same(monkeypatch):
    monkeypatch.setattr(flickr.sys, "executable", "/there/is/no/such/program")
    flickr.detect_language_tag.cache_clear()
    detector = flickr.LanguageDetector(processes=1)
    label = Label.detecting("Le pont de Saigon")
    detector.start()
    detector.foresee([label])
    detector.detect([label])
    assert str(label.locale) == "fra" and looked_at_here() == 1
    detector.close()


def test_the_languages_asked_for_at_the_end_of_a_detector_are_told_too():
    detector = flickr.LanguageDetector(processes=1)
    labels = [Label.detecting(photo.title) for photo in Photostream.generated(200).photos]
    detector.foresee(labels)
    detector.close()
    detector.detect(labels[:3])
    assert [label.locale for label in labels[:3]] == [
        flickr.detect_locale(label.content) for label in labels[:3]
    ]
    detector.close()


@pytest.mark.parametrize("answer", ['["fr"]', "[]", "5", "null", '{"a": 1}', "Traceback", "\\xff"])
def test_a_process_that_answers_oddly_is_not_waited_for(monkeypatch, tmp_path, answer):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nread texts\nprintf '{answer}\\n'\nexec cat > /dev/null\n")
    program.chmod(0o755)
    monkeypatch.setattr(flickr.sys, "executable", str(program))
    detector = flickr.LanguageDetector(processes=1)
    labels = [Label.detecting("Le pont de Saigon"), Label.detecting("Đoàn công tác tại Côn Đảo")]
    detector.detect(labels)
    assert [str(label._locale) for label in labels] == ["fra", "vie"]
    detector.close()


def test_when_one_process_is_killed_the_other_goes_on():
    detector = flickr.LanguageDetector(processes=2)
    try:
        labels = [Label.detecting(text) for text in odd_texts()]
        detector.foresee(labels[:100])
        detector.detect(labels[:100])
        first, _ = detector._processes
        first._process.kill()
        for thread in first._threads:
            thread.join(5)
        flickr.detect_language_tag.cache_clear()
        detector.detect(labels)
        assert looked_at_here() == 0
    finally:
        detector.close()


def test_what_was_asked_of_a_detector_that_was_closed_is_asked_again():
    detector = flickr.LanguageDetector(processes=1)
    labels = [Label.detecting(photo.title) for photo in Photostream.generated(200).photos]
    detector.foresee(labels)
    detector.close()
    flickr.detect_language_tag.cache_clear()
    try:
        detector.detect(labels)
        assert looked_at_here() == 0
    finally:
        detector.close()


def test_who_waits_for_a_language_waits_no_longer_when_the_detector_is_closed():
    detector = flickr.LanguageDetector(processes=1)
    labels = [Label.detecting(photo.title) for photo in Photostream.generated(3000).photos]
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(detector.detect, labels)
        while not detector._processes:
            time.sleep(0.01)
        detector.close()
        with pytest.raises(CancelledError):
            waiting.result(timeout=5)


def test_a_text_that_a_killed_process_was_asked_is_looked_at_here_once():
    detector = flickr.LanguageDetector(processes=1)
    try:
        detector.detect([Label.detecting("Le pont de Saigon")])
        detector._processes[0]._process.kill()
        flickr.detect_language_tag.cache_clear()
        for _ in range(3):
            detector.detect([Label.detecting("La rue Catinat")])
        told = flickr.detect_language_tag.cache_info()
        assert told.misses == 1
    finally:
        detector.close()


def test_a_process_that_is_killed_does_not_take_the_answers_with_it():
    detector = flickr.LanguageDetector(processes=1)
    try:
        detector.detect([Label.detecting("Le pont de Saigon")])
        detector._processes[0]._process.kill()
        labels = [Label.detecting("Đoàn công tác tại Côn Đảo"), Label.detecting("1938")]
        detector.detect(labels)
        assert [str(label.locale) for label in labels] == ["vie", "eng"]
    finally:
        detector.close()
