//! Splits a query into conditions; knows about quotes, fields and signs, and not about what they mean.

use super::{Op, QueryError};

/// One condition as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lexeme {
    pub(super) negated: bool,
    /// The field and its operator, with the place of the field.
    pub(super) field: Option<(String, Op, usize)>,
    /// The values: one, or several after a field.
    pub(super) values: Vec<Value>,
}

/// A value as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) text: String,
    pub(super) is_quoted: bool,
    pub(super) at: usize,
    pub(super) length: usize,
}

/// Splits `text`.
pub(super) fn split(text: &str) -> Result<Vec<Lexeme>, QueryError> {
    let mut lexer = Lexer {
        chars: text.chars().collect(),
        at: 0,
    };
    let mut lexemes = Vec::new();
    loop {
        while lexer.peek().is_some_and(char::is_whitespace) {
            lexer.at += 1;
        }
        if lexer.peek().is_none() {
            return Ok(lexemes);
        }
        lexemes.push(lexer.lexeme()?);
    }
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self, c: char) -> bool {
        let is_next = self.peek() == Some(c);
        self.at += usize::from(is_next);
        is_next
    }

    fn lexeme(&mut self) -> Result<Lexeme, QueryError> {
        let start = self.at;
        let negated = self.take('-');
        let field = self.field();
        let mut values = vec![self.value(field.is_some())?];
        while field.is_some() && self.take(',') {
            values.push(self.value(true)?);
        }
        let is_bare_sign = values[0].text.is_empty() && !values[0].is_quoted;
        if is_bare_sign && field.is_none() {
            return Err(error(
                start,
                self.at - start,
                "there is nothing after the '-'; to search for it, quote it",
            ));
        }
        if let Some(c) = self.peek().filter(|c| !c.is_whitespace()) {
            return Err(error(self.at, 1, format!("expected a space before {c:?}")));
        }
        Ok(Lexeme {
            negated,
            field,
            values,
        })
    }

    /// A name and an operator, if that is what follows.
    fn field(&mut self) -> Option<(String, Op, usize)> {
        let start = self.at;
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
        let length = self.chars[start..].iter().take_while(|c| is_name(**c)).count();
        let name: String = self.chars[start..start + length].iter().collect();
        let after = |offset: usize| self.chars.get(start + length + offset).copied();
        let (op, width) = match (after(0)?, after(1)) {
            ('>', Some('=')) => (Op::AtLeast, 2),
            ('<', Some('=')) => (Op::AtMost, 2),
            ('>', _) => (Op::Above, 1),
            ('<', _) => (Op::Below, 1),
            (':' | '=', _) => (Op::Is, 1),
            _ => return None,
        };
        if length == 0 {
            return None;
        }
        self.at += length + width;
        Some((name, op, start))
    }

    fn value(&mut self, ends_at_comma: bool) -> Result<Value, QueryError> {
        let start = self.at;
        let mut text = String::new();
        if self.take('"') {
            loop {
                match self.peek() {
                    None => return Err(error(start, self.at - start, "this quote is not closed")),
                    Some('"') => break,
                    Some('\\') if matches!(self.chars.get(self.at + 1), Some('"' | '\\')) => self.at += 1,
                    Some(_) => {}
                }
                text.extend(self.peek());
                self.at += 1;
            }
            self.at += 1;
        } else {
            let ends = |c: char| c.is_whitespace() || ends_at_comma && c == ',';
            while let Some(c) = self.peek().filter(|c| !ends(*c)) {
                text.push(c);
                self.at += 1;
            }
        }
        Ok(Value {
            is_quoted: self.chars.get(start) == Some(&'"'),
            text,
            at: start,
            length: self.at - start,
        })
    }
}

pub(super) fn error(at: usize, length: usize, message: impl Into<String>) -> QueryError {
    QueryError {
        at,
        length,
        message: message.into(),
    }
}
