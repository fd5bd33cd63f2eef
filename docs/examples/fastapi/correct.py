"""The same endpoint written with care: one transaction a request, the schema set `LOCAL` in it.

It is what Innkeeper's query targets are measured against; nothing in it can be left out.
"""

import os
import re

from fastapi import FastAPI, HTTPException, Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=20, max_overflow=0)
app = FastAPI()

TENANT = re.compile(r"[a-z][a-z0-9_]{0,62}")
ORDERS = text("SELECT id, tenant, item FROM orders ORDER BY id LIMIT 10")


@app.get("/orders")
async def orders(request: Request):
    tenant = request.headers.get("x-tenant-id", "")
    if not TENANT.fullmatch(tenant):
        raise HTTPException(400, "name the tenant in the header `X-Tenant-ID`")
    async with engine.begin() as connection:
        await connection.execute(
            text("SELECT set_config('search_path', :path, true)"), {"path": f'"{tenant}", pg_temp'}
        )
        rows = await connection.execute(ORDERS)
        return [dict(row) for row in rows.mappings()]
