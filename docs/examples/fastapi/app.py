"""A multi-tenant service as many are written, with the race that many of them have.

A middleware points the request's session at the tenant's schema. `commit()` in the handler gives
the connection back to the pool; the next statement of the same request runs on whichever connection
the pool hands out then, and that one points wherever another request left it.
"""

import asyncio
import os
import random

from fastapi import FastAPI, Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"])
sessions = async_sessionmaker(engine)
app = FastAPI()


@app.middleware("http")
async def choose_schema(request: Request, call_next):
    tenant = request.headers["x-tenant-id"].replace('"', "")
    async with sessions() as session:
        request.state.session = session
        await session.execute(text(f'SET search_path TO "{tenant}"'))
        try:
            return await call_next(request)
        finally:
            await session.rollback()
            await session.execute(text("SET search_path TO public"))
            await session.commit()


@app.get("/orders")
async def orders(request: Request):
    session = request.state.session
    await session.execute(
        text("UPDATE visits SET seen = seen + 1 WHERE id = :id"), {"id": random.randint(1, 100)}
    )
    await session.commit()
    await ask_another_service()
    rows = await session.execute(text("SELECT id, tenant, item FROM orders ORDER BY id LIMIT 10"))
    return [dict(row) for row in rows.mappings()]


async def ask_another_service():
    """Stands for any wait in the middle of a request."""
    await asyncio.sleep(random.random() / 100)
