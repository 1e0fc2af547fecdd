"""Push a store to a Hugging Face data set repository, resumably, with a card made from the store's own facts.

    push_store("runs/demo/store", "someone/demo-activations", licence="cc-by-4.0")

Only a sealed store whose every byte passes is pushed. Blocks go first and the manifest last, so a repository with a
manifest is whole. A push that was interrupted is continued by the same call: the hub's client skips what has arrived. A
repository that holds another store is left alone.

What leaves the machine is the whole store but its staging folder: the corpus's texts (`plan/documents.parquet`) and the
configuration too. A new repository is private unless asked otherwise.

What can go wrong: a store that is not sealed (`StoreIncomplete`), damaged (`StoreCorrupt`), on an object store
(`PathUnusable`), or that failed its parity check (`ParityError`); a repository with another store (`StoreConflict`);
`HubRefused`, for everything the hub says. The token is given to the client and appears in no message, card or log.
"""

import contextlib
import glob
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lrh_ray.errors import (
    ConfigError,
    HubRefused,
    LrhError,
    ParityError,
    PathUnusable,
    StoreConflict,
    StoreCorrupt,
    StoreIncomplete,
)
from lrh_ray.loads.arrays import library
from lrh_ray.loads.hub_card import card_facts, make_card
from lrh_ray.records import Plain
from lrh_ray.store.objects import Location
from lrh_ray.store.reader import Store, open_store
from lrh_ray.store.verify import verify

IDENTITY, MANIFEST, CARD = "dataset.json", "manifest.json", "README.md"
LEFT_OUT = ("staging/*", ".*", "*/.*", MANIFEST, CARD)
REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
TOKEN = re.compile(r"hf_\w+")


def push_store(
    location: Location,
    repo: str,
    *,
    token: str | None = None,
    licence: str | None = None,
    private: bool = True,
    api: Any = None,
) -> dict[str, Plain]:
    """Upload a sealed store and its card to the data set repository `repo`; repeat the call to resume.

    Args:
        location: Folder of the store.
        repo: `owner/name` of the repository; it is made if it does not exist.
        token: Token of the hub; None takes the one its own tools saved.
        licence: Licence named in the card; None names none.
        private: Whether a new repository is private. An existing one keeps its visibility.
        api: The hub's client (`huggingface_hub.HfApi`), if the caller has one.

    Returns:
        Facts: repository, address, and what the card tells.

    Raises:
        StoreIncomplete, StoreCorrupt, ParityError, PathUnusable: A store that is not pushed; see the head of this file.
        StoreConflict: The repository holds another store.
        HubRefused: The hub cannot be reached or says no.
    """
    if not REPO.fullmatch(repo):
        raise ConfigError(f"{repo!r} is no repository; write owner/name, for example someone/demo-activations.")
    store = open_store(location)
    folder = _folder(store)
    _require_sealed(store)
    left_out = [*LEFT_OUT, *(glob.escape(key) for key in _litter_of_intact(folder))]
    client = library("huggingface_hub", "hub").HfApi(token=token) if api is None else api
    card = make_card(store, repo, licence)
    with _hub_errors(repo, token):
        client.create_repo(repo, repo_type="dataset", private=private, exist_ok=True, token=token)
        _require_same(client, repo, folder, token)
        message = f"Activations, root {store.root}"
        client.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=str(folder),
            ignore_patterns=left_out,
            commit_message=message,
            token=token,
        )
        for name, content in ((CARD, card.encode()), (MANIFEST, (folder / MANIFEST).read_bytes())):
            client.upload_file(
                path_or_fileobj=content,
                path_in_repo=name,
                repo_id=repo,
                repo_type="dataset",
                commit_message=message,
                token=token,
            )
    return {"repository": repo, "address": f"https://huggingface.co/datasets/{repo}", **card_facts(store)}


def _folder(store: Store) -> Path:
    if "://" in store.location:
        raise PathUnusable(f"{store.location!r} is not a folder of this machine. Copy the store to one and push that.")
    return Path(store.location)


def _require_sealed(store: Store) -> None:
    if store.manifest is None:
        raise StoreIncomplete(f"{store.location!r} is not sealed. Finish {store.writing_command}, then push.")
    parity = store.manifest.get("parity")
    if isinstance(parity, Mapping) and parity.get("passed") is False:
        raise ParityError(f"{store.location!r} failed its comparison with the model; such rows are not published.")


def _litter_of_intact(folder: Path) -> list[str]:
    """Files that are no part of the store, after every byte was held against the store's own records.

    Raises:
        StoreCorrupt: Something is damaged.
    """
    verdict = verify(folder, 2)
    if not verdict.ok:
        raise StoreCorrupt(
            f"{str(folder)!r} has {len(verdict.findings)} damages, the first: {verdict.findings[0].describe()} "
            f"`lrh verify {folder} --repair` drops what is damaged; then repeat the command that writes the store."
        )
    return [entry.key for entry in verdict.litter]


def _require_same(client: Any, repo: str, folder: Path, token: str | None) -> None:
    """The repository is empty, or holds this store (an interrupted push).

    Raises:
        StoreConflict: It holds another one.
    """
    if not client.file_exists(repo, IDENTITY, repo_type="dataset", token=token):
        return
    standing = Path(client.hf_hub_download(repo, IDENTITY, repo_type="dataset", token=token)).read_bytes()
    if standing != (folder / IDENTITY).read_bytes():
        raise StoreConflict(f"The repository {repo!r} holds another store. Choose another name, or empty it first.")


@contextlib.contextmanager
def _hub_errors(repo: str, token: str | None) -> Iterator[None]:
    """What the hub's client raises becomes one message without the token.

    The original is not chained: a request's text could carry the token into a traceback.
    """
    try:
        yield
    except LrhError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        said = TOKEN.sub("hf_***", str(error).replace(token, "***") if token else str(error))
        raise HubRefused(
            f"The hub refused {repo!r}: {type(error).__name__}: {said} Check the network, the name and that the token "
            f"may write; repeating the same command resumes."
        ) from None
