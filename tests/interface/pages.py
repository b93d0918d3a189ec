"""Prefect's pages in a browser, as a person uses them: forms are filled in, buttons are pressed.

What is looked for is what a person sees: the words beside a field, the words on a button.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, expect, sync_playwright

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
#: Milliseconds; a busy machine takes seconds to draw a page.
PATIENCE = 60_000

expect.set_options(timeout=PATIENCE)


@contextmanager
def browser_page(chromium: Path, url: str) -> Iterator[Page]:
    """A page of a browser without windows, in which addresses begin at the server's."""
    with sync_playwright() as playwright:
        # Its sandbox wants rights that root in a container does not have.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        page = browser.new_page(base_url=url, viewport={"width": 1280, "height": 940})
        page.set_default_timeout(PATIENCE)
        try:
            yield page
        finally:
            browser.close()


def field(page: Page, title: str) -> Locator:
    """A field of a form, with its title, its explanation and its box."""
    titles = f"normalize-space()='{title}' or normalize-space()='{title} (Optional)'"
    is_field = "contains(concat(' ', @class, ' '), ' p-label ')"
    return page.locator(f"xpath=//div[{is_field}][./div/label[{titles}]]").first


def fill(page: Page, title: str, value: str) -> None:
    """Write into a field's box."""
    field(page, title).locator("input, textarea").first.fill(value)


def choose(page: Page, title: str, value: str) -> None:
    """Take one of a field's choices."""
    # By the keyboard: the list closes again when the page scrolls, as it does for a click.
    field(page, title).locator(".p-select-button__control").focus()
    page.keyboard.press("ArrowDown")
    page.get_by_role("option", name=value, exact=True).click()


def explanations(page: Page) -> list[str]:
    """What stands below the fields' titles, in one line each."""
    texts = page.locator(".p-label__description").all_inner_texts()
    return [" ".join(text.split()) for text in texts]


#: Puts other words in place of some, in what is shown and nowhere else.
RENAME = """
(pairs) => {
  const renamed = (text) => pairs.reduce((all, [own, shown]) => all.replaceAll(own, shown), text);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const { data } = texts.currentNode;
    if (renamed(data) !== data) texts.currentNode.data = renamed(data);
  }
  for (const box of document.querySelectorAll("input, textarea")) {
    if (renamed(box.value) !== box.value) box.value = renamed(box.value);
  }
}
"""


def picture(page: Page, name: str, shown: Mapping[str, str] | None = None) -> None:
    """Keep what is seen as a picture of the docs, where they are to be written anew.

    Args:
        shown: words of this test, such as a temporary folder, and those of the docs.
    """
    if os.environ.get("HPC_PREFECT_WRITE_DOCS"):
        path = PICTURES / f"{name}.png"
        page.mouse.move(0, 0)
        page.wait_for_load_state("networkidle")
        page.evaluate(RENAME, list((shown or {}).items()))
        page.screenshot(path=path, animations="disabled")
        # A third of the size, and nothing that a reader would see is lost.
        Image.open(path).quantize(128).save(path, optimize=True)
