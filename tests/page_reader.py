"""Parses HTML pages strictly."""

from html.parser import HTMLParser

from san_jax.drawing import html_page


class Page(HTMLParser):
    """The elements and texts of a page; fails if the tags are not balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in html_page.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    def named(self, tag, **attributes):
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]
