"""Which part of the Python library a module belongs to: a table of our own, one class per module.

The parts follow what a module is for, as the chapters of the library reference do, in few classes of decent size.
The longest known beginning of a dotted name decides (`email.mime.text` is in `email`); a leading underscore is
ignored, because private modules hold the documentation of public ones (`_pydecimal`). Modules that fit no part are
left out of the table on purpose.

    part_of_library("asyncio.queues")     # "concurrency"
    part_of_library("antigravity")        # None
"""

from collections.abc import Mapping

LANGUAGE = "language"
"""Part of the help topics, which describe the language and not a module."""

MODULES: Mapping[str, str] = {
    "network": """
        cgi cgitb email ftplib html http imaplib ipaddress mailbox mailcap mimetypes nntplib poplib smtpd
        smtplib socket socketserver ssl telnetlib urllib webbrowser wsgiref xdrlib xmlrpc asyncore asynchat
        netrc uuid""",
    "text_and_data": """
        base64 bisect calendar codecs collections collections_abc copy csv configparser dataclasses datetime
        pydatetime strptime difflib enum gettext graphlib heapq json locale pickle plistlib pprint quopri re
        reprlib shlex sre_compile sre_parse sre_constants string stringprep struct textwrap tomllib types
        weakref weakrefset xml zoneinfo copyreg markupbase annotationlib""",
    "files_and_os": """
        bz2 compression compat_pickle dbm filecmp fileinput fnmatch genericpath getpass glob gzip io lzma ntpath
        nturl2path os ossaudiodev pathlib pipes platform posixpath pty pyio shelve shutil site sqlite3 stat
        subprocess sysconfig tarfile tempfile tty zipfile crypt bootsubprocess aifc wave sunau sndhdr chunk
        imghdr uu ctypes""",
    "concurrency": """
        asyncio concurrent contextvars multiprocessing queue sched selectors signal threading threading_local
        dummy_thread""",
    "numeric": """
        colorsys decimal fractions hashlib hmac numbers pydecimal pylong random secrets statistics""",
    "development": """
        abc argparse ast bdb cProfile code codeop compileall contextlib dis distutils doctest ensurepip
        functools getopt imp importlib inspect keyword linecache logging modulefinder opcode operator optparse
        pdb pickletools pkgutil profile profiling pstats py_abc py_compile pyclbr pydoc runpy symtable tabnanny
        timeit token tokenize trace traceback tracemalloc typing unittest venv warnings zipapp zipimport""",
    "gui": """
        cmd curses pyrepl readline rlcompleter tkinter turtle""",
}
"""Part of the library -> modules and packages, white space between them."""

PARTS: Mapping[str, str] = {module: part for part, modules in MODULES.items() for module in modules.split()}


def part_of_library(module: str) -> str | None:
    """The part that `module` (a dotted name) belongs to; None for a module outside the table."""
    names = module.removeprefix("_").split(".")
    beginnings = (".".join(names[:length]) for length in range(len(names), 0, -1))
    return next((PARTS[name] for name in beginnings if name in PARTS), None)
