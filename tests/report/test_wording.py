import pytest

from ooc_diffusion.report import wording


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0, "0 ms"),
        (0.1234, "123 ms"),
        (0.9999, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (7384, "2 h 03 min"),
        (90_000, "1 d 01 h"),
    ],
)
def test_duration(seconds, expected):
    assert wording.duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7384, "2 h 03 min")]
)
def test_time_left(seconds, expected):
    assert wording.time_left(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "–"), (float("nan"), "–"), (0.0, "0.000"), (1.0, "1.000"), (0.12345, "0.123"), (0.00002, "2e-05")],
)
def test_confidence(value, expected):
    assert wording.confidence(value) == expected


def test_counted():
    assert [wording.counted(n, "class") for n in (0, 1, 2000)] == ["0 classes", "1 class", "2,000 classes"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("naïve 貓 👩‍👧 a\u00a0b", "naïve 貓 👩‍👧 a\u00a0b"),
        ("a\tb\r\n\x7f\x85", "a\\tb\\r\\n\\x7f\\x85"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf\\xe9"),
        ("\u2028\u2066", "\\u2028\\u2066"),
    ],
)
def test_visible(text, expected):
    assert wording.visible(text) == expected
