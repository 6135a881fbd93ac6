"""Import profiles: the parameters that determine the CIDs of files and directories.

Source: IPIP-0499, https://specs.ipfs.tech/ipips/ipip-0499/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from mlflow_ipfs.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Profile:
    """One set of import parameters.

    Attributes:
        name: the name in the specification.
        cid_version: 0 or 1. Raw leaves have a CIDv1 in both cases, because a CIDv0 can only name dag-pb.
        raw_leaves: whether leaves are the bare bytes of the file. Otherwise they are wrapped in UnixFS File nodes.
        chunk_bytes: size of the chunks that files are cut into.
        max_links: maximum number of links of a file node.
        hamt_threshold_bytes: a directory is sharded if its estimated size is larger.
        hamt_estimate: how the size is estimated: ``block``, the exact size of the directory's block; ``links``, the
            total size of its names and CIDs.
        hamt_fanout: number of slots of a HAMT shard.
    """

    name: str
    cid_version: int
    raw_leaves: bool
    chunk_bytes: int
    max_links: int
    hamt_estimate: Literal["block", "links"]
    hamt_threshold_bytes: int = 256 << 10
    hamt_fanout: int = 256


UNIXFS_V1_2025: Final = Profile("unixfs-v1-2025", 1, True, 1 << 20, 1024, "block")  # noqa: FBT003 - a row of the table
UNIXFS_V0_2015: Final = Profile("unixfs-v0-2015", 0, False, 256 << 10, 174, "links")  # noqa: FBT003

PROFILES: Final = {profile.name: profile for profile in (UNIXFS_V1_2025, UNIXFS_V0_2015)}


def profile_named(name: str) -> Profile:
    """Return the import profile with the given name.

    Raises:
        SettingsError: the profile does not exist. The message lists all profiles.
    """
    try:
        return PROFILES[name]
    except KeyError:
        msg = f"the import profile {name!r} does not exist; choose one of {', '.join(PROFILES)}"
        raise SettingsError(msg) from None
