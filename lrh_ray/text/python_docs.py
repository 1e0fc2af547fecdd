"""A real English corpus that is already there: the documentation of the Python that runs.

Source files of the standard library are parsed, never imported, so that reading has no side effects and does not
depend on what can be imported. A document is a help topic, a module's docstring with those of its public functions,
or a class's docstring with those of its public methods; long ones are cut at paragraphs. Tests, the IDLE editor,
code that converts code, tables of encodings and repeated texts are left out.

    documents = [reading.document for reading in read(PythonDocsSource(), Path())]

Two document labels: `library`, the part of the library a document is about (`python_library.py` has the table;
modules outside it have no label), and `kind`: topic, module or class. Cost: about two seconds.

What can go wrong: another version of Python has other texts, and some distributions leave out parts (tkinter, help
topics). The digest of the corpus says whether two runs read the same.
"""

import ast
import sysconfig
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

from lrh_ray.errors import CorpusError
from lrh_ray.records import Document
from lrh_ray.text.config import PythonDocsSource
from lrh_ray.text.passages import passages
from lrh_ray.text.python_library import LANGUAGE, part_of_library
from lrh_ray.text.reading import Found, Reading
from lrh_ray.text.spreading import spread

DESCRIPTIONS: Mapping[str, str] = {
    "library": "part of the Python library that the document is about",
    "kind": "whether the document is a help topic, or documents a module or a class",
}

AT_LEAST = 200

LEFT_OUT = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "turtledemo", "encodings", "pydoc_data", "site-packages", "dist-packages"}
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True, slots=True)
class Article:
    """A text of any length with its name and its labels."""

    name: str
    text: str
    kind: str
    library: str | None


def read(source: PythonDocsSource, folder: Path) -> Iterator[Reading]:  # noqa: ARG001 - every source has this signature
    """One reading per document: topics first, then modules in alphabetical order, each before its classes."""
    documents = list(_documents(source, Path(sysconfig.get_path("stdlib"))))
    for document in spread(documents, source.limit):
        yield Found(place=f"Python documentation, {document.id}", document=document)


def _documents(source: PythonDocsSource, library: Path) -> Iterator[Document]:
    seen: set[str] = set()
    for article in [*_topics(library), *_library_articles(library)]:
        whole = passages(article.text, at_least=AT_LEAST, at_most=source.max_characters)
        parts = [part for part in whole if len(part) >= AT_LEAST]
        for number, part in enumerate(parts[:1] if source.passages == "first" else parts, start=1):
            if part not in seen:
                seen.add(part)
                yield _document(article, part, number)


def _document(article: Article, text: str, number: int) -> Document:
    name = f"python:{article.name}" if number == 1 else f"python:{article.name}/{number}"
    labels = {"kind": article.kind} | ({"library": article.library} if article.library else {})
    return Document(id=name, text=text, labels=labels)


def _topics(library: Path) -> Iterator[Article]:
    """Help topics, from the one dictionary that pydoc keeps them in; none where it is not installed."""
    path = library / "pydoc_data" / "topics.py"
    if not path.is_file():
        return
    for node in _parsed(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "topics":
            for name, text in sorted(ast.literal_eval(node.value).items()):
                yield Article(name=f"help({name})", text=cleandoc(text), kind="topic", library=LANGUAGE)


def _library_articles(library: Path) -> Iterator[Article]:
    for module, path in _modules(library, ""):
        tree = _parsed(path)
        part = part_of_library(module)
        yield Article(name=module, text=_documentation(tree), kind="module", library=part)
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef) and _is_public(node.name)}
        for name, node in classes.items():
            text = f"class {name}\n\n{_documentation(node)}"
            yield Article(name=f"{module}.{name}", text=text, kind="class", library=part)


def _modules(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    """Dotted names and files of the modules below `folder`, in alphabetical order, without what is left out."""
    for path in sorted(folder.iterdir(), key=lambda path: path.stem):
        if path.stem in LEFT_OUT or not path.stem.isidentifier():
            continue
        if path.is_dir():
            yield from _modules(path, f"{prefix}{path.name}.")
        elif path.suffix == ".py":
            yield (prefix.rstrip(".") if path.stem == "__init__" else prefix + path.stem), path


def _parsed(path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old docstrings hold escapes that the compiler warns about
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError) as error:
        raise CorpusError(
            f"Cannot read {str(path)!r} of the Python library: {error}. Repair the installation."
        ) from error


def _documentation(owner: ast.Module | ast.ClassDef) -> str:
    """Docstring of `owner`, then those of its public functions, each below its call."""
    functions = [node for node in owner.body if isinstance(node, Function) and _is_public(node.name)]
    entries = [f"{_call(node)}\n\n{_docstring(node)}" for node in functions if _docstring(node)]
    return "\n\n".join([_docstring(owner), *entries]).strip()


def _docstring(node: ast.Module | ast.ClassDef | Function) -> str:
    """Its docstring, cleaned; half surrogate pairs, which examples of encodings hold, become question marks."""
    return (ast.get_docstring(node) or "").encode("utf-8", "replace").decode()


def _call(function: Function) -> str:
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return f"{function.name}({', '.join(name for name in names if name not in ('self', 'cls'))})"


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name.endswith("__")
