//! Which operators a statement may use: PostgreSQL's own, those of widely used extensions, and those of
//! the policy. Any other may be a function of a tenant's schema under another name.

use std::collections::HashSet;

use super::objection::{Objection, shown};
use super::scan::{Token, TokenKind};

/// The operators of PostgreSQL, of the extensions that it ships, and of PostGIS, pgvector and RUM. With
/// them stand `=>` before an argument's value and `!=`, which is read as `<>`. Sorted.
#[rustfmt::skip]
const KNOWN: &[&str] = &[
    "!!", "!=", "!~", "!~*", "!~~", "!~~*", "#", "##", "#-", "#<#", "#<=#", "#=", "#>", "#>#", "#>=#", "#>>",
    "%", "%%", "%>", "%>>", "&", "&&", "&&&", "&/&", "&<", "&<|", "&>", "*", "*<", "*<=", "*<>", "*=", "*>",
    "*>=", "+", "-", "->", "->>", "-|-", "/", "<", "<#>", "<%", "<%>", "<+>", "<->", "<->>", "<->>>", "<<",
    "<<#>>", "<<%", "<<->", "<<->>", "<<<->", "<<=", "<<@", "<<|", "<=", "<=>", "<=|", "<>", "<@", "<@>", "<^",
    "<~>", "=", "=>", ">", ">=", ">>", ">>=", ">^", "?", "?#", "?&", "?-", "?-|", "?<@", "?@", "?@>", "?|",
    "?||", "?~", "@", "@-@", "@>", "@>>", "@?", "@@", "@@@", "^", "^<@", "^?", "^@", "^@>", "^~", "|", "|&>",
    "|/", "|=>", "|=|", "|>>", "||", "||/", "~", "~*", "~<=~", "~<~", "~=", "~==", "~>", "~>=~", "~>~", "~~",
    "~~*", "~~=",
];

/// The characters of which one must stand in an operator that ends in a sign.
const BEFORE_A_SIGN: &[char] = &['~', '!', '@', '#', '^', '&', '|', '?', '%'];

/// Judges every operator among the `tokens` of `sql`, wherever it stands: between values, before one,
/// behind `USING`, within `OPERATOR(…)`.
pub(super) fn judge(sql: &str, tokens: &[Token], listed: &HashSet<String>) -> Result<(), Objection> {
    let runs = tokens.iter().filter(|token| token.kind == TokenKind::Operator);
    for operator in runs.flat_map(|run| split(&sql[run.start..run.end])) {
        if KNOWN.binary_search(&operator).is_err() && !listed.contains(operator) {
            return Err(Objection::Operator(shown(operator)));
        }
    }
    Ok(())
}

/// Cuts operator characters in a row as PostgreSQL does (manual, chapter 4.1.3): the longest operator
/// first, and signs behind one are its own only where it holds a character that no arithmetic has.
fn split(run: &str) -> impl Iterator<Item = &str> {
    let arithmetic = run.trim_end_matches(['+', '-']);
    let keeps_its_signs = arithmetic.contains(BEFORE_A_SIGN);
    let first = match (keeps_its_signs, arithmetic.len()) {
        (true, _) => run.len(),
        (false, 0) => 1,
        (false, length) => length,
    };
    let signs = (first..run.len()).map(|at| &run[at..=at]);
    std::iter::once(&run[..first]).chain(signs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted() {
        assert!(KNOWN.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_run_is_cut_as_postgresql_cuts_it() {
        for (run, operators) in [
            ("=", &["="][..]),
            ("=-", &["=", "-"]),
            ("*+-", &["*", "+", "-"]),
            ("-+", &["-", "+"]),
            ("||-", &["||-"]),
            ("@-", &["@-"]),
            ("#-", &["#-"]),
            ("<->", &["<->"]),
            ("->>-", &["->>", "-"]),
            ("###", &["###"]),
        ] {
            assert_eq!(split(run).collect::<Vec<_>>(), operators, "{run}");
        }
    }
}
