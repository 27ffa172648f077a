"""The report in a real browser, without a network: pictures decode, nothing is fetched, nothing runs over the edge."""

import io
import json
import re
import shutil
import subprocess

import matplotlib
import pytest

from jaxsal.report import Finding, Heading, Page, render

FORBIDS = "default-src 'none'"
PROBE = """<script>addEventListener("load", () => {
  const images = [...document.images].map(i => [i.complete, i.naturalWidth, i.alt.length > 0]);
  const fetched = performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:"));
  const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  const links = [...document.querySelectorAll("a[href^='#']")].map(a => document.querySelector(a.hash) !== null);
  const report = {images, fetched, wide, links, title: document.title, rows: document.querySelectorAll("tr").length};
  document.body.innerHTML = "<pre id=probe>" + JSON.stringify(report) + "</pre>";
});</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium: install it to test the report in a browser")
    return found


def picture() -> bytes:
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def look(chromium: str, page, width: int, tmp_path) -> dict:
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--window-size={width},900",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
    ]  # fmt: skip
    done = subprocess.run([chromium, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="probe">(.*)</pre>', done.stdout)
    assert found, done.stdout[-500:] + done.stderr[-500:]
    return json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))


@pytest.mark.parametrize("width", [1200, 500])
def test_the_report_opens_offline(chromium, tmp_path, width):
    finding = Finding(
        "left_hippocampus", "hippocampus", ("1 mm³", "2 mm³", "50 %", "max steps"), "1 mm³, recovered 50 %",
        "Status: max steps, it ended.", "here", ("careful",), picture(),
    )  # fmt: skip
    findings = (finding, finding._replace(name="right_hippocampus"))
    headings = tuple(map(Heading, ("Prediction", "From the mask alone", "Recovered", "Status")))
    page = Page(
        "sub-01", (("image", "a" * 80),), "caption", headings, findings, ((("left",), "text"),), ("read",), "one",
        ("me",), "jaxsal",
    )  # fmt: skip
    path = tmp_path / "report.html"
    text = render(page)
    assert text.count(FORBIDS) == 1  # nothing may be loaded or run; the probe alone is let through
    path.write_text(text.replace(FORBIDS, f"{FORBIDS}; script-src 'unsafe-inline'") + PROBE)
    seen = look(chromium, path, width, tmp_path)
    assert seen["images"] == [[True, 300, True]] * 2
    assert seen["fetched"] == []
    assert not seen["wide"]
    assert all(seen["links"])
    assert seen["rows"] >= 3
    assert "sub-01" in seen["title"]
