// Which tenant an API key belongs to. The policy's `kv` is the table of keys.
#include "policy.h"
