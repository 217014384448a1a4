"""What English text is taken from packages: data, one entry a source."""

from __future__ import annotations

from dataclasses import dataclass

NAVIGATION = ("*genindex*", "*/search.html", "*/_modules/*", "*/contents.html")
"""Pages that list others."""


@dataclass(frozen=True)
class TextSource:
    """Text of one package.

    Attributes:
        name: Of the source and its file.
        package: The package's name; of a wheel with its version, NAME==VERSION.
        licence: That of the text.
        reader: A key of `readers.READERS`.
        files: Patterns (`fnmatch`) of the files that hold text.
        skip: Patterns of files that do not, though `files` matches them.
        grouped: Whether short units, as they come, are joined to one document.
        kind: A key of `packages.KINDS`: "debian" (a package of Debian's main section), "descriptions" (what Debian says
            of its packages) or "wheel" (a Python package).
    """

    name: str
    package: str
    licence: str
    reader: str = "html"
    files: tuple[str, ...] = ("*.html",)
    skip: tuple[str, ...] = NAVIGATION
    grouped: bool = False
    kind: str = "debian"


def _dictionary(package: str, licence: str) -> TextSource:
    return TextSource(package, package, licence, "dictionary", ("*.dict.dz",), grouped=True)


SOURCES: tuple[TextSource, ...] = (
    TextSource("anarchism", "anarchism", "GPL-2"),
    _dictionary("dict-gcide", "GPL-3+"),
    _dictionary("dict-wn", "WordNet 3.0"),
    _dictionary("dict-foldoc", "GFDL-1.1+"),
    _dictionary("dict-jargon", "public domain"),
    TextSource(
        "fortunes", "fortunes", "BSD", "sayings", ("usr/share/games/fortunes/*",),
        ("*.dat", "*.u8", "*/off/*", "*/ascii-art"), grouped=True,
    ),
    TextSource("perl", "perl-doc", "GPL-1+ or Artistic", "pod", ("*.pod",), ("*/perltoc.pod",)),
    TextSource("python", "python3.11-doc", "PSF-2"),
    TextSource("postgresql", "postgresql-doc-15", "PostgreSQL"),
    TextSource("sqlite", "sqlite3-doc", "public domain"),
    TextSource("linux", "linux-doc-6.1", "GPL-2", skip=(*NAVIGATION, "*/translations/*")),
    TextSource("git", "git-doc", "GPL-2"),
    TextSource("vim", "vim-doc", "Vim, OPL-1+"),
    TextSource("apache", "apache2-doc", "Apache-2.0", files=("*/manual/en/*.html",)),
    TextSource("postfix", "postfix-doc", "IPL-1.0 or EPL-2.0"),
    TextSource("exim", "exim4-doc-html", "GPL-2+"),
    TextSource("django", "python-django-doc", "BSD-3-Clause"),
    TextSource("nodejs", "nodejs-doc", "MIT"),
    TextSource("cmake", "cmake-doc", "BSD-3-Clause"),
    TextSource("libreoffice", "libreoffice-help-en-us", "MPL-2.0"),
    TextSource("debian-handbook", "debian-handbook", "GPL-2+ or CC-BY-SA-3.0", files=("*/html/en-US/*.html",)),
    TextSource("debian-policy", "debian-policy", "GPL-2+"),
    TextSource("developers-reference", "developers-reference", "GPL-2+"),
    TextSource("debian-reference", "debian-reference-en", "GPL-2+"),
    TextSource(
        "descriptions", "Translation-en", "each package's", "descriptions", ("*_Translation-en",), (), grouped=True,
        kind="descriptions",
    ),
    TextSource(
        "botocore", "botocore==1.44.8", "Apache-2.0", "interface", ("botocore/data/*/service-2.json*",), (),
        grouped=True, kind="wheel",
    ),
    TextSource(
        "google-api", "google-api-python-client==2.202.0", "Apache-2.0", "interface",
        ("googleapiclient/discovery_cache/documents/*.json",), (), grouped=True, kind="wheel",
    ),
)  # fmt: skip
"""In the order in which they are read: a paragraph is taken from the first source that has it."""
