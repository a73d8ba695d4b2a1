"""One way to read and write a path, local or `gs://`. Files appear whole or not at all; a manifest is written last."""

from mtlrank.storage.fetch import check_folder, fetch_folder, mirror
from mtlrank.storage.files import exists, list_files, read_bytes, read_versioned, sizes_and_times, write_bytes
from mtlrank.storage.local import (
    file_hash,
    fingerprint,
    home,
    locked,
    new_file,
    read_json,
    sole_user,
    writable_folder,
    write_json,
    write_lines,
    write_text,
    writing,
)
from mtlrank.storage.manifest import (
    MANIFEST,
    check_state,
    is_complete,
    listed_files,
    new_folder,
    read_manifest,
    sweep,
    sweep_all,
    unchanged,
    write_manifest,
)
from mtlrank.storage.paths import join, local_path, safe_name
from mtlrank.storage.publish import publish_folder
from mtlrank.storage.remove import remove_folder
from mtlrank.storage.versions import ABSENT, Version

__all__ = [
    "ABSENT",
    "MANIFEST",
    "Version",
    "check_folder",
    "check_state",
    "exists",
    "fetch_folder",
    "file_hash",
    "fingerprint",
    "home",
    "is_complete",
    "join",
    "list_files",
    "listed_files",
    "local_path",
    "locked",
    "mirror",
    "new_file",
    "new_folder",
    "publish_folder",
    "read_bytes",
    "read_json",
    "read_manifest",
    "read_versioned",
    "remove_folder",
    "safe_name",
    "sizes_and_times",
    "sole_user",
    "sweep",
    "sweep_all",
    "unchanged",
    "writable_folder",
    "write_bytes",
    "write_json",
    "write_lines",
    "write_manifest",
    "write_text",
    "writing",
]
