//! Splits a statement into tokens where PostgreSQL's own scanner does, or refuses it.
//!
//! The rules are those of the manual, chapter 4.1, with `standard_conforming_strings` on. Where
//! PostgreSQL's versions, settings or encodings read a spelling differently, it is refused: there
//! is always another way to write the same.

use super::objection::Objection;
use crate::tenant::MAX_IDENTIFIER_BYTES;

/// The longest statement that is read, bytes. Reading costs up to three microseconds a byte; bulk data
/// belongs into parameters.
pub(super) const MAX_BYTES: usize = 256 << 10;

/// How deep brackets may nest, together with the operators and keywords that a parser descends
/// into ([`DESCENTS`]). Each costs a parser some kilobytes of stack.
pub(super) const MAX_DEPTH: usize = 100;

/// How many tokens may stand in a row without a comma, summed over the open brackets: a bound for
/// the depth of any tree that is made of them.
pub(super) const MAX_RUN: usize = 800;

/// Words that a parser descends into without a bracket.
const DESCENTS: [&str; 3] = ["not", "case", "between"];

/// The characters that operators are made of.
const OPERATOR_CHARACTERS: &[u8] = b"~!@#^&|?+-*/%<>=";

/// A piece of a statement that is neither white space nor a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What a token is, as far as its borders depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A keyword, or a name without quotes.
    Word,
    /// A name in double quotes.
    QuotedName,
    /// A string constant in any of its spellings.
    Text,
    /// A number.
    Number,
    /// `$1`
    Parameter,
    /// Operator characters in a row. PostgreSQL may read them as more than one operator.
    Operator,
    /// A bracket, comma, dot, colon or semicolon.
    Mark,
}

/// Reads all of `sql`, a single statement. The semicolon that may end it is no token.
pub(super) fn scan(sql: &str) -> Result<Vec<Token>, Objection> {
    if sql.len() > MAX_BYTES {
        return Err(Objection::TooLong);
    }
    let mut scanner = Scanner { text: sql, bytes: sql.as_bytes(), position: 0 };
    let mut tokens: Vec<Token> = Vec::new();
    let mut nesting = Nesting::default();
    let mut ended = false;
    while let Some(token) = scanner.next()? {
        if ended {
            return Err(Objection::SeveralStatements);
        }
        let spelling = &sql[token.start..token.end];
        if spelling == ";" {
            ended = true;
            continue;
        }
        let previous = tokens.last().map(|last| last.kind);
        if token.kind == TokenKind::Text && previous == Some(TokenKind::Text) {
            return Err(Objection::ContinuedText);
        }
        nesting.add(token.kind, previous, spelling)?;
        tokens.push(token);
    }
    if tokens.is_empty() { Err(Objection::Empty) } else { Ok(tokens) }
}

/// How deep a parser may have to descend at this point of a statement.
#[derive(Default)]
struct Nesting {
    /// For each open bracket, and the statement itself, what stands since its last comma.
    open: Vec<Element>,
    element: Element,
    total: Element,
}

#[derive(Default, Clone, Copy)]
struct Element {
    tokens: usize,
    descents: usize,
}

impl Nesting {
    fn add(&mut self, kind: TokenKind, previous: Option<TokenKind>, spelling: &str) -> Result<(), Objection> {
        match spelling {
            "(" | "[" => {
                self.count(1);
                self.open.push(std::mem::take(&mut self.element));
            }
            ")" | "]" => {
                self.forget_element();
                self.element = self.open.pop().unwrap_or_default();
            }
            "," => self.forget_element(),
            // An operator behind an operator is a sign, and signs nest.
            _ if kind == TokenKind::Operator && previous == Some(TokenKind::Operator) => self.count(1),
            word if kind == TokenKind::Word && DESCENTS.iter().any(|d| word.eq_ignore_ascii_case(d)) => {
                self.count(1);
            }
            _ => self.count(0),
        }
        if self.total.tokens > MAX_RUN || self.total.descents > MAX_DEPTH {
            return Err(Objection::TooDeep);
        }
        Ok(())
    }

    fn count(&mut self, descents: usize) {
        for element in [&mut self.element, &mut self.total] {
            element.tokens += 1;
            element.descents += descents;
        }
    }

    fn forget_element(&mut self) {
        self.total.tokens -= self.element.tokens;
        self.total.descents -= self.element.descents;
        self.element = Element::default();
    }
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    position: usize,
}

impl Scanner<'_> {
    fn next(&mut self) -> Result<Option<Token>, Objection> {
        self.skip_trivia()?;
        let start = self.position;
        let Some(first) = self.peek(0) else { return Ok(None) };
        let kind = match first {
            b'\'' => self.plain_text()?,
            b'"' => self.quoted_name()?,
            b'$' => self.dollar()?,
            b'0'..=b'9' => self.number()?,
            b'.' if self.peek(1).is_some_and(|next| next.is_ascii_digit()) => self.number()?,
            b'(' | b')' | b'[' | b']' | b',' | b';' | b':' | b'.' => {
                self.position += 1;
                TokenKind::Mark
            }
            _ if OPERATOR_CHARACTERS.contains(&first) => self.operator(),
            _ if starts_word(first) => self.word()?,
            _ => return Err(self.strange_character()),
        };
        Ok(Some(Token { kind, start, end: self.position }))
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.position + ahead).copied()
    }

    fn starts_with(&self, prefix: &str) -> bool {
        self.bytes[self.position..].starts_with(prefix.as_bytes())
    }

    /// Moves behind what `is_part` holds for.
    fn pass(&mut self, is_part: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&is_part) {
            self.position += 1;
        }
    }

    fn skip_trivia(&mut self) -> Result<(), Objection> {
        loop {
            // The vertical tab is white space to some versions only.
            self.pass(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c'));
            if self.starts_with("--") {
                self.pass(|byte| byte != b'\n' && byte != b'\r' && byte != 0);
            } else if self.starts_with("/*+") {
                return Err(Objection::Hint);
            } else if self.starts_with("/*") {
                self.skip_block_comment()?;
            } else {
                return Ok(());
            }
        }
    }

    /// Block comments nest.
    fn skip_block_comment(&mut self) -> Result<(), Objection> {
        let mut depth = 0_usize;
        loop {
            if self.starts_with("/*") {
                depth += 1;
                self.position += 2;
            } else if self.starts_with("*/") {
                depth -= 1;
                self.position += 2;
                if depth == 0 {
                    return Ok(());
                }
            } else {
                match self.peek(0) {
                    None => return Err(Objection::Unended("comment")),
                    Some(0) => return Err(self.strange_character()),
                    Some(_) => self.position += 1,
                }
            }
        }
    }

    /// `'…'`, where a backslash is a character like any other.
    fn plain_text(&mut self) -> Result<TokenKind, Objection> {
        self.quoted(b'\'', false)?;
        Ok(TokenKind::Text)
    }

    fn quoted_name(&mut self) -> Result<TokenKind, Objection> {
        let inside = self.quoted(b'"', false)?;
        match inside {
            0 => Err(Objection::EmptyName),
            1..=MAX_IDENTIFIER_BYTES => Ok(TokenKind::QuotedName),
            _ => Err(Objection::LongName),
        }
    }

    /// Moves behind the closing quote, and counts the bytes inside; a doubled quote is one.
    fn quoted(&mut self, quote: u8, backslash_escapes: bool) -> Result<usize, Objection> {
        self.position += 1;
        let mut inside = 0;
        loop {
            match self.peek(0) {
                None => return Err(Objection::Unended(if quote == b'"' { "name" } else { "string" })),
                Some(0) => return Err(self.strange_character()),
                Some(b'\\') if backslash_escapes => self.position += 2,
                Some(byte) if byte == quote && self.peek(1) == Some(quote) => self.position += 2,
                Some(byte) if byte == quote => {
                    self.position += 1;
                    return Ok(inside);
                }
                Some(_) => self.position += 1,
            }
            inside += 1;
        }
    }

    /// `$1`, `$$…$$` or `$tag$…$tag$`.
    fn dollar(&mut self) -> Result<TokenKind, Objection> {
        let start = self.position;
        self.position += 1;
        if self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
            self.pass(|byte| byte.is_ascii_digit());
            return match self.peek(0) {
                Some(byte) if starts_word(byte) => Err(Objection::Number),
                _ => Ok(TokenKind::Parameter),
            };
        }
        if self.peek(0).is_some_and(starts_word) {
            self.pass(|byte| starts_word(byte) || byte.is_ascii_digit());
        }
        if self.peek(0) != Some(b'$') {
            self.position = start;
            return Err(self.strange_character());
        }
        self.position += 1;
        let tag = &self.text[start..self.position];
        let length = self.text[self.position..].find(tag).ok_or(Objection::Unended("string"))?;
        if let Some(nul) = self.bytes[self.position..self.position + length].iter().position(|b| *b == 0) {
            self.position += nul;
            return Err(self.strange_character());
        }
        self.position += length + tag.len();
        Ok(TokenKind::Text)
    }

    /// Decimal numbers only: the other bases and `_` between digits are new in PostgreSQL 16.
    fn number(&mut self) -> Result<TokenKind, Objection> {
        let digit = |byte: u8| byte.is_ascii_digit();
        self.pass(digit);
        if self.peek(0) == Some(b'.') {
            self.position += 1;
            self.pass(digit);
        }
        if matches!(self.peek(0), Some(b'e' | b'E')) {
            self.position += 1;
            if matches!(self.peek(0), Some(b'+' | b'-')) {
                self.position += 1;
            }
            if !self.peek(0).is_some_and(digit) {
                return Err(Objection::Number);
            }
            self.pass(digit);
        }
        match self.peek(0) {
            Some(byte) if starts_word(byte) || byte == b'.' => Err(Objection::Number),
            _ => Ok(TokenKind::Number),
        }
    }

    /// As far as operator characters reach; a comment may start among them.
    fn operator(&mut self) -> TokenKind {
        while self.peek(0).is_some_and(|byte| OPERATOR_CHARACTERS.contains(&byte))
            && !self.starts_with("--")
            && !self.starts_with("/*")
        {
            self.position += 1;
        }
        TokenKind::Operator
    }

    fn word(&mut self) -> Result<TokenKind, Objection> {
        let start = self.position;
        match (self.bytes[start], self.peek(1), self.peek(2)) {
            (b'e' | b'E', Some(b'\''), _) => {
                self.position += 1;
                self.quoted(b'\'', true)?;
                return Ok(TokenKind::Text);
            }
            (b'b' | b'B', Some(b'\''), _) => return self.bits(|byte| matches!(byte, b'0' | b'1')),
            (b'x' | b'X', Some(b'\''), _) => return self.bits(|byte| byte.is_ascii_hexdigit()),
            (b'n' | b'N', Some(b'\''), _) => return Err(Objection::NationalText),
            (b'u' | b'U', Some(b'&'), Some(b'\'' | b'"')) => return Err(Objection::UnicodeEscapes),
            _ => {}
        }
        self.pass(|byte| starts_word(byte) || byte.is_ascii_digit() || byte == b'$');
        let word = &self.text[start..self.position];
        if word.len() > MAX_IDENTIFIER_BYTES {
            return Err(Objection::LongName);
        }
        // PostgreSQL folds ASCII; whether it folds more depends on the database's encoding.
        if word.chars().any(|c| !c.is_ascii() && !c.to_lowercase().eq([c])) {
            return Err(Objection::FoldedName);
        }
        Ok(TokenKind::Word)
    }

    /// A bit string: `B'0101'` or `X'1F'`.
    fn bits(&mut self, is_digit: impl Fn(u8) -> bool) -> Result<TokenKind, Objection> {
        self.position += 2;
        self.pass(is_digit);
        if self.peek(0) != Some(b'\'') || self.peek(1) == Some(b'\'') {
            return Err(Objection::BitString);
        }
        self.position += 1;
        Ok(TokenKind::Text)
    }

    fn strange_character(&self) -> Objection {
        let rest = self.text.get(self.position..).unwrap_or_default();
        Objection::Character(rest.chars().next().unwrap_or('\0'))
    }
}

/// Whether a word can start with `byte`, which may be part of a character beyond ASCII.
fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}
