"""Import profiles: the parameters that decide which CID a file gets.

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
        cid_version: 0 or 1; raw leaves have a CIDv1 in either case, because a CIDv0 can only name dag-pb.
        raw_leaves: whether leaves are bare bytes (else wrapped in UnixFS File nodes).
        chunk_bytes: size of the fixed cuts.
        max_links: the most links of a file's node.
        hamt_threshold_bytes: a directory is sharded when its estimated size is larger.
        hamt_estimate: ``block`` estimates by the exact size of the directory's block, ``links`` by names and CIDs.
        hamt_fanout: slots of a HAMT shard.
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
    """Look a profile up.

    Raises:
        SettingsError: no such profile; the message lists them.
    """
    try:
        return PROFILES[name]
    except KeyError:
        msg = f"there is no import profile {name!r}; choose one of {', '.join(PROFILES)}"
        raise SettingsError(msg) from None
