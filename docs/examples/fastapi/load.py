"""Calls `/orders` as several tenants at once and counts the rows that belong to another tenant.

    python load.py http://127.0.0.1:9000 --requests 1000 --clients 20

Exits with 1 where an answer was wrong.
"""

import argparse
import asyncio
import collections
import itertools

import httpx

TENANTS = ("acme", "globex", "initech")


async def main() -> int:
    arguments = read_arguments()
    outcomes = collections.Counter()
    turns = iter(itertools.islice(itertools.cycle(TENANTS), arguments.requests))
    async with httpx.AsyncClient(base_url=arguments.url, timeout=60) as http:

        async def client():
            for tenant in turns:
                outcomes[await outcome(http, tenant)] += 1

        await asyncio.gather(*(client() for _ in range(arguments.clients)))
    for what, count in outcomes.most_common():
        print(f"{count:6} {what}")
    return 0 if set(outcomes) == {RIGHT} else 1


RIGHT = "answered with the tenant's own rows"


async def outcome(http: httpx.AsyncClient, tenant: str) -> str:
    try:
        response = await http.get("/orders", headers={"X-Tenant-ID": tenant})
    except httpx.TransportError:
        return "failed without an answer"
    if response.status_code != 200:
        return f"failed with {response.status_code}"
    rows = response.json()
    if not rows:
        return "answered without a row"
    if any(row["tenant"] != tenant for row in rows):
        return "ANSWERED WITH ANOTHER TENANT'S ROWS"
    return RIGHT


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
