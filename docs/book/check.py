"""Looks whether every link of a site leads to a file of it, and to an anchor that the file has."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    def __init__(self, file):
        super().__init__()
        self.anchors, self.links = set(), []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append((self.getpos()[0], value))


def problem(pages, root, file, link):
    """What is wrong with a link of a file; nothing if it leads somewhere."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None  # The pages' own test looks at these.
    if parts.path.startswith("/"):
        return "is absolute: the site may lie anywhere"
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(root) or not target.is_file():
        return "is no file"
    if parts.fragment and target in pages and parts.fragment not in pages[target].anchors:
        return "is no anchor there"
    return None


def main(root):
    root = Path(root).resolve()
    # It is shown in the place of any page.
    files = [file for file in sorted(root.rglob("*.html")) if file.name != "404.html"]
    pages = {file: Page(file) for file in files}
    count, dead = 0, 0
    for file, page in pages.items():
        for line, link in page.links:
            count += 1
            if why := problem(pages, root, file, link):
                dead += 1
                print(f"{file.relative_to(root)}:{line}: {link} {why}", file=sys.stderr)
    print(f"{root}: {len(pages)} pages, {count} links, {dead} of them dead")
    if dead or not count:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
