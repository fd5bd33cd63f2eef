// Customers by the number that an old application has in its paths: `/c/00471/orders` belongs to
// the tenant that the policy's `kv` has for `471`. A path without a number is left to the next
// resolver; a number that nobody has is refused.
#include "policy.h"

#include <string.h>

static const char PREFIX[] = "/c/";

// The longest number, in digits. A longer one is nobody's, and is not even looked up.
enum { LONGEST = 12 };

// Digits in somebody else's string.
typedef struct {
    const uint8_t *first;
    size_t count;
} digits_t;

// What follows the prefix up to the next `/` or the end, if it is a number; else no digits.
static digits_t number_in(const policy_string_t *path) {
    const size_t prefix = sizeof PREFIX - 1;
    digits_t none = {NULL, 0};
    if (path->len <= prefix || memcmp(path->ptr, PREFIX, prefix) != 0) return none;
    digits_t number = {path->ptr + prefix, 0};
    size_t rest = path->len - prefix;
    while (number.count < rest && number.first[number.count] != '/') {
        uint8_t digit = number.first[number.count];
        if (digit < '0' || digit > '9') return none;
        number.count++;
    }
    return number;
}

// `00471` is `471`: the old application took both.
static digits_t without_leading_zeros(digits_t number) {
    while (number.count > 1 && *number.first == '0') {
        number.first++;
        number.count--;
    }
    return number;
}

// The tenant of a number, which the caller owns; false where nobody has it.
static bool find(digits_t number, policy_string_t *tenant) {
    if (number.count > LONGEST) return false;
    policy_string_t key;
    policy_string_dup_n(&key, (const char *)number.first, number.count);
    bool found = innkeeper_policy_kv_get(&key, tenant);
    policy_string_free(&key);
    return found;
}

// What we answer is freed after the call, and so is always a copy.
static policy_string_t copy(const char *text) {
    policy_string_t string;
    policy_string_dup(&string, text);
    return string;
}

bool exports_policy_configure(policy_string_t *config, policy_string_t *error) {
    // A policy without `config` hands over `{}`.
    bool empty = config->len == 2;
    policy_string_free(config);
    if (!empty) *error = copy("customer-number takes no `config`: write its numbers under `kv`");
    return empty;
}

bool exports_policy_resolve(policy_borrow_request_t request, policy_decision_t *decision,
                            policy_string_t *error) {
    (void)error;
    policy_string_t path, tenant;
    innkeeper_policy_types_method_request_path(request, &path);
    digits_t number = without_leading_zeros(number_in(&path));
    if (number.count == 0) {
        decision->tag = INNKEEPER_POLICY_TYPES_DECISION_NEXT;
    } else if (find(number, &tenant)) {
        decision->tag = INNKEEPER_POLICY_TYPES_DECISION_PLACE;
        decision->val.place = (innkeeper_policy_types_placement_t){
            .tenant = tenant,
            .reason = {.is_some = true, .val = copy("customer number")},
        };
    } else {
        decision->tag = INNKEEPER_POLICY_TYPES_DECISION_DENY;
        decision->val.deny = (innkeeper_policy_types_denial_t){
            .status = 404,
            .code = copy("unknown-customer"),
            .message = copy("there is no customer of that number"),
        };
    }
    policy_string_free(&path);
    return true;
}
