"""Addresses: what is read, what is refused, and that text and value agree."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.network.address import (
    Address,
    AddressError,
    NamedAddress,
    parse_address,
    parse_named_address,
)

ports = st.integers(0, 65535)
names = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True)
hosts = names | st.ip_addresses().map(str)
addresses = st.builds(Address, hosts, ports)
sink_names = st.text(min_size=1).filter(
    lambda text: text.isprintable() and text == text.strip() and not {*"@,"} & {*text}
)


class TestAddress:
    """`HOST:PORT`."""

    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("127.0.0.1:7010", Address("127.0.0.1", 7010)),
            ("votes.example:0", Address("votes.example", 0)),
            ("localhost:65535", Address("localhost", 65535)),
            ("[::1]:7010", Address("::1", 7010)),
            ("[fe80::1%eth0]:1", Address("fe80::1%eth0", 1)),
        ],
    )
    def test_both_forms_are_read(self, text: str, address: Address) -> None:
        """Names, IPv4 and bracketed IPv6 are read, and written as they were."""
        assert parse_address(text) == address
        assert str(address) == text

    @given(addresses)
    def test_text_comes_back(self, address: Address) -> None:
        """What is written reads as the same address."""
        assert parse_address(str(address)) == address

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "7010",
            "localhost",
            "localhost:",
            ":7010",
            "localhost:65536",
            "localhost:-1",
            "localhost:+1",
            "localhost:7_0",
            "localhost: 7",
            "localhost:٣",
            "localhost:" + "9" * 5000,
            "::1:7010",
            "[::1]",
            "[::1:7010",
            "[::1%a,b]:7010",
            "[::1%a]:7010,[::1]:7010",
            "[localhost]:7010",
            "[]:7010",
            "a b\n:7010",
            " localhost:7010",
            "http://localhost:7010",
            "a,b:7010",
            "out@localhost:7010",
        ],
    )
    def test_anything_else_is_refused_in_one_line(self, text: str) -> None:
        """What is no address is an error that quotes it, in one line."""
        with pytest.raises(AddressError) as caught:
            parse_address(text)
        assert caught.value.text == text
        assert str(caught.value).startswith(f"{text!r} is no address: ")
        assert len(str(caught.value).splitlines()) == 1

    @given(st.text())
    def test_any_text_is_an_address_or_an_error(self, text: str) -> None:
        """No text does anything else, and what is read can be written and read."""
        try:
            address = parse_address(text)
        except AddressError:
            return
        assert parse_address(str(address)) == address

    @given(st.ip_addresses(v=6), ports)
    def test_ipv6_needs_its_brackets(
        self, host: ipaddress.IPv6Address, port: int
    ) -> None:
        """An IPv6 address without brackets is refused: its port would be a guess."""
        with pytest.raises(AddressError, match="brackets"):
            parse_address(f"{host}:{port}")


class TestNamedAddress:
    """`NAME@HOST:PORT`."""

    @given(st.builds(NamedAddress, st.none() | sink_names, addresses))
    def test_text_comes_back(self, named: NamedAddress) -> None:
        """What is written reads as the same address and name."""
        assert parse_named_address(str(named)) == named

    def test_a_name_may_have_spaces_and_colons(self) -> None:
        """A pipeline's name is free in what it may hold."""
        named = NamedAddress("my votes: all", Address("::1", 1))
        assert parse_named_address("my votes: all@[::1]:1") == named

    @pytest.mark.parametrize(
        "text", ["@h:1", "a@b@h:1", " a@h:1", "a,b@h:1", "a\n@h:1", "a@", "a@h"]
    )
    def test_bad_names_are_refused(self, text: str) -> None:
        """A name that is empty, padded, or would not survive a list is an error."""
        with pytest.raises(AddressError):
            parse_named_address(text)
