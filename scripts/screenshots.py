"""`./run screenshots`: the six pictures of the documents, and on wish a picture of every page.

  ./run screenshots                   the six, into docs/screenshots
  ./run screenshots --all [FOLDER]    every page of your demo, light and dark, English and Chinese,
                                      wide and narrow, into var/screenshots

The six show a stage that `scripts/stage.py` sets: a database of its own with texts written for it
and made-up annotators. The pages of the demo are drawn from a copy, so that looking leases no slot.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Page as Tab

from scripts.browser import FLAGS, find_chromium
from scripts.demo_copy import demo_copy, empty_copy, open_session, served
from scripts.terminal import VAR, Failure, say

WIDE, NARROW = (1280, 900), (390, 844)


class Look(NamedTuple):
    """One way to look at a page."""

    name: str
    scheme: str = "light"
    language: str = "en"
    size: tuple[int, int] = WIDE


class Shot(NamedTuple):
    """One picture: the page as one person sees it after a few keys (an empty session: nobody)."""

    name: str
    path: str
    session: str = ""
    look: Look = Look("light")
    press: str = ""  # a button to press first
    keys: tuple[str, ...] = ()  # “@words” presses the letter of the card that begins so
    whole: bool = True  # the whole page, or what fits the window


LOOKS = (
    Look("light"),
    Look("dark", scheme="dark"),
    Look("chinese", language="zh-CN"),
    Look("narrow", size=NARROW),
)


def main() -> int:
    """Set the stage or copy the demo, serve, draw."""
    arguments = sys.argv[1:]
    every = arguments[:1] == ["--all"]
    rest = arguments[1:] if every else arguments
    folder = Path(rest[0]) if rest else (VAR if every else ROOT / "docs") / "screenshots"
    try:
        count = draw_demo(folder.resolve()) if every else draw_stage(folder.resolve())
    except Failure as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    say(f"{count} pictures are in {folder}.")
    return 0


def draw_stage(folder: Path) -> int:
    """Draw the six pictures of the documents."""
    with empty_copy() as var:
        # Models can be imported only once Django is set up.
        from scripts.stage import set_stage  # noqa: PLC0415

        stage = set_stage()
        sessions = {name: open_session(user) for name, user in stage.people.items()}
        bread = ("@Most likely", "@There are several", "@Yeast is", "@Throw it", "=")
        forward = "main form[method=post] button.main"
        shots = [
            Shot("board-wide", stage.paths["bread"], sessions["ann"], keys=bread, whole=False),
            # The window before gave the set back when it closed: it is taken anew.
            Shot(
                "board-phone", "/annotate/everyday/next/", sessions["ann"],
                Look("narrow", size=NARROW), press=forward, keys=bread[:2], whole=False,
            ),
            Shot("board-dark", stage.paths["mean"], sessions["ben"], LOOKS[1], whole=False),
            Shot(
                "board-chinese", stage.paths["sky"], sessions["cho"], LOOKS[2],
                keys=("@可以和孩子", "@阳光", "=", "@瑞利"), whole=False,
            ),
            Shot("quality", stage.paths["quality"], sessions["ada"]),
            Shot("review", stage.paths["review"], sessions["rey"], press=forward, whole=False),
        ]  # fmt: skip
        return draw(var, shots, folder)


def draw_demo(folder: Path) -> int:
    """Draw every kind of page that the demo has something for, in every look."""
    with demo_copy() as var:
        return draw(var, [s._replace(look=look) for look in LOOKS for s in find_pages()], folder)


def find_pages() -> list[Shot]:
    """Return every kind of page of the demo."""
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
    pages = [Shot("sign-in", "/accounts/login/")]
    if annotator is not None:
        desk, session = f"/annotate/{project.slug}/", open_session(annotator.user)
        pages += [
            Shot("annotate-projects", "/annotate/", session),
            Shot("annotate-board", "/annotate/", session, press="main form[method=post] button"),
        ]
        pages += [
            Shot(f"annotate-{name}", f"{desk}{name}/", session)
            for name in ("history", "me", "guidelines")
        ]
    if admin is None:
        return pages
    session = open_session(admin)
    names = [
        *("people", "prompts", "guidelines", "versions", "runs"),
        *("quality", "settings", "gold", "reports"),
    ]
    pages += [Shot("dashboard", "/dashboard/", session), Shot("project", home, session)]
    pages += [Shot(name, f"{home}{name}/", session) for name in names]
    pages += [Shot("tokens", "/accounts/tokens/", session), Shot("api", "/api/v1/docs/", session)]
    if (latest := project.rounds.order_by("number").last()) is not None:
        pages.append(Shot("round", f"{home}rounds/{latest.number}/", session))
    for stage in Run.Stage.values:
        if (run := project.runs.filter(stage=stage).order_by("pk").last()) is not None:
            pages.append(Shot(f"run-{stage}", f"{home}runs/{run.pk}/", session))
    return pages


def draw(var: Path, shots: list[Shot], folder: Path) -> int:
    """Take the pictures; returns how many."""
    executable = find_chromium()
    if executable is None:
        raise Failure("There is no Chromium or Chrome: install one, or set LABELHUB_CHROMIUM.")
    folder.mkdir(parents=True, exist_ok=True)
    alone = len({shot.name for shot in shots}) == len(shots)
    with served(var) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        for shot in shots:
            name = shot.name if alone else f"{shot.name}-{shot.look.name}"
            take(browser, address, shot, folder / f"{name}.png")
        browser.close()
    return len(shots)


def take(browser: Browser, address: str, shot: Shot, file: Path) -> None:
    """Open one page, do what the shot asks for, and keep the picture."""
    width, height = shot.look.size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if shot.look.scheme == "dark" else "light",
        locale=shot.look.language,
        reduced_motion="reduce",
    )
    if shot.session:
        # The type that Playwright wants here lies in a private module of its own.
        cookie: Any = {"name": "sessionid", "value": shot.session, "url": address}
        context.add_cookies([cookie])
    tab = context.new_page()
    answer = tab.goto(f"{address}{shot.path}", wait_until="load")
    status = answer.status if answer else 0
    if status != 200:
        say(f"    {shot.path} answered {status}")
    for step in (_press, _type):
        step(tab, shot)
    tab.screenshot(path=file, full_page=shot.whole)
    context.close()


def _press(tab: Tab, shot: Shot) -> None:
    if shot.press and tab.locator(shot.press).count():
        tab.locator(shot.press).first.click()
        tab.wait_for_load_state("load")


def _type(tab: Tab, shot: Shot) -> None:
    for key in shot.keys:
        tab.keyboard.press(_letter(tab, key[1:]) if key.startswith("@") else key)
    if shot.keys:
        tab.wait_for_timeout(400)  # the announcement and the drawing of the last move
        tab.evaluate("scrollTo(0, 0)")


def _letter(tab: Tab, words: str) -> str:
    """Cards stand in an order that hangs on their ids: find the one that is meant."""
    card = tab.locator(".answer", has_text=words).first
    return str(card.get_attribute("data-letter")).lower()


if __name__ == "__main__":
    sys.exit(main())
