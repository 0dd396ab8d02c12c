import re
from types import SimpleNamespace

import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.memory import format_size, machine_memory, parse_size, sizes

TOTAL = 10_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4G", 4_000_000_000),
        ("4g", 4_000_000_000),
        ("4GB", 4_000_000_000),
        ("4gb", 4_000_000_000),
        ("4GiB", 4 * 2**30),
        ("4gib", 4 * 2**30),
        ("4Gi", 4 * 2**30),
        ("4 GiB", 4 * 2**30),
        (" 4 GiB ", 4 * 2**30),
        ("4GiB\n", 4 * 2**30),
        ("\t4GiB", 4 * 2**30),
        ("04GiB", 4 * 2**30),
        ("0.5GiB", 2**29),
        ("1.5G", 1_500_000_000),
        ("64MiB", 64 * 2**20),
        ("67108864B", 64 * 2**20),
        ("65536KiB", 64 * 2**20),
        ("100000K", 100_000_000),
        ("500MB", 500_000_000),
        ("2T", 2_000_000_000_000),
        ("2TiB", 2 * 2**40),
        ("80%", 8_000_000_000),
        ("80 %", 8_000_000_000),
        ("12.5%", 1_250_000_000),
        ("100%", TOTAL),
    ],
)
def test_sizes(text, expected):
    found = parse_size(text, total=TOTAL)
    assert found == expected
    assert type(found) is int


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "\n",
            "4",
            "-1G",
            "+4G",
            "4 bananas",
            "4Gib b",
            "4 G i B",
            "GiB",
            "G4",
            "4,5G",
            "4.G",
            ".5GiB",
            "1_000M",
            "4..0G",
        ),
        *(
            "４GiB",
            "4ＧiB",
            "٤GiB",
            "4\u212aiB",
            "4Gi\u0412",
            "1e9B",
            "1e1GiB",
            "0x40MiB",
            "inf",
            "infGiB",
            "nan",
            "nan%",
            "NaNGiB",
        ),
        *(
            "%",
            "4%%",
            "-5%",
            "4PiB",
            "4EB",
            "4bit",
            "4GBit",
            "4GiBB",
            "4iB",
            "4Bi",
            "autos",
            "auto 4G",
            "4G auto",
            "4G;8G",
            "4G\x00",
        ),
        *("None", "True", "--", "4GiB/s", "4\u00a0GiB", "4\u2009GiB", "四G", "½GiB", "4GİB", "unlimited", "max", "0", "00"),
    ],
)
def test_what_is_no_size(text):
    with pytest.raises(BadInput) as error:
        parse_size(text, total=TOTAL)
    assert error.value.exit_code == 3
    message = str(error.value)
    assert message.startswith(f"size {text!r} is not a number with a unit such as 8GiB, 500MB or 80%, nor auto")
    assert "\n" not in message
    assert ("did you mean" in message) == bool(re.fullmatch(r"[0-9]+", text))


@pytest.mark.parametrize(("text", "hint"), [("4", "4GiB"), (" 16 ", "16GiB"), ("0.5", "0.5GiB")])
def test_a_bare_number_gets_a_hint(text, hint):
    with pytest.raises(BadInput, match=rf"did you mean {re.escape(hint)}\?$"):
        parse_size(text, total=TOTAL)


@pytest.mark.parametrize(
    ("text", "total", "why"),
    [
        ("63MiB", TOTAL, "below the smallest that makes sense, 64MiB"),
        ("64M", TOTAL, "below the smallest"),
        ("67108863B", TOTAL, "below the smallest"),
        ("0G", TOTAL, "below the smallest"),
        ("0%", TOTAL, "below the smallest"),
        ("4B", TOTAL, "below the smallest"),
        ("1%", 10**9, "below the smallest"),
        ("101%", TOTAL, "more than all of the memory; give at most 100%"),
        ("100.1%", TOTAL, "more than all of the memory"),
        ("1000%", TOTAL, "more than all of the memory"),
        ("9" * 400 + "GiB", TOTAL, "too large to be meant"),
    ],
)
def test_sizes_out_of_bounds(text, total, why):
    with pytest.raises(BadInput, match=why) as error:
        parse_size(text, total=total)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("text", ["auto", "AUTO", " Auto\n"])
def test_auto_is_a_share_of_what_is_available(monkeypatch, text):
    monkeypatch.setattr(sizes.psutil, "virtual_memory", lambda: SimpleNamespace(total=16 * 10**9, available=5 * 10**9))
    assert parse_size(text, total=16 * 10**9) == 3 * 10**9
    assert parse_size(text, total=2 * 10**9) == 12 * 10**8
    assert parse_size(text, total=10**6) == 64 * 2**20


def test_machine_memory_is_that_of_the_cgroup_where_it_is_less(monkeypatch, tmp_path):
    files = tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"
    monkeypatch.setattr(sizes, "_CGROUP_LIMITS", files)
    monkeypatch.setattr(sizes.psutil, "virtual_memory", lambda: SimpleNamespace(total=8 * 10**9, available=10**9))
    assert machine_memory() == 8 * 10**9
    files[0].write_text("max\n")
    assert machine_memory() == 8 * 10**9
    files[0].write_text("3000000000\n")
    assert machine_memory() == 3 * 10**9
    files[1].write_text("2000000000\n")
    assert machine_memory() == 2 * 10**9
    assert parse_size("50%") == 10**9
    files[0].write_text("nonsense")
    files[1].write_text("9223372036854771712\n")  # what version 1 says where there is no limit
    assert machine_memory() == 8 * 10**9


def test_machine_memory_of_this_machine():
    import psutil

    assert 2**26 < machine_memory() <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (123 * 1024, "123 KiB"),
        (999.4 * 1024, "999 KiB"),
        (999.9 * 1024, "1000 KiB"),
        (1000 * 1024, "1000 KiB"),
        (1023 * 2**20, "1023 MiB"),
        (1023.9 * 2**20, "1 GiB"),
        (8 * 10**9, "7.45 GiB"),
        (64 * 2**20, "64 MiB"),
        (2**40, "1 TiB"),
        (5000 * 2**40, "5000 TiB"),
        (-1536, "-1.5 KiB"),
    ],
)
def test_format_size(size, text):
    assert format_size(size) == text
    assert "e+" not in format_size(size)


def test_every_size_is_written_without_an_exponent():
    for exponent in range(60):
        for factor in (1, 1.5, 0.999, 0.9999, 0.99999, 0.976, 0.977):
            text = format_size(2**exponent * factor)
            number, unit = text.split(" ")
            assert 0 <= float(number) < 1024 or unit == "TiB"
            assert "e" not in number
