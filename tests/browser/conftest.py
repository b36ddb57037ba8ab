"""A browser, and pages of it that open a server's page and say nothing in the console."""

import pytest
from playwright.sync_api import expect, sync_playwright
from runs import save_run

from san_jax import model as models

CHROMIUM = "/usr/bin/chromium"
expect.set_options(timeout=20_000)  # ms; the machine may have other work


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return models.load(save_run(tmp_path_factory.mktemp("run"), mode="baseline"))


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        # Only our own page is opened; in containers there may be neither namespaces for a sandbox nor much of /dev/shm.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@pytest.fixture
def opened(browser):
    """`opened(address, **options of the browser's context)`: a page, which must load nothing from elsewhere."""
    contexts, said = [], []

    def open_page(address, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **options})
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        own = f"http://{address[0]}:{address[1]}/"
        # The browser itself writes a line about every request that is refused.
        page.on("console", lambda m: m.text.startswith("Failed to load resource") or said.append(m.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith((own, "blob:")) or said.append(asked.url))
        page.goto(own)
        page.wait_for_selector(".gallery")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
