"""The page in a browser: what a reader would see, not what was written."""

import shutil
import subprocess

import pytest

from ooc_diffusion.report import Stop, Walk, WalkPage, render_walks, write_page, write_study

from .samples import parse, sample_page, sample_study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on this machine")

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]

# Reads the page after everything was decoded and laid out, and leaves the figures as attributes of the body.
PROBE = """<script>addEventListener("load", () => {
  const count = (name, number) => document.body.setAttribute("data-" + name, number);
  const images = [...document.images];
  count("images", images.length);
  count("decoded", images.filter(image => image.naturalWidth > 0).length);
  count("visible", images.filter(image => image.getBoundingClientRect().width > 20).length);
  count("sideways", document.documentElement.scrollWidth - document.documentElement.clientWidth);
  count("plots", [...document.querySelectorAll(".plot svg")].filter(p => p.getBoundingClientRect().height > 100).length);
  count("frame", getComputedStyle(document.querySelector(".wrong img")).borderTopColor);
  count("fetched", performance.getEntriesByType("resource").filter(r => !r.name.startsWith("data:")).length);
});</script></body>"""


def dom(path, profile, *flags):
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags, "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return parse(done.stdout)


def test_the_browser_finds_every_part(tmp_path):
    write_page(sample_page(), tmp_path / "page.html")
    tree = dom(tmp_path / "page.html", tmp_path / "profile")
    for part in ("summary", "accuracy", "classes", "unreached", "unreadable", "stages", "about", "class-0", "class-1"):
        assert len(tree.find(id=part)) == 1
    assert len(tree.find("li", cls="tile")) == 9
    assert tree.one("table", id="accuracy-table").find("td")[0].text == "42.1 ± 5.2"
    assert tree.one("table", id="stages-table").one("tfoot").text.startswith("Total 800 MiB 600 MiB")


@pytest.mark.parametrize("width", [420, 1200])
def test_the_browser_shows_every_image_and_fetches_nothing(tmp_path, width):
    write_page(sample_page(), tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    # The page forbids scripts, its own policy included; the probe needs one.
    probed = html.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'").replace("</body>", PROBE)
    (tmp_path / "probed.html").write_text(probed, encoding="utf-8")
    body = dom(tmp_path / "probed.html", tmp_path / "profile", f"--window-size={width},900").one("body").attributes
    assert body["data-images"] == body["data-decoded"] == body["data-visible"] == "8"
    assert body["data-plots"] == "3"
    assert body["data-sideways"] == "0"
    assert body["data-fetched"] == "0"
    assert body["data-frame"] == "rgb(194, 47, 31)"


# Whether the page can be scrolled sideways, and which boxes can.
SIDEWAYS = """<script>addEventListener("load", () => {
  const wider = box => box.scrollWidth > box.clientWidth;
  document.body.setAttribute("data-page", wider(document.documentElement));
  document.body.setAttribute("data-boxes", [...document.querySelectorAll(".scroll")].filter(wider).length);
});</script></body>"""


@pytest.mark.parametrize("width", [420, 800, 1200])
def test_wide_tables_and_walks_never_make_the_page_wider_than_its_window(tmp_path, width):
    write_study(sample_study(), tmp_path / "study.html")
    stops = [Stop(None, f"a/long/way/to/{i}.png", f"t = {i}", 0.5) for i in range(15)]
    walks = WalkPage("Paths", [("Images", 1)], [Walk("a/b.png", "cat/" * 20, "predicted", stops, "dog")])
    (tmp_path / "walks.html").write_text(render_walks(walks), encoding="utf-8")
    for name, scrolling in (("study", "4"), ("walks", "0")):  # the four grids of 16 columns
        html = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        probed = html.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'").replace("</body>", SIDEWAYS)
        (tmp_path / "probed.html").write_text(probed, encoding="utf-8")
        body = dom(tmp_path / "probed.html", tmp_path / name, f"--window-size={width},900").one("body").attributes
        assert (body["data-page"], body["data-boxes"]) == ("false", scrolling)
