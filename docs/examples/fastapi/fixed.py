"""The application of `app.py`, unchanged, with its statements run by Innkeeper.

    DATABASE_URL=innkeeper://127.0.0.1:8081/sql uvicorn fixed:app --port 9000
"""

import innkeeper_dbapi  # makes `innkeeper://` known, before the engine is made
from app import app

app.add_middleware(innkeeper_dbapi.Tickets)
