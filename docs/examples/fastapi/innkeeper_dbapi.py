"""An SQLAlchemy driver whose connections are calls of Innkeeper's `sql` target.

    engine = create_async_engine("innkeeper://127.0.0.1:8081/sql")

Every statement is one POST and one transaction, run as the tenant of the request that is being
served: its ticket goes along, and nothing that this process does can name another tenant. A driver
with nothing to share has nothing to mix up.

What differs from a connection of one's own:

- A statement is committed when it returns. `commit()` has nothing left to do, and `rollback()` after
  a change raises, because it cannot keep its word. Many rows of one INSERT go as one transaction.
- `SET search_path` is not sent: the ticket has said whose tables are meant.
"""

import datetime
import decimal
import json
import re
import sys
import uuid
from contextvars import ContextVar

import httpx
from sqlalchemy import pool
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.util import await_only

ticket: ContextVar[str | None] = ContextVar("ticket", default=None)


class Tickets:
    """ASGI middleware: keeps the ticket of the request that is being served.

    app.add_middleware(Tickets)
    """

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            ticket.set(dict(scope["headers"]).get(b"x-tenant-ticket", b"").decode() or None)
        await self.app(scope, receive, send)


# The interface of PEP 249.

apilevel = "2.0"
threadsafety = 1
paramstyle = "numeric_dollar"


class Error(Exception):
    """What every error of this module is."""

    sqlstate: str | None = None


class InterfaceError(Error):
    """The gateway answered with something that is no answer."""


class DatabaseError(Error):
    """The statement failed."""


class DataError(DatabaseError):
    """A value did not fit (SQLSTATE 22)."""


class IntegrityError(DatabaseError):
    """A constraint was violated (SQLSTATE 23)."""


class OperationalError(DatabaseError):
    """The gateway or the database could not serve."""


class ProgrammingError(DatabaseError):
    """The statement is wrong, or was refused."""


class NotSupportedError(DatabaseError):
    """What one call for each statement cannot do."""


def connect(url: str) -> "Connection":
    return Connection(url)


class Connection:
    """Where cursors come from. It holds no connection, and no tenant."""

    def __init__(self, url: str):
        self.url = url
        self.has_changed = False

    def cursor(self) -> "Cursor":
        return Cursor(self)

    def commit(self) -> None:
        self.has_changed = False

    def rollback(self) -> None:
        if self.has_changed:
            self.has_changed = False
            raise NotSupportedError(
                "a change cannot be rolled back: each statement was committed when it returned"
            )

    def close(self) -> None:
        pass


class Cursor:
    """One statement at a time, its rows in memory."""

    arraysize = 1
    server_side = False
    lastrowid = None

    def __init__(self, connection: Connection):
        self.connection = connection
        self._forget()

    def execute(self, statement: str, parameters=()) -> None:
        self._forget()
        if SET_SEARCH_PATH.match(statement):
            return
        answer = self._send({"query": statement, "params": [as_text(one) for one in parameters]})
        self._keep(answer)

    def executemany(self, statement: str, rows) -> None:
        self._forget()
        queries = [{"query": statement, "params": [as_text(one) for one in row]} for row in rows]
        answers = self._send({"queries": queries})["results"] if queries else []
        for answer in answers:
            self._keep(answer)
        self.rowcount = sum(answer["rowCount"] or 0 for answer in answers)

    def fetchone(self):
        return self._rows.pop(0) if self._rows else None

    def fetchmany(self, size=None):
        size = self.arraysize if size is None else size
        taken, self._rows = self._rows[:size], self._rows[size:]
        return taken

    def fetchall(self):
        taken, self._rows = self._rows, []
        return taken

    def setinputsizes(self, *_):
        pass

    def setoutputsize(self, *_):
        pass

    def close(self) -> None:
        self._rows = []

    async def _async_soft_close(self):
        """SQLAlchemy asks for it; there is nothing on a server to close."""

    def _forget(self):
        self.description, self.rowcount, self._rows = None, -1, []

    def _keep(self, answer):
        fields = answer["fields"]
        if fields:
            self.description = [(field["name"], field["dataTypeID"], *(None,) * 5) for field in fields]
        readers = [READERS.get(field["dataTypeID"], str) for field in fields]
        self._rows = [
            tuple(None if text is None else read(text) for read, text in zip(readers, row))
            for row in answer["rows"]
        ]
        self.rowcount = -1 if answer["rowCount"] is None else answer["rowCount"]
        if answer["command"] != "SELECT":
            self.connection.has_changed = True

    def _send(self, body):
        own = ticket.get()
        if own is None:
            raise OperationalError("there is no ticket: this request did not come through Innkeeper")
        headers = {
            "X-Tenant-Ticket": own,
            "Neon-Raw-Text-Output": "true",
            "Neon-Array-Mode": "true",
        }
        try:
            # SQLAlchemy runs drivers in a greenlet, from which one may await.
            answer = await_only(http_client().post(self.connection.url, json=body, headers=headers))
            content = answer.json()
        except httpx.HTTPError as error:
            raise OperationalError(f"Innkeeper cannot be reached: {error}") from error
        except json.JSONDecodeError as error:
            raise InterfaceError(f"{answer.status_code} without a JSON body") from error
        if answer.status_code != 200:
            raise failure(answer.status_code, content)
        return content


def failure(status: int, content: dict) -> Error:
    code = content.get("code") or ""
    # A refusal of the gateway's has a word in its place.
    sqlstate = code if SQLSTATE.fullmatch(code) else ""
    kind = {"22": DataError, "23": IntegrityError, "42": ProgrammingError}.get(sqlstate[:2])
    if kind is None:
        kind = ProgrammingError if status in (400, 403) else OperationalError
    error = kind(content.get("message") or content.get("detail") or f"status {status}")
    error.sqlstate = sqlstate or None
    return error


def as_text(value):
    """A parameter as PostgreSQL reads it; its type is for PostgreSQL to infer."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float() | decimal.Decimal() | uuid.UUID():
            return str(value)
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return "\\x" + bytes(value).hex()
    raise NotSupportedError(f"a parameter cannot be of the type {type(value).__name__}")


# By the type's OID in `pg_type`; what is not here stays text.
READERS = {
    16: lambda text: text == "t",
    17: lambda text: bytes.fromhex(text.removeprefix("\\x")),
    20: int,
    21: int,
    23: int,
    700: float,
    701: float,
    1082: datetime.date.fromisoformat,
    1114: datetime.datetime.fromisoformat,
    1184: datetime.datetime.fromisoformat,
    1700: decimal.Decimal,
    2950: uuid.UUID,
}

SQLSTATE = re.compile(r"[0-9A-Z]{5}")
SET_SEARCH_PATH = re.compile(r"\s*SET\s+search_path\b[^;]*;?\s*\Z", re.IGNORECASE)

_http_client: httpx.AsyncClient | None = None


def http_client() -> httpx.AsyncClient:
    """One for the process: it keeps its connections to the gateway open."""
    global _http_client
    if _http_client is None:
        _http_client = httpx.AsyncClient(timeout=60)
    return _http_client


class Dialect(PGDialect):
    """PostgreSQL's SQL, sent over HTTP."""

    driver = "innkeeper"
    is_async = True
    default_paramstyle = "numeric_dollar"
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls):
        return sys.modules[__name__]

    @classmethod
    def get_pool_class(cls, url):
        # A connection holds nothing that would be worth keeping.
        return pool.NullPool

    def create_connect_args(self, url):
        port = f":{url.port}" if url.port else ""
        return [], {"url": f"http://{url.host}{port}/{url.database or 'sql'}"}

    def initialize(self, connection):
        # The usual questions are about the server and the session, which belong to no tenant.
        self.server_version_info = (14, 0)
        self.default_schema_name = None
        self._backslash_escapes = False

    def get_driver_connection(self, connection):
        return connection

    def is_disconnect(self, error, connection, cursor):
        return False


registry.register("innkeeper", __name__, "Dialect")
