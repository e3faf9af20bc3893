"""Downloads official checkpoints from the Hugging Face hub, and says in one line why one cannot be had."""

from __future__ import annotations

from pathlib import Path

from come_nav.core.errors import CheckpointError
from come_nav.core.weights_file import file_sha256
from come_nav.world_model.files.zoo import SHIPPED, ZooEntry


def download(entry: ZooEntry, folder: Path | None = None) -> Path:
    """Return the path of a zoo model's file, downloaded into the hub's cache or ``folder``; resumes what was cut off.

    Raises:
        CheckpointError: in one line, for a shipped model, a gated or refused repository, a missing file, no network,
            or a file whose sha256 is not the known one.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if entry.source == SHIPPED or entry.file is None:
        raise CheckpointError(f"model '{entry.name}' ships with come_nav, there is nothing to download")
    by_hand = f"or download {entry.file} in a browser and run 'come-nav models import FILE --name {entry.name}'"
    try:
        found = Path(hf_hub_download(entry.repository, entry.file, local_dir=folder))
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise CheckpointError(
            f"{entry.source}: access is gated and was refused; ask for it on that page, log in with 'hf auth login' "
            f"and repeat. Requests from some countries are refused for good: train a model with 'come-nav train' then"
        ) from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{entry.source}: no network, or the hub does not answer; repeat later, {by_hand}"
        ) from error
    except EntryNotFoundError as error:
        raise CheckpointError(f"{entry.source}: holds no {entry.file} any more; look there for its new name") from error
    except HfHubHTTPError as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(
            f"{entry.source}: the hub refused the download ({reason}); repeat later, {by_hand}"
        ) from error
    except OSError as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise CheckpointError(
            f"{entry.source}: cannot be downloaded ({reason}); check the network, {by_hand}"
        ) from error
    check_download(entry, found)
    return found


def check_download(entry: ZooEntry, path: Path) -> None:
    """Raise CheckpointError when the zoo knows the sha256 of this model's file and ``path`` has another one."""
    if entry.sha256 is None:
        return
    found = file_sha256(path)
    if found != entry.sha256:
        raise CheckpointError(
            f"{path}: sha256 is {found[:12]}..., {entry.file} must have {entry.sha256[:12]}...; delete it and download "
            "it again, or rename it if it is another checkpoint"
        )
