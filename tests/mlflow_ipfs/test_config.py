from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mlflow_ipfs.config import FreezeMode, Settings, VerifyMode, config_file, default_store_directory
from mlflow_ipfs.content.files.chunker import FixedSizeChunker
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.errors import SettingsError


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose user has no settings yet."""
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_DATA_HOME": str(tmp_path / "data")}


def write_config(home: dict[str, str], text: str) -> Path:
    file = config_file(home)
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return file


def test_defaults(home: dict[str, str], tmp_path: Path) -> None:
    settings = Settings.from_environment(home)
    assert settings.store == tmp_path / "data" / "mlflow-ipfs" / "store"
    assert str(settings.root) == "mfs://mlflow"
    assert settings.profile.name == "unixfs-v1-2025"
    assert settings.chunker is None
    assert settings.timeout_seconds == 60
    assert settings.verify is VerifyMode.CHANGED
    assert settings.view == "auto"
    assert settings.freeze is FreezeMode.REQUIRED
    assert settings.version_tags is True
    assert settings.import_allow == ()


def test_every_variable_is_read(home: dict[str, str], tmp_path: Path) -> None:
    settings = Settings.from_environment(
        home
        | {
            "MLFLOW_IPFS_STORE": f"local:{tmp_path}/s",
            "MLFLOW_IPFS_ROOT": "mfs://team/models",
            "MLFLOW_IPFS_PROFILE": "unixfs-v0-2015",
            "MLFLOW_IPFS_CHUNKER": "size-65536",
            "MLFLOW_IPFS_TIMEOUT_SECONDS": "2.5",
            "MLFLOW_IPFS_VERIFY": "always",
            "MLFLOW_IPFS_VIEW": "copy",
            "MLFLOW_IPFS_FREEZE": "best_effort",
            "MLFLOW_IPFS_VERSION_TAGS": "false",
            "MLFLOW_IPFS_IMPORT_ALLOW": "file:///models, s3://bucket/",
            "MLFLOW_IPFS_RUNLOG": f"{tmp_path}/runlog",
            "MLFLOW_IPFS_RUNLOG_BYTES": "1000",
        }
    )
    assert settings == Settings(
        store=tmp_path / "s",
        root=MfsPath("team", "models"),
        profile=settings.profile,
        chunker=FixedSizeChunker(65536),
        timeout_seconds=2.5,
        verify=VerifyMode.ALWAYS,
        view="copy",
        freeze=FreezeMode.BEST_EFFORT,
        version_tags=False,
        import_allow=("file:///models", "s3://bucket/"),
        runlog=tmp_path / "runlog",
        runlog_bytes=1000,
    )
    assert settings.profile.name == "unixfs-v0-2015"


def test_the_file_counts_below_the_environment(home: dict[str, str]) -> None:
    write_config(
        home, 'freeze = "off"\ntimeout_seconds = 7\nversion_tags = false\nimport_allow = ["s3://a", "s3://b"]\n'
    )
    settings = Settings.from_environment(home | {"MLFLOW_IPFS_FREEZE": "required"})
    assert settings.freeze is FreezeMode.REQUIRED
    assert settings.timeout_seconds == 7
    assert settings.version_tags is False
    assert settings.import_allow == ("s3://a", "s3://b")


@pytest.mark.parametrize(
    ("variable", "value", "word"),
    [
        ("STORE", "kubo:http://127.0.0.1:5001", "not supported yet"),
        ("STORE", "just/a/directory", "/just/a/directory"),
        ("STORE", "s3://bucket/store", "local:<directory>"),
        ("STORE", "file:///data/store", "local:<directory>"),
        ("STORE", "local:", "local:<directory>"),
        ("ROOT", "s3://bucket", "mfs://<root>"),
        ("ROOT", "mfs://a/../b", ".."),
        ("PROFILE", "nice", "unixfs-v1-2025"),
        ("CHUNKER", "rabin", "size-<bytes>"),
        ("CHUNKER", "size-0", "out of range"),
        ("TIMEOUT_SECONDS", "soon", "soon"),
        ("TIMEOUT_SECONDS", "0", "positive"),
        ("TIMEOUT_SECONDS", "inf", "positive"),
        ("TIMEOUT_SECONDS", "nan", "positive"),
        ("VERIFY", "never", "changed, always"),
        ("VIEW", "symlink", "hardlink"),
        ("FREEZE", "maybe", "best_effort"),
        ("VERSION_TAGS", "perhaps", "true or false"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_variable(
    home: dict[str, str], variable: str, value: str, word: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(home | {f"MLFLOW_IPFS_{variable}": value})
    assert f"MLFLOW_IPFS_{variable}" in str(caught.value)
    assert word in str(caught.value)


def test_a_bad_value_in_the_file_names_the_file(home: dict[str, str]) -> None:
    file = write_config(home, "freeze = 3\n")
    with pytest.raises(SettingsError, match="freeze") as caught:
        Settings.from_environment(home)
    assert str(file) in str(caught.value)


def test_an_unknown_name_in_the_file_is_an_error(home: dict[str, str]) -> None:
    write_config(home, 'stroe = "local:/x"\n')
    with pytest.raises(SettingsError, match="stroe"):
        Settings.from_environment(home)


def test_a_file_that_is_not_toml_is_an_error(home: dict[str, str]) -> None:
    write_config(home, "store: /x\n")
    with pytest.raises(SettingsError, match="cannot be read"):
        Settings.from_environment(home)


def test_an_unknown_variable_is_a_warning(home: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Settings.from_environment(home | {"MLFLOW_IPFS_STROE": "local:/x"})
    assert "MLFLOW_IPFS_STROE" in caplog.text


def test_an_empty_variable_counts_as_unset(home: dict[str, str]) -> None:
    assert Settings.from_environment(home | {"MLFLOW_IPFS_FREEZE": ""}).freeze is FreezeMode.REQUIRED


def test_a_named_file_must_exist(home: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        Settings.from_environment(home, file=tmp_path / "nowhere.toml")


def test_a_relative_xdg_directory_is_ignored() -> None:
    assert default_store_directory({"XDG_DATA_HOME": "relative"}) == Path.home() / ".local/share/mlflow-ipfs/store"


def test_home_is_understood_in_a_store(home: dict[str, str]) -> None:
    for value in ("local:~/s", "~/s"):
        assert Settings.from_environment(home | {"MLFLOW_IPFS_STORE": value}).store == Path.home() / "s"


def test_an_absolute_path_is_a_local_store(home: dict[str, str]) -> None:
    assert Settings.from_environment(home | {"MLFLOW_IPFS_STORE": "/data/a:b/store"}).store == Path("/data/a:b/store")
    write_config(home, 'store = "/data/store"\n')
    assert Settings.from_environment(home).store == Path("/data/store")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TIMEOUT_SECONDS", "1e12"),
        ("TIMEOUT_SECONDS", "nan"),
        ("TIMEOUT_SECONDS", "0"),
        ("STORE", "local:~nobody-here/x"),
        ("STORE", "~nobody-here/x"),
    ],
)
def test_values_that_only_the_system_would_refuse(home: dict[str, str], variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"MLFLOW_IPFS_{variable}"):
        Settings.from_environment(home | {f"MLFLOW_IPFS_{variable}": value})


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers that run under a number for which there is no name."""

    def fail() -> Path:
        msg = "Could not determine home directory."
        raise RuntimeError(msg)

    monkeypatch.setattr(Path, "home", fail)
    assert Settings.from_environment({"MLFLOW_IPFS_STORE": "local:/data/store"}).store == Path("/data/store")


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("1000", 1000),
        ("10GB", 10**10),
        ("10 gb", 10**10),
        ("10G", 10**10),
        ("1.5GiB", 3 << 29),
        ("1KiB", 1024),
        ("2TB", 2 * 10**12),
        ("7b", 7),
    ],
)
def test_a_size_may_have_a_unit(text: str, size_bytes: int) -> None:
    assert Settings.from_environment({"MLFLOW_IPFS_CACHE_BYTES": text}).cache_bytes == size_bytes


@pytest.mark.parametrize("text", ["-1", "10XB", "GB", "1e9", "ten", "10GBs", "1_000"])
def test_what_is_not_a_size_is_explained(text: str) -> None:
    with pytest.raises(SettingsError, match="MLFLOW_IPFS_CACHE_BYTES: .* such as 10GB or 10GiB"):
        Settings.from_environment({"MLFLOW_IPFS_CACHE_BYTES": text})


def test_settings_of_the_process_follow_the_environment_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert Settings.from_environment().freeze is FreezeMode.REQUIRED
    assert Settings.from_environment() is Settings.from_environment(), "nothing changed, so nothing is parsed again"
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "off")
    assert Settings.from_environment().freeze is FreezeMode.OFF
    monkeypatch.delenv("MLFLOW_IPFS_FREEZE")
    file = tmp_path / "mlflow-ipfs" / "config.toml"
    file.parent.mkdir()
    for mode in ("best_effort", "required", "off"):
        file.write_text(f'freeze = "{mode}"')
        assert Settings.from_environment().freeze is FreezeMode(mode)
    file.write_text('freeze = "perhaps"')
    for _ in range(2):
        with pytest.raises(SettingsError, match="freeze"):
            Settings.from_environment()
    file.unlink()
    assert Settings.from_environment().freeze is FreezeMode.REQUIRED
