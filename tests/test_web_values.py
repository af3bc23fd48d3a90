"""The pure parts of the page: measures, history, frames, and who is answered."""

import json
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alphabet.measures import SECONDS_BOUNDS, Histogram, count_outputs
from alphabet.outputs import Outputs
from alphabet.web.event_frames import changed, event_frame
from alphabet.web.gate import is_allowed_host, parse_sequence
from alphabet.web.history import SECONDS_MAX, History, quantile

TIMES = st.lists(st.floats(0, 100), max_size=50)
TOTALS = st.dictionaries(st.binary(min_size=1, max_size=1), st.integers(0, 2**64 - 1))


@given(TIMES)
def test_each_time_is_in_its_bucket(times: list[float]) -> None:
    """A bucket counts what is at most its bound and above the one before."""
    histogram = Histogram()
    for seconds in times:
        histogram.observe(seconds)
    for index, bound in enumerate(SECONDS_BOUNDS):
        below = sum(seconds <= bound for seconds in times)
        assert sum(histogram.counts[: index + 1]) == below
    assert sum(histogram.counts) == len(times)


@given(st.lists(st.integers(0, 3), max_size=30))
def test_outputs_are_counted(sizes: list[int]) -> None:
    """An event counts if its output has a byte."""
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    outputs = Outputs(1, bytes(sum(sizes)), ends)
    assert count_outputs(outputs) == sum(size > 0 for size in sizes)


@given(TIMES.filter(bool), st.floats(0.01, 1))
def test_quantile(times: list[float], share: float) -> None:
    """At least that share of all is at or below the quantile, and less below it."""
    found = quantile(sorted(times), share)
    assert found in times
    assert sum(each <= found for each in times) >= share * len(times) - 1e-9
    assert sum(each < found for each in times) < share * len(times)


def test_history_is_a_rate_for_each_second_and_bounded() -> None:
    """An entry has the events since the last by the time between; the newest stay."""
    history = History()
    for number in range(SECONDS_MAX + 5):
        history.note(2.0 * number, 1000.0 + number, 10 * number, [0.001 * number, 0.5])
    assert len(history.seconds) == SECONDS_MAX
    last = history.seconds[-1]
    assert last.events_per_second == 5.0
    assert (last.commits, last.time_seconds) == (2, 1000.0 + SECONDS_MAX + 4)
    assert History().note(0.0, 0.0, 7, []).events_per_second == 0.0


@given(TOTALS, TOTALS)
def test_changes_bring_one_from_the_other(
    before: dict[bytes, int], new: dict[bytes, int]
) -> None:
    """Totals and what changed since are the later totals, and nothing else is told."""
    after = {**before, **new}
    told = changed(before, after)
    assert {**before, **told} == after
    assert all(before.get(letter) != total for letter, total in told.items())


@given(st.text(max_size=20), st.integers(0, 2**64))
def test_a_frame_is_read_back(text: str, sequence: int) -> None:
    """Whatever is told, a frame has three lines and one empty one."""
    frame = event_frame("name", {"text": text}, sequence).decode()
    name, id_, data, *rest = frame.split("\n")
    assert (name, id_, rest) == ("event: name", f"id: {sequence}", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == {"text": text}


@pytest.mark.parametrize(
    ("header", "is_allowed"),
    [
        ("localhost:8010", True),
        ("LOCALHOST", True),
        ("127.0.0.1:1", True),
        ("[::1]:8010", True),
        ("[::1]", True),
        ("10.1.2.3", True),
        ("votes.example:8010", True),
        ("Votes.Example", True),
        ("count.example", True),
        ("count.example:443", True),
        ("a.count.example", False),
        ("count.example.", False),
        ("", False),
        ("evil.example", False),
        ("localhost.evil.example:8010", False),
        ("127.0.0.1.evil.example", False),
        ("[::1.evil.example]", False),
    ],
)
def test_who_may_be_asked_for(header: str, is_allowed: bool) -> None:
    """A host is an address, localhost, or one that the server was given."""
    assert is_allowed_host(header, {"votes.example", "count.example"}) is is_allowed


NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)
PORTS = st.one_of(st.just(""), st.integers(0).map(lambda port: f":{port}"))


@given(st.ip_addresses(), st.sampled_from(["localhost", "LocalHost", "V.x"]), PORTS)
def test_those_who_mean_us(
    address: IPv4Address | IPv6Address, name: str, port: str
) -> None:
    """Any address, localhost and an own name will do, in any case, with any port."""
    host = f"[{address}]" if address.version == 6 else str(address)
    for each in (host, host.upper(), name):
        assert is_allowed_host(each + port, {"v.x"})


@given(st.ip_addresses(), NAMES, PORTS)
@example(IPv6Address("::1"), "evil", "")
def test_an_address_with_more(
    address: IPv4Address | IPv6Address, name: str, port: str
) -> None:
    """No name becomes ours by an address, brackets or a port in it."""
    letters = f"x{name}"
    for host in (
        letters,
        f"[{address}]{letters}",
        f"[{address}]:{letters}",
        f"{letters}[{address}]",
        f"[{letters}]",
        f"[{address}",
        f"{address}]",
        f"[{address}%{letters}]",
        f"127.0.0.1:{letters}",
        f"127.0.0.1:80:{letters}",
        f"localhost:80@{letters}",
        f"[localhost]{port}",
        f"[127.0.0.1]{port}",
        f" [::1]{port}",
        f"127.0.0.1{port}\n",
    ):
        assert not is_allowed_host(host + port, {"v.x"}), host
    assert not is_allowed_host(f"[bad]{port}", {"bad"})


@given(st.text())
def test_any_text_for_a_host(header: str) -> None:
    """What has a character that no host has is nobody, and no error."""
    assert not is_allowed_host(f"{header}\N{KELVIN SIGN}", {"k", f"{header}k"})
    assert not is_allowed_host(f"{header}/", {header})


@given(st.text(max_size=25))
def test_a_sequence_is_digits(text: str) -> None:
    """What is read as a sequence is written in ASCII digits; all else is refused."""
    try:
        sequence = parse_sequence(text)
    except ValueError:
        assert not (text.isascii() and text.isdigit() and len(text) <= 20)
    else:
        assert text.lstrip("0") == (str(sequence) if sequence else "")
