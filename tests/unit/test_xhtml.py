"""Whatever a page holds: what comes out is a whitelist of elements without attributes, and well-formed."""

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mkiso.browse.pictures import BODY, DEEPEST, ELEMENTS, FOOTER, PARENTS, harmless

FOREIGN = (
    "a base body h1 h5 head html iframe img math meta object plaintext script span style svg template textarea title"
)
NAMES = [*sorted(ELEMENTS), *FOREIGN.split()]
TAGS = [
    pattern.format(name)
    for name in NAMES
    for pattern in ("<{}>", "</{}>", "<{} />", '<{} onload="x()" class="super">', "<{}\n", "</{}", "<{} a='")
]
PIECES = st.one_of(
    st.sampled_from(
        [*TAGS, "<!--", "-->", "<![CDATA[", "]]>", "<?xml", "?>", "<!DOCTYPE", "&", "&lt;", "&#0;", "<", ">"]
    ),
    st.sampled_from(["&#x1;", "&amp;lt;", "\0", "\x0b", "￾", BODY, FOOTER, '"', "'"]),
    st.text(max_size=8),
)


def tree(page: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<body>{harmless(page)}</body>")


def text_of(page: str) -> str:
    return "".join(tree(page).itertext())


@settings(max_examples=1000)
@given(st.lists(PIECES, min_size=1, max_size=40).map("".join))
def test_the_result_is_always_well_formed_and_of_the_whitelist(page: str) -> None:
    for parent in tree(page).iter():
        assert parent.tag in ELEMENTS | {"body"}
        assert not parent.attrib
        assert all(parent.tag in PARENTS.get(child.tag, {parent.tag}) for child in parent)


@given(st.text("<>&\"'!-/ abscript", max_size=60))
def test_there_is_no_markup_in_the_result_but_its_elements(page: str) -> None:
    rest = harmless(page)
    for name in ELEMENTS:
        rest = rest.replace(f"<{name}>", "").replace(f"</{name}>", "").replace(f"<{name} />", "")
    assert "<" not in rest


@pytest.mark.parametrize(
    ("page", "becomes"),
    [
        ("<h1>A</h1><h2>B</h2><h3>C</h3><h6>D</h6>", "<h2>A</h2><h3>B</h3><h4>C</h4><h4>D</h4>"),
        ('<a href="http://localhost/x">CT <b>image</b></a>', "CT <b>image</b>"),
        ('A mass of <span class="num">3 cm</span>', "A mass of 3 cm"),
        ('mass of<span class="super"><a id="x">1</a></span> 3 cm', "mass of<sup>1</sup> 3 cm"),
        ("one<br>two<br/>three<hr />", "one<br />two<br />three<hr />"),
        ("<p>one<p>two", "<p>one<p>two</p></p>"),
        ("<b><i>both</b> none</i>", "<b><i>both</i></b> none"),
        ("<div>a</div></div></table>b", "<div>a</div>b"),
        ('<td onclick="x()">cell</td><tr><td>', "cell"),
        ("<table><td>a</td><tr><td>b</td></tr></table>", "<table>a<tr><td>b</td></tr></table>"),
        ("<script>alert(1)</script>after", "alert(1)after"),
        ("<script>never ended <b>here</b>", "never ended <b>here</b>"),
        ("<style>p{}</style>after", "p{}after"),
        ("a<!-- said -->b", "a said b"),
        ("&lt;script&gt; &amp; &eacute;", "&lt;script&gt; &amp; é"),
        ("&amp;lt;b&amp;gt;", "&amp;lt;b&amp;gt;"),
        ('"><img src=x onerror=alert(1)>', '"&gt;'),
        ("a\x00b\x1bc&#1;", "a b c"),
    ],
)
def test_what_becomes_of_markup(page: str, becomes: str) -> None:
    assert harmless(page) == becomes


def test_the_head_and_the_footer_are_left_out() -> None:
    page = f"<html><head><title>T</title></head>\n{BODY}\n<p>said</p>\n{FOOTER}\nby OFFIS</div>\n</body></html>"
    assert harmless(page) == "<p>said</p>"


def test_a_text_that_looks_like_the_footer_ends_nothing() -> None:
    page = f"{BODY}<p>one</p>{FOOTER}</div><p>two</p>{FOOTER}by OFFIS</div></body>"
    assert text_of(page).split() == ["one", "two"]


def test_a_comment_that_never_ends_hides_nothing() -> None:
    assert "the finding" in text_of(f"{BODY}1.2.3<!-- <p>the finding</p>{FOOTER}</div></body>")


def test_elements_that_never_end_are_not_nested_without_end() -> None:
    page = harmless("<div>" * 100_000 + "deep")
    assert (page.count("<div>"), page.count("</div>")) == (DEEPEST, DEEPEST)
    assert "deep" in page
