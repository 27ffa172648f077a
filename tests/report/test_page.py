from jaxsal.report import Finding, Page, render

FINDING = Finding("<a>", "b & c", "1 mm³", "2 mm³", "50 %", 3, "max steps", "it ended", "here", ('"careful"',), b"png")
PAGE = Page(
    "t<itle", (("label", "v&lue"),), (FINDING,), ((("<a>",), "text"),), ("read",), "one\n\ntwo", ("credit",), "jaxsal 9"
)


def test_everything_is_escaped():
    text = render(PAGE)
    for escaped in ("&lt;a&gt;", "b &amp; c", "&quot;careful&quot;", "t&lt;itle", "v&amp;lue"):
        assert escaped in text
    assert "<a>" not in text


def test_paragraphs_of_a_record_stay_paragraphs():
    assert "<p>one</p>\n<p>two</p>" in render(PAGE)


def test_without_warnings_it_says_so():
    assert "<p>None.</p>" in render(PAGE._replace(warnings=()))
    assert "<p>None.</p>" not in render(PAGE)


def test_an_empty_record_is_said_to_be_empty():
    assert "Its record says nothing." in render(PAGE._replace(caveats=""))
