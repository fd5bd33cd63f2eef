// Which tenant an API key belongs to. The policy's `kv` is the table of keys: C has no JSON to read
// `config` with. `bindings/policy.h` has all that there is to call.
#include "policy.h"

// Strings that the host hands us are ours to free; strings that we answer are freed after the call,
// and so are always copies.
static policy_string_t copy(const char *text) {
    policy_string_t string;
    policy_string_dup(&string, text);
    return string;
}

// Called once, before any request, with the policy's `config` as JSON. An error refuses the policy,
// and is shown to whoever wrote it.
bool exports_policy_configure(policy_string_t *config, policy_string_t *error) {
    // A policy without `config` hands over `{}`.
    bool empty = config->len == 2;
    policy_string_free(config);
    if (!empty) *error = copy("this plugin takes no `config`: write its keys under `kv`");
    return empty;
}

// Called for each request. An error is a failure of the plugin.
bool exports_policy_resolve(policy_borrow_request_t request, policy_decision_t *decision,
                            policy_string_t *error) {
    (void)error;
    policy_string_t header, key, tenant;
    policy_string_set(&header, "x-api-key");
    if (!innkeeper_policy_types_method_request_header(request, &header, &key)) {
        decision->tag = INNKEEPER_POLICY_TYPES_DECISION_NEXT;
        return true;
    }
    bool known = innkeeper_policy_kv_get(&key, &tenant);
    policy_string_free(&key);
    if (known) {
        decision->tag = INNKEEPER_POLICY_TYPES_DECISION_PLACE;
        decision->val.place = (innkeeper_policy_types_placement_t){
            .tenant = tenant,
            .reason = {.is_some = true, .val = copy("api key")},
        };
    } else {
        decision->tag = INNKEEPER_POLICY_TYPES_DECISION_DENY;
        decision->val.deny = (innkeeper_policy_types_denial_t){
            .status = 401,
            .code = copy("unknown-key"),
            .message = copy("this API key is not known"),
        };
    }
    return true;
}
