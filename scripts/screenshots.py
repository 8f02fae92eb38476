"""`./run screenshots [FOLDER]`: the pages, light and dark, English and Chinese, wide and narrow.

They show a copy of the embedded demo, so that looking leases no slot and changes nothing.
Default folder: docs/screenshots.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from playwright.sync_api import Browser, sync_playwright

from scripts.browser import FLAGS, find_chromium
from scripts.demo_copy import demo_copy, open_session, served
from scripts.terminal import Failure, say

WIDE, NARROW = (1280, 900), (390, 844)


class Page(NamedTuple):
    """One page as one person sees it; an empty session is a visitor who has not signed in."""

    name: str
    path: str
    session: str = ""
    press: str = ""  # a button to press first


class Look(NamedTuple):
    """One way to look at every page."""

    name: str
    scheme: str
    language: str
    size: tuple[int, int]


LOOKS = (
    Look("light", "light", "en", WIDE),
    Look("dark", "dark", "en", WIDE),
    Look("chinese", "light", "zh-CN", WIDE),
    Look("narrow", "light", "en", NARROW),
)


def main() -> int:
    """Copy, serve, draw."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs" / "screenshots").resolve()
    try:
        count = draw_all(folder)
    except Failure as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    say(f"{count} pictures are in {folder}.")
    return 0


def draw_all(folder: Path) -> int:
    """Draw every page in every look; returns the number of pictures."""
    executable = find_chromium()
    if executable is None:
        raise Failure("There is no Chromium or Chrome: install one, or set LABELHUB_CHROMIUM.")
    folder.mkdir(parents=True, exist_ok=True)
    with demo_copy() as var:
        pages = find_pages()
        with served(var) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
            for look in LOOKS:
                draw(browser, address, pages, look, folder)
            browser.close()
    return len(pages) * len(LOOKS)


def find_pages() -> list[Page]:
    """Return every kind of page that the demo has something for."""
    # Models can be imported only once Django is set up.
    from labelhub.accounts.models import User  # noqa: PLC0415
    from labelhub.projects.models import Membership, Project  # noqa: PLC0415
    from labelhub.runs.models import Run  # noqa: PLC0415

    project = Project.objects.order_by("is_simulated", "pk").first()
    if project is None:
        raise Failure("There is no project to draw yet: run ./run once.")
    User.objects.update(must_change_password=False)
    annotator = project.memberships.filter(
        role=Membership.Role.ANNOTATOR, user__is_simulated=False
    ).first()
    admin = User.objects.filter(is_superuser=True).first()
    home = f"/dashboard/{project.slug}/"
    pages = [Page("sign-in", "/accounts/login/")]
    if annotator is not None:
        session = open_session(annotator.user)
        pages += [
            Page("annotate-projects", "/annotate/", session),
            Page("annotate-board", "/annotate/", session, press="main form[method=post] button"),
        ]
    if admin is None:
        return pages
    session = open_session(admin)
    names = ("people", "prompts", "guidelines", "versions", "runs")
    pages += [Page("dashboard", "/dashboard/", session), Page("project", home, session)]
    pages += [Page(name, f"{home}{name}/", session) for name in names]
    pages += [Page("tokens", "/accounts/tokens/", session), Page("api", "/api/v1/docs/", session)]
    if (latest := project.rounds.order_by("number").last()) is not None:
        pages.append(Page("round", f"{home}rounds/{latest.number}/", session))
    for stage in Run.Stage.values:
        if (run := project.runs.filter(stage=stage).order_by("pk").last()) is not None:
            pages.append(Page(f"run-{stage}", f"{home}runs/{run.pk}/", session))
    return pages


def draw(browser: Browser, address: str, pages: list[Page], look: Look, folder: Path) -> None:
    """Take one picture of every page."""
    width, height = look.size
    for page in pages:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if look.scheme == "dark" else "light",
            locale=look.language,
            reduced_motion="reduce",
        )
        if page.session:
            # The type that Playwright wants here lies in a private module of its own.
            cookie: Any = {"name": "sessionid", "value": page.session, "url": address}
            context.add_cookies([cookie])
        tab = context.new_page()
        answer = tab.goto(f"{address}{page.path}", wait_until="load")
        status = answer.status if answer else 0
        if status != 200:
            say(f"    {page.path} answered {status}")
        if page.press and tab.locator(page.press).count():
            tab.locator(page.press).first.click()
            tab.wait_for_load_state("load")
        tab.screenshot(path=folder / f"{page.name}-{look.name}.png", full_page=True)
        context.close()
    say(f"    {look.name}: {len(pages)} pages")


if __name__ == "__main__":
    sys.exit(main())
