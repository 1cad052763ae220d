"""The database of a store: SQLite in a file, or PostgreSQL by its URL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Self

from codots.agent.schema import SCHEMA
from codots.agent.sql import sa
from codots.core.files import sync, writable, writing
from codots.core.suggest import closest

BUSY_SECONDS = 60
"""Time that a transaction waits for one of another process."""
MIGRATION = 0x636F646F7473
"""Key of the PostgreSQL lock that keeps two processes from migrating at once."""
ENGINE: dict[str, Any] = {"pool_size": 32, "max_overflow": 32, "hide_parameters": True}
"""Options of every engine. Errors do not quote what is stored."""
SETTINGS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "secure_delete=ON",
    f"busy_timeout={BUSY_SECONDS}000",
)
"""Pragmas of SQLite. A transaction is durable when it returns, also after a power cut."""


class Database:
    """An open database with the newest schema.

    `where` is a file or a URL `postgresql://...`. An older schema is migrated. Raises ValueError if the file is missing
    and `create` is false, if it is not a store, or if a newer codots wrote it.
    """

    def __init__(self, where: str | Path, create: bool = True) -> None:
        self.where = str(where)
        self.file = None if "://" in self.where else Path(where).expanduser()
        if self.file and not create and not self.file.is_file():
            raise ValueError(f"no store at {where}; expected a file that an agent has made{closest(self.file)}")
        self._engine = self._connect()
        self._writer = self._engine.execution_options(writes=True)
        self._lock = threading.Lock()
        try:
            self._migrate()
        except sa.exc.DBAPIError as error:
            self.close()
            raise ValueError(f"{self._safe} cannot be opened: {str(error.orig).splitlines()[0]}") from None
        except BaseException:
            self.close()
            raise

    @property
    def _safe(self) -> str:
        """Name for messages, without the password of a URL."""
        return self.where if self.file else sa.make_url(self.where).render_as_string(hide_password=True)

    def _connect(self) -> sa.Engine:
        if self.file:
            if not self.file.parent.is_dir():
                raise ValueError(f"cannot write {self.file}: there is no folder {self.file.parent}")
            engine = sa.create_engine(f"sqlite:///{self.file}", **ENGINE)
            sa.event.listen(engine, "connect", _set_up)
            sa.event.listen(engine, "begin", _begin)
            return engine
        try:
            url = sa.make_url(self.where)
            if url.get_backend_name() not in ("postgresql", "postgres"):  # the second is what some hosts hand out
                raise ValueError(f"the store {self._safe} is no PostgreSQL; expected a file or postgresql://...")
            return sa.create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, **ENGINE)
        except sa.exc.ArgumentError:
            raise ValueError("the URL of the store cannot be read; expected postgresql://user@host/database") from None
        except ModuleNotFoundError as error:
            raise ValueError(f"PostgreSQL needs {error.name}: pip install 'codots[postgres]'") from error

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a transaction that only reads."""
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open a transaction that is durable at the end of the block, and undone by an exception."""
        with self._lock if self.file else nullcontext(), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def flush(self) -> None:
        """Empty the write-ahead log of SQLite, which may hold what was deleted.

        Raises ValueError if another process reads it.
        """
        if self.file:
            with self._engine.connect() as connection:
                busy, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            if busy:
                raise ValueError(f"another process reads {self.file}, whose log may keep deleted text; try again later")

    def backup(self, out: Path) -> None:
        """Write a consistent copy of the file, while others read and write. Raises ValueError if `out` exists."""
        if not self.file:
            raise ValueError("a backup of PostgreSQL is made by pg_dump")
        writable(out)
        if out.exists():
            raise ValueError(f"{out} exists; expected the name of a new file")
        part = out.with_name(f".{out.name}.part")
        part.unlink(missing_ok=True)
        with writing(out), self._engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            raw.execute("VACUUM INTO ?", (str(part),))
            sync(part)
            part.rename(out)
            sync(out.absolute().parent)

    def _migrate(self) -> None:
        with self.read() as connection:
            if _revision(connection) == SCHEMA:
                return
        with self.write() as connection:
            if not self.file:
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({MIGRATION})"))
            found = _revision(connection)
            if found is None and self.file and sa.inspect(connection).get_table_names():
                raise ValueError(f"{self.where} is a database of another program; expected a store of codots")
            if found != SCHEMA:
                _upgrade(connection, found, self._safe)


def _revision(connection: sa.Connection) -> str | None:
    """Return the schema's revision, or None for an empty database."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one()
    return found


def _upgrade(connection: sa.Connection, found: str | None, where: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise ValueError(f"{where} has schema {found}, of a newer codots; this one knows up to {SCHEMA}: upgrade it")
    command.upgrade(config, "head")


def _set_up(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions begin in _begin, not at the first write
    for setting in SETTINGS:
        connection.execute(f"PRAGMA {setting}")


def _begin(connection: sa.Connection) -> None:
    """Take the write lock first: a transaction that read before could not get it after a write of another process."""
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
