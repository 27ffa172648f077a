from jaxsal.report import Finding, Heading, Page, render

FINDING = Finding(
    "<a>", "b & c", ("1 <mm³>", "max & steps"), "1 mm³", "Status: max > steps, it ended.", "here", ('"careful"',),
    b"png",
)  # fmt: skip
PAGE = Page(
    "t<itle", (("label", "v&lue"),), "cap<tion", (Heading("he&ading"), Heading("Status", number=False)), (FINDING,),
    ((("<a>",), "text"),), ("read",), "one\n\ntwo", ("credit",), "jaxsal 9",
)  # fmt: skip


def test_everything_is_escaped():
    text = render(PAGE)
    texts = ("&lt;a&gt;", "b &amp; c", "&quot;careful&quot;", "t&lt;itle", "v&amp;lue")
    for escaped in (*texts, "cap&lt;tion", "he&amp;ading", "1 &lt;mm³&gt;", "max &amp; steps", "max &gt; steps"):
        assert escaped in text
    assert "<a>" not in text


def test_paragraphs_of_a_record_stay_paragraphs():
    assert "<p>one</p>\n<p>two</p>" in render(PAGE)


def test_without_warnings_it_says_so():
    assert "<p>None.</p>" in render(PAGE._replace(warnings=()))
    assert "<p>None.</p>" not in render(PAGE)


def test_an_empty_record_is_said_to_be_empty():
    assert "Its record says nothing." in render(PAGE._replace(caveats=""))


def test_the_table_has_a_cell_under_each_heading_and_numbers_are_marked():
    text = render(PAGE)
    assert '<th scope="col">Output</th><th scope="col">he&amp;ading</th><th scope="col">Status</th>' in text
    assert '<td class="number">1 &lt;mm³&gt;</td><td>max &amp; steps ⚠ see warnings</td></tr>' in text
    assert "see warnings" not in render(PAGE._replace(findings=(FINDING._replace(remarks=()),)))


def test_a_run_without_an_end_of_its_own_tells_none():
    assert "Status:" in render(PAGE)
    assert "Status:" not in render(PAGE._replace(findings=(FINDING._replace(outcome=""),)))
