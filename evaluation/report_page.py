"""Turn a Markdown report into one HTML file that opens from disk: its pictures are inside, and it loads nothing."""

import base64
import mimetypes
from html import escape
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

from artifacts.files import write_text

# Wide tables and pictures scroll by themselves on a phone; on paper they wrap and shrink.
STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --page: #ffffff; --line: #d0d7de; --shade: #f3f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e3e8ee; --page: #14181d; --line: #3a424c; --shade: #1f252c; }
}
body { margin: 0 auto; padding: 1rem; max-width: 58rem; color: var(--text); background: var(--page);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1, h2, h3, h4 { line-height: 1.25; margin: 1.6em 0 0.5em; }
h1 { margin-top: 0; }
h2 { border-bottom: 1px solid var(--line); padding-bottom: 0.2em; }
table { border-collapse: collapse; display: block; max-width: 100%; overflow-x: auto; font-size: 0.92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { background: var(--shade); }
td:first-child { min-width: 9rem; }
td[style*="right"] { white-space: nowrap; }
pre { padding: 0.6rem; background: var(--shade); white-space: pre-wrap; overflow-wrap: anywhere; }
p:has(> img) { overflow-x: auto; }
img { width: 100%; min-width: 36rem; height: auto; box-sizing: border-box; padding: 0.5rem; background: #ffffff; }
@media print {
  :root { color-scheme: light; --text: #000000; --page: #ffffff; --line: #b0b0b0; --shade: #f0f0f0; }
  @page { margin: 1.5cm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  table { display: table; width: 100%; font-size: 8.5pt; }
  td:first-child { min-width: 0; }
  tr, img { break-inside: avoid; }
  h1, h2, h3, h4 { break-after: avoid; }
  img { min-width: 0; padding: 0; }
}
"""
# A browser then loads nothing and runs nothing, whatever a name in the report looks like.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def data_uri(path: Path) -> str:
    """Return a picture's file as an address that contains it."""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def inline_picture(token: Token, folder: Path) -> None:
    """Put a picture into its token; one that is not in the folder is replaced by its caption."""
    path = folder / unquote(str(token.attrs["src"]))
    if path.is_file():
        token.attrs["src"] = data_uri(path)
    else:
        token.type = "text"


def render_page(text: str, folder: Path) -> str:
    """Return Markdown as a page of HTML, with the pictures that it shows from a folder.

    HTML in the text is shown as text. The page's title is the text's first heading.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                inline_picture(child, folder)
    heading = next((tokens[number + 1] for number, one in enumerate(tokens) if one.type == "heading_open"), None)
    title = "".join(child.content for child in heading.children or ()) if heading else ""
    body = markdown.renderer.render(tokens, markdown.options, {})
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def write_page(report: Path) -> Path:
    """Write a report's page beside it, under its name with the suffix `.html`; return the page's path."""
    path = report.with_suffix(".html")
    write_text(path, render_page(report.read_text(encoding="utf-8"), report.parent))
    return path
