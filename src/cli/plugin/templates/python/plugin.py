"""Which tenant an API key belongs to."""

import json

import wit_world
from componentize_py_types import Err
from wit_world.imports.types import (
    Decision,
    Decision_Deny,
    Decision_Next,
    Decision_Place,
    Denial,
    Placement,
    Request,
)

keys: dict[str, str] = {}


class WitWorld(wit_world.WitWorld):
    """The functions that the contract asks for."""

    def configure(self, config: str) -> None:
        """Called once, before any request, with the policy's `config` as JSON.

        An Err refuses the policy, and is shown to whoever wrote it.
        """
        global keys
        match json.loads(config):
            case {"keys": dict(written), **unknown} if not unknown:
                keys = written
            case _:
                raise Err("config must have the field `keys`, a map, and no other")

    def resolve(self, request: Request) -> Decision:
        """Called for each request. An Err is a failure of the plugin."""
        key = request.header("x-api-key")
        if key is None:
            return Decision_Next()
        tenant = keys.get(key)
        if tenant is None:
            return Decision_Deny(Denial(401, "unknown-key", "this API key is not known"))
        return Decision_Place(Placement(tenant, headers=[], upstream=None, reason="api key"))
