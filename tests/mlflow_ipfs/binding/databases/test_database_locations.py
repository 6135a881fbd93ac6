"""Locations of a database: the same database, a location that is gone, and a location that may be in use."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy
from sqlalchemy.pool import NullPool

from mlflow_ipfs.binding.databases.claims import SEEN, list_databases, list_locations, location_key
from mlflow_ipfs.binding.databases.database_locations import DatabaseLocation
from mlflow_ipfs.binding.databases.drivers import name_driver
from mlflow_ipfs.binding.databases.sightings import observe, record_move
from mlflow_ipfs.binding.registry_id import ensure_registry_id
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.binding.databases.claims import Sighting
    from support.postgres import PostgresServer


@pytest.fixture
def storage() -> Iterator[MemoryStorage]:
    storage = MemoryStorage()
    yield storage
    storage.close()


def see(storage: MemoryStorage, uri: str) -> Sighting:
    """Open a database as MLflow's stores do."""
    engine = sqlalchemy.create_engine(name_driver(uri), poolclass=NullPool)
    try:
        return observe(storage, ensure_registry_id(engine), engine)
    finally:
        engine.dispose()


def see_file(storage: MemoryStorage, path: Path) -> tuple[str, ...]:
    """Return the paths of the other locations."""
    return tuple(location.name for location in see(storage, f"sqlite:///{path}").others)


@pytest.fixture
def original(storage: MemoryStorage, tmp_path: Path) -> Path:
    path = tmp_path / "original.db"
    assert see_file(storage, path) == ()
    return path


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path / "copy.db"))


def names(storage: MemoryStorage) -> list[str]:
    [locations] = list_databases(storage).values()
    return sorted(Path(location.name).name for location in locations)


def test_a_copy_is_found_from_both_sides(storage: MemoryStorage, original: Path, copy: Path) -> None:
    assert see_file(storage, copy) == (str(original),)
    assert see_file(storage, original) == (str(copy),)
    assert names(storage) == ["copy.db", "original.db"]


def test_opening_it_again_writes_nothing(
    storage: MemoryStorage, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("mlflow_ipfs.content.storage.memory.names.MemoryNotes.set")
    assert see_file(storage, original) == ()


def test_a_renamed_database_with_a_copy_in_its_old_place_is_not_moved(
    storage: MemoryStorage, original: Path, tmp_path: Path
) -> None:
    """``mv db bak; cp bak db``: the file with the recorded inode has another path, and the path has another file."""
    renamed = tmp_path / "renamed.db"
    original.rename(renamed)
    shutil.copyfile(renamed, original)
    assert see_file(storage, renamed) == (str(original),)


def test_a_relative_path_is_the_one_that_was_opened(
    storage: MemoryStorage, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(original.parent)
    engine = sqlalchemy.create_engine(f"sqlite:///{original.name}", poolclass=NullPool)
    registry_id = registry_id_of(original)
    (original.parent / "elsewhere").mkdir()
    monkeypatch.chdir(original.parent / "elsewhere")
    sighting = observe(storage, registry_id, engine)
    assert sighting.location is not None
    assert (sighting.location.name, sighting.others) == (str(original.resolve()), ())


def test_links_are_the_same_file(storage: MemoryStorage, original: Path, tmp_path: Path) -> None:
    (tmp_path / "symlink.db").symlink_to(original)
    (tmp_path / "hard.db").hardlink_to(original)
    for name in ("symlink.db", "hard.db"):
        assert see_file(storage, tmp_path / name) == ()


@pytest.mark.parametrize("what", ["nothing", "a fresh database", "another id"])
def test_a_place_that_has_lost_the_id_is_gone(storage: MemoryStorage, original: Path, copy: Path, what: str) -> None:
    original.unlink()
    if what == "a fresh database":
        make_plain(original)
    elif what == "another id":
        see_file(MemoryStorage(), original)
    assert see_file(storage, copy) == ()
    assert names(storage) == ["copy.db"]


def test_a_file_on_a_disk_that_is_not_mounted_may_be_in_use(storage: MemoryStorage, original: Path, copy: Path) -> None:
    [location] = list_locations(storage, registry_id_of(original))
    original.unlink()
    device, inode = location.identity.split(":")
    elsewhere = replace(location, identity=f"{int(device) + 1}:{inode}")
    storage.notes.delete(location_key(registry_id_of(copy), location))
    storage.notes.set(location_key(registry_id_of(copy), elsewhere), elsewhere.encode())
    assert see_file(storage, copy) == (str(original),)


def registry_id_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        [(found,)] = connection.execute("SELECT registry_id FROM mlflow_ipfs_registry").fetchall()
    return str(found)


def make_plain(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (c)")


def test_what_cannot_be_read_may_be_in_use(storage: MemoryStorage, original: Path, copy: Path) -> None:
    original.write_bytes(b"damaged, perhaps, or of another program" * 100)
    assert see_file(storage, copy) == (str(original),)


def test_a_record_that_cannot_be_read_may_be_in_use(storage: MemoryStorage, original: Path) -> None:
    storage.notes.set(f"{SEEN}{registry_id_of(original)}/later", '{"format": 9, "where": "elsewhere"}')
    assert see_file(storage, original) == ("?",)


def test_a_user_can_say_that_it_was_moved(storage: MemoryStorage, original: Path, copy: Path) -> None:
    see_file(storage, copy)
    sighting = record_move(storage, sqlalchemy.make_url(f"sqlite:///{copy}"))
    assert [location.name for location in sighting.others] == [str(original)]
    assert names(storage) == ["copy.db"]
    assert see_file(storage, copy) == ()


def test_a_restore_does_not_choose_among_several_places(
    storage: MemoryStorage, original: Path, copy: Path, tmp_path: Path
) -> None:
    see_file(storage, copy)
    third = Path(shutil.copy(original, tmp_path / "third.db"))
    record_move(storage, sqlalchemy.make_url(f"sqlite:///{third}"), from_any=False)
    assert names(storage) == ["copy.db", "original.db", "third.db"]


def test_with_a_store_that_cannot_change_a_copy_is_found_and_nothing_is_recorded(tmp_path: Path) -> None:
    original, copy = tmp_path / "original.db", tmp_path / "copy.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{original}", poolclass=NullPool)
    registry_id = ensure_registry_id(engine)
    with open_local_storage(tmp_path / "store") as storage:
        observe(storage, registry_id, engine)
    shutil.copy(original, copy)
    other = sqlalchemy.create_engine(f"sqlite:///{copy}", poolclass=NullPool)
    with open_local_storage(tmp_path / "store", read_only=True) as storage:
        assert observe(storage, registry_id, other).is_shared
        assert len(list_locations(storage, registry_id)) == 1


def test_a_database_in_memory_has_no_place(storage: MemoryStorage) -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    assert observe(storage, ensure_registry_id(engine), engine).location is None
    engine.dispose()
    assert storage.notes.list() == {}


def test_only_a_database_with_an_id_can_have_moved(storage: MemoryStorage, tmp_path: Path) -> None:
    make_plain(tmp_path / "plain.db")
    with pytest.raises(NotFoundError, match="no registry id"):
        record_move(storage, sqlalchemy.make_url(f"sqlite:///{tmp_path}/plain.db"))
    with pytest.raises(NotFoundError, match="does not exist"):
        record_move(storage, sqlalchemy.make_url(f"sqlite:///{tmp_path}/none.db"))


@pytest.mark.postgres
def test_postgresql_copies_and_moves(storage: MemoryStorage, postgres: PostgresServer) -> None:
    original = postgres.create_database()
    assert not see(storage, postgres.uri(original)).is_shared
    copy = postgres.create_database(template=original)
    sighting = see(storage, postgres.uri(copy))
    assert [location.uri for location in sighting.others] == [f"postgresql://127.0.0.1:{postgres.port}/{original}"]
    assert postgres.password not in sighting.explain()
    assert see(storage, postgres.uri(original)).is_shared
    renamed = f"{original}_renamed"
    postgres.ask("postgres", f"ALTER DATABASE {original} RENAME TO {renamed}")
    assert len(see(storage, postgres.uri(renamed)).others) == 1  # the same database, under another name
    postgres.ask(renamed, "UPDATE mlflow_ipfs_registry SET registry_id = 'forked'")
    assert not see(storage, postgres.uri(copy)).is_shared
    again = postgres.create_database(template=copy)
    postgres.ask("postgres", f"DROP DATABASE {copy}")
    assert not see(storage, postgres.uri(again)).is_shared


@pytest.mark.postgres
def test_a_table_that_a_role_may_not_see_may_be_in_use(storage: MemoryStorage, postgres: PostgresServer) -> None:
    original = postgres.create_database()
    see(storage, postgres.uri(original))
    copy = postgres.create_database(template=original)
    postgres.ask(original, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
    user = f"staging_{copy}"
    postgres.ask("postgres", f"CREATE USER {user} PASSWORD 'x'")
    postgres.ask(copy, f"GRANT SELECT ON mlflow_ipfs_registry TO {user}")
    sighting = see(storage, f"postgresql://{user}:x@127.0.0.1:{postgres.port}/{copy}")
    assert [location.name for location in sighting.others] == [f"127.0.0.1:{postgres.port}/{original}"]


@pytest.mark.postgres
def test_two_schemas_of_one_database_are_two_places(storage: MemoryStorage, postgres: PostgresServer) -> None:
    name = postgres.create_database()
    see(storage, postgres.uri(name))
    postgres.ask(name, "CREATE SCHEMA copy")
    postgres.ask(name, "CREATE TABLE copy.mlflow_ipfs_registry AS TABLE public.mlflow_ipfs_registry")
    in_copy = f"{postgres.uri(name)}?options=-csearch_path%3Dcopy"
    assert see(storage, in_copy).is_shared
    assert see(storage, postgres.uri(name)).is_shared
    postgres.ask(name, "DROP TABLE public.mlflow_ipfs_registry")
    assert not see(storage, in_copy).is_shared


@pytest.mark.postgres
def test_an_ordinary_user_of_postgresql_may_ask(storage: MemoryStorage, postgres: PostgresServer) -> None:
    name = postgres.create_database()
    see(storage, postgres.uri(name))
    user = f"plain_{name}"
    postgres.ask("postgres", f"CREATE USER {user} PASSWORD 'x'")
    postgres.ask(name, f"GRANT SELECT ON mlflow_ipfs_registry TO {user}")
    uri = f"postgresql://{user}:x@127.0.0.1:{postgres.port}/{name}"
    [before] = list_databases(storage).values()
    assert not see(storage, uri).is_shared
    assert [location.identity for location in list_locations(storage, next(iter(list_databases(storage))))] == [
        location.identity for location in before
    ]


@pytest.mark.postgres
def test_another_cluster_may_be_in_use(storage: MemoryStorage, postgres: PostgresServer) -> None:
    name = postgres.create_database()
    sighting = see(storage, postgres.uri(name))
    elsewhere = DatabaseLocation("postgresql", "db:5432/mlflow", "", "7000000000000000000/16384", 1)
    storage.notes.set(f"{SEEN}{sighting.registry_id}/{elsewhere.key}", elsewhere.encode())
    assert [location.name for location in see(storage, postgres.uri(name)).others] == ["db:5432/mlflow"]
