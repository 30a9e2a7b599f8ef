from collections.abc import Iterator

import pytest

from mkiso.config import Media
from mkiso.disc.product import CHUNK, Product, medium, require_max_size
from mkiso.errors import DiscTooLarge, Internal
from mkiso.process import Take


@pytest.mark.parametrize(
    ("largest", "name", "next_larger"),
    [
        (360_000 * 2048, "CD", "DVD"),
        (4_700_372_992, "DVD", "DVD DL"),
        (8_543_666_176, "DVD DL", "BD"),
        (25_025_314_816, "BD", None),
    ],
)
def test_the_medium_is_the_smallest_that_holds_the_disc(largest: int, name: str, next_larger: str | None) -> None:
    assert medium(largest) == name
    assert medium(largest + 1) == next_larger


def test_a_disc_of_the_largest_size_that_is_allowed_is_not_refused() -> None:
    require_max_size(10**12, Media())
    require_max_size(1000, Media(max_size=1000))
    with pytest.raises(DiscTooLarge) as raised:
        require_max_size(1001, Media(max_size=1000))
    assert raised.value.fields == {"size": 1001, "limit": 1000}


def test_a_product_has_its_first_bytes_at_once_and_gives_all() -> None:
    source = iter((b"AB", b"C"))
    product = Product(3, source)
    assert next(source) == b"C"
    assert list(Product(3, iter((b"AB", b"C"))).chunks()) == [b"AB", b"C"]
    assert product.size == 3


def given(product: Product) -> Iterator[bytes]:
    with pytest.raises(Internal):
        yield from product.chunks()


@pytest.mark.parametrize("chunks", [(b"AB",), (b"AB", b"CD"), (b"ABCD",)])
def test_another_number_of_bytes_than_was_told_is_internal_and_never_more_are_given(chunks: tuple[bytes, ...]) -> None:
    assert len(b"".join(given(Product(3, iter(chunks))))) < 3


def test_a_product_of_no_bytes_is_internal_before_its_first() -> None:
    with pytest.raises(Internal):
        Product(3, iter(()))


@pytest.mark.parametrize("taken", [0, 5])
def test_what_is_taken_lies_between_the_second_chunk_and_the_last(taken: int) -> None:
    asked: list[int] = []

    def pour(_take: Take, most: int) -> int:
        asked.append(most)
        return taken

    size = CHUNK + 100
    rest = bytes(size - 2 - taken)
    product = Product(size, iter((b"A", b"B", rest)), pour)
    chunks = product.chunks(lambda _pipe, _most: 0)
    assert (next(chunks), next(chunks)) == (b"A", b"B")
    assert asked == []  # before these are passed on
    assert list(chunks) == [rest]
    assert (asked, product.left) == ([size - 2 - CHUNK], 0)


def test_nothing_is_taken_where_nobody_takes() -> None:
    product = Product(3, iter((b"A", b"BC")), lambda _take, _most: pytest.fail("it is"))
    assert list(product.chunks()) == [b"A", b"BC"]
